//! Summarises a run in a sentence.

use super::cases::{Layer, Operation};
use super::options::EngineName;
use super::report::Row;
use super::table::engines;

/// Compares the largest batches on the fastest engine with one key at a time, and with fio.
pub(super) fn summary(rows: &[Row]) -> Option<String> {
    let engine = *engines(rows).last()?;
    let of_engine: Vec<_> = rows.iter().filter(|row| row.engine == engine).collect();
    let (layer, works) = if of_engine.iter().any(|row| row.layer == Layer::Store) {
        (Layer::Store, [Operation::Put, Operation::Get])
    } else {
        (Layer::Raw, [Operation::Write, Operation::Read])
    };
    let of_layer = || of_engine.iter().filter(|row| row.layer == layer);
    let batch = of_layer().map(|row| row.batch).max()?;
    let mut parts = Vec::new();
    for operation in works {
        let of_work: Vec<_> = of_layer()
            .filter(|row| (row.batch, row.operation) == (batch, operation))
            .copied()
            .collect();
        let serial = range(of_work.iter().filter_map(|row| row.ratio_to_serial), 1);
        let fio = range(of_work.iter().filter_map(|row| row.ratio_to_fio), 2);
        let comparisons = [
            serial.map(|ratio| format!("{ratio} times as much as one key at a time")),
            fio.map(|ratio| format!("{ratio} of fio")),
        ];
        let comparisons: Vec<_> = comparisons.into_iter().flatten().collect();
        let comparison = if comparisons.is_empty() {
            format!("{} MB/s", range(of_work.iter().map(|row| row.mb_per_s), 0)?)
        } else {
            comparisons.join(", ")
        };
        parts.push(format!("{} moves {comparison}", operation.name()));
    }
    let name = match engine {
        EngineName::Uring => "io_uring",
        EngineName::Nvme => "NVMe passthrough",
        EngineName::Memory | EngineName::Posix => engine.name(),
    };
    let verified = if layer == Layer::Store {
        "; every value that was read was the one that was put"
    } else {
        ""
    };
    Some(format!("{name}, batches of {batch}: {}{verified}.", parts.join("; ")))
}

/// The smallest and the largest of the figures, or the only one.
fn range(figures: impl Iterator<Item = f64>, decimals: usize) -> Option<String> {
    let bounds = figures.fold(None, |bounds: Option<(f64, f64)>, figure| {
        let (low, high) = bounds.unwrap_or((figure, figure));
        Some((low.min(figure), high.max(figure)))
    });
    let (low, high) = bounds?;
    let (low, high) = (format!("{low:.decimals$}"), format!("{high:.decimals$}"));
    Some(if low == high { low } else { format!("{low} to {high}") })
}

#[cfg(test)]
mod tests {
    use super::super::cases::Places;
    use super::*;

    #[test]
    fn it_says_how_the_largest_batches_compare_over_all_values() {
        let row = |layer, operation, batch, serial, fio| Row {
            places: Places::Apart,
            ratio_to_serial: serial,
            ratio_to_fio: fio,
            ..Row::example(layer, EngineName::Uring, operation, batch)
        };
        let rows = [
            row(Layer::Store, Operation::Put, 32, Some(4.12), Some(0.97)),
            row(Layer::Store, Operation::Put, 32, Some(12.8), Some(1.2)),
            row(Layer::Store, Operation::Get, 32, Some(2.0), None),
            row(Layer::Store, Operation::Get, 1, Some(1.0), None),
        ];
        assert_eq!(
            summary(&rows).unwrap(),
            "io_uring, batches of 32: put moves 4.1 to 12.8 times as much as one key at a time, 0.97 to 1.20 \
             of fio; get moves 2.0 times as much as one key at a time; every value that was read was the one \
             that was put."
        );
        let rows = [Operation::Write, Operation::Read].map(|op| row(Layer::Raw, op, 8, None, None));
        assert_eq!(
            summary(&rows).unwrap(),
            "io_uring, batches of 8: write moves 100 MB/s; read moves 100 MB/s."
        );
        assert_eq!(summary(&[]), None);
    }
}
