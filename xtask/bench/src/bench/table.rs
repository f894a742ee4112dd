//! The report as text: one table per engine, and one sentence below.

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use indicatif::HumanCount;

use super::cases::{Layer, Operation, Places};
use super::fio::Pages;
use super::options::EngineName;
use super::report::Row;
use super::units::size;

const RULE: LineStyle = LineStyle::none().fill('─').junction('─');
const STYLE: TableStyle =
    TableStyle::new().top_border(RULE).header_separator(RULE).bottom_border(RULE);

/// The tables of all engines: those on `device`, and that of passthrough on `generic`.
pub(super) fn tables(
    rows: &[Row],
    device: &str,
    generic: Option<&str>,
    fio_pages: Pages,
) -> String {
    let mut text = String::new();
    for engine in engines(rows) {
        let fio = rows.iter().any(|row| row.engine == engine && row.ratio_to_fio.is_some());
        let place = match engine {
            EngineName::Memory => "memory",
            EngineName::Nvme => generic.unwrap_or(device),
            EngineName::Posix | EngineName::Uring => device,
        };
        let reference = if fio { "fio" } else { "serial" };
        let title = format!("{} on {place}; ratio: keys/s to those of {reference}", engine.name());
        text += &format!("\n{}\n{}\n", wrapped(&title), table(rows, engine, fio));
    }
    if rows.iter().any(|row| row.judged == Some(false)) {
        text += "* not judged: two runs of fio differed by more than 5 %, or fewer than 9 rounds\n";
    }
    if fio_pages == Pages::Ordinary && rows.iter().any(|row| row.ratio_to_fio.is_some()) {
        text += "fio uses ordinary pages, the engines huge pages where granted: with large values\n\
                 this favours the engines; `sysctl vm.nr_hugepages=64` gives fio huge pages\n";
    }
    text
}

fn table(rows: &[Row], engine: EngineName, fio: bool) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE);
    table.set_header([
        "batch", "case", "keys/s", "MB/s", "p50 us", "p99 us", "CPU us", "calls", "ratio",
    ]);
    let mut of_engine: Vec<&Row> = rows.iter().filter(|row| row.engine == engine).collect();
    of_engine.sort_by_key(|row| {
        let direction = matches!(row.operation, Operation::Read | Operation::Get);
        (row.value_bytes, row.batch, direction, row.io_bytes)
    });
    let mut last = None;
    for row in of_engine {
        let shape = (row.value_bytes, row.batch);
        let batch = if last.replace(shape) == Some(shape) {
            String::new()
        } else {
            format!("{}x{}", row.batch, short(row.value_bytes))
        };
        let ratio = if fio { row.ratio_to_fio } else { row.ratio_to_serial };
        let mark = if fio && row.judged == Some(false) { "*" } else { "" };
        table.add_row([
            batch,
            case_name(row),
            figure(Some(row.keys_per_s)),
            figure(Some(row.mb_per_s)),
            figure(row.p50_us),
            figure(row.p99_us),
            figure(Some(row.cpu_us_per_key)),
            figure(row.submits_per_batch),
            ratio.map(|ratio| format!("{ratio:.2}{mark}")).unwrap_or_default(),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 0));
        if column.index > 1 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn case_name(row: &Row) -> String {
    let verb = row.operation.name();
    let apart = row.batch > 1 && row.places == Places::Apart;
    match row.layer {
        Layer::Raw => format!("raw {verb}"),
        Layer::Serial => format!("serial {verb}"),
        Layer::Store => format!("store {verb}{}", if apart { ", apart" } else { "" }),
        // As in fio's own option: a random offset after every this many transfers.
        Layer::Fio if row.places == Places::Neighbouring => {
            format!("fio {verb}:{} {}", row.batch, short(row.io_bytes))
        }
        Layer::Fio => format!("fio {verb} {}", short(row.io_bytes)),
    }
}

/// The same with fewer characters.
fn short(bytes: u64) -> String {
    size(bytes).replace(" B", "").replace("iB", "").replace(' ', "")
}

/// Wraps lines at 80 characters, between words.
pub(super) fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in text.split(' ') {
        let len = word.chars().count();
        if width > 0 && width + 1 + len > 80 {
            lines.push('\n');
            width = 0;
        } else if width > 0 {
            lines.push(' ');
            width += 1;
        }
        lines += word;
        width += len;
    }
    lines
}

/// A figure with three significant digits, or with separated thousands.
fn figure(figure: Option<f64>) -> String {
    match figure {
        None => String::new(),
        Some(figure) if figure >= 99.95 => separated(figure),
        Some(figure) if figure >= 9.995 => format!("{figure:.1}"),
        Some(figure) => format!("{figure:.2}"),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "no figure is negative or so large"
)]
fn separated(figure: f64) -> String {
    HumanCount(figure.round() as u64).to_string()
}

/// The engines that were measured, the fastest last.
pub(super) fn engines(rows: &[Row]) -> Vec<EngineName> {
    EngineName::ALL
        .into_iter()
        .filter(|&engine| rows.iter().any(|row| row.engine == engine))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_fit_a_terminal_of_80_columns() {
        let mut rows = Vec::new();
        for (layer, operation) in [
            (Layer::Store, Operation::Put),
            (Layer::Serial, Operation::Get),
            (Layer::Fio, Operation::Write),
        ] {
            rows.push(Row {
                value_bytes: 256 << 10,
                io_bytes: 260 << 10,
                keys_per_s: 234_567.8,
                mb_per_s: 1234.5,
                p50_us: Some(171_704.3),
                p99_us: Some(171_704.3),
                cpu_us_per_key: 123.4,
                submits_per_batch: Some(64.0),
                ratio_to_fio: (layer == Layer::Store).then_some(16.41),
                judged: Some(false),
                ..Row::example(layer, EngineName::Uring, operation, 32)
            });
        }
        rows.push(Row { places: Places::Apart, ..rows[0].clone() });
        let text = tables(&rows, "/dev/nvme0n1", None, Pages::Ordinary);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{}: {line}", line.chars().count());
        }
        assert!(text.contains("32x256K") && text.contains("fio write:32 260K"), "{text}");
    }

    #[test]
    fn long_lines_are_broken_between_words() {
        let text = "word ".repeat(40);
        let wrapped = wrapped(text.trim());
        assert!(wrapped.lines().all(|line| (1..=80).contains(&line.len())), "{wrapped}");
        assert_eq!(wrapped.replace('\n', " "), text.trim());
    }

    #[test]
    fn figures_have_three_digits_or_separated_thousands() {
        for (number, text) in [
            (0.0, "0.00"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (99.99, "100"),
            (999.4, "999"),
            (1000.0, "1,000"),
            (1_234_567.0, "1,234,567"),
        ] {
            assert_eq!(figure(Some(number)), text);
        }
        assert_eq!(figure(None), "");
    }
}
