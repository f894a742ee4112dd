//! The report for people: one table per engine, and one sentence below.

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

use super::cases::{Layer, Operation, Places};
use super::fio::Pages;
use super::options::{EngineName, Size};
use super::report::Row;

const RULE: LineStyle = LineStyle::none().fill('─').junction('─');
const STYLE: TableStyle =
    TableStyle::new().top_border(RULE).header_separator(RULE).bottom_border(RULE);

/// The tables of all engines.
pub(super) fn tables(rows: &[Row], device: &str, fio_pages: Pages) -> String {
    let mut text = String::new();
    for engine in engines(rows) {
        let fio = rows.iter().any(|row| row.engine == engine && row.ratio_to_fio.is_some());
        let place = if engine == EngineName::Memory { "memory" } else { device };
        text += &format!("\n{} on {place}\n{}\n", engine.name(), table(rows, engine, fio));
    }
    if rows.iter().any(|row| row.judged == Some(false)) {
        text += "* not judged: two runs of fio differed by more than 5 % (or fewer than 9 rounds ran)\n";
    }
    if fio_pages == Pages::Ordinary && rows.iter().any(|row| row.ratio_to_fio.is_some()) {
        text += "fio uses ordinary pages, the engines huge pages where granted: with large values that \
                 alone\nfavours the engines; `sysctl vm.nr_hugepages=64` gives fio some, too\n";
    }
    text
}

fn table(rows: &[Row], engine: EngineName, fio: bool) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE);
    let mut header =
        vec!["value", "batch", "case", "keys/s", "MB/s", "p50 us", "p99 us", "CPU us", "submits"];
    header.push(if fio { "of fio" } else { "of serial" });
    table.set_header(header);
    let mut of_engine: Vec<&Row> = rows.iter().filter(|row| row.engine == engine).collect();
    of_engine.sort_by_key(|row| {
        let direction = matches!(row.operation, Operation::Read | Operation::Get);
        (row.value_bytes, row.batch, direction, row.io_bytes)
    });
    let mut last = None;
    for row in of_engine {
        let shape = (row.value_bytes, row.batch);
        let [value, batch] = if last.replace(shape) == Some(shape) {
            [String::new(), String::new()]
        } else {
            [Size(row.value_bytes).to_string(), row.batch.to_string()]
        };
        let ratio = if fio { row.ratio_to_fio } else { row.ratio_to_serial };
        let mark = if fio && row.judged == Some(false) { " *" } else { "" };
        table.add_row([
            value,
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
        column.set_padding((0, 1));
        if column.index != 2 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn case_name(row: &Row) -> String {
    let verb = match row.operation {
        Operation::Write => "write",
        Operation::Read => "read",
        Operation::Put => "put",
        Operation::Get => "get",
    };
    let apart = row.batch > 1 && row.places == Places::Apart;
    match row.layer {
        Layer::Raw => format!("raw {verb}"),
        Layer::Serial => format!("serial {verb}"),
        Layer::Store => format!("store {verb}{}", if apart { ", apart" } else { "" }),
        // As in fio's own option: a random place after every so many transfers.
        Layer::Fio if row.places == Places::Neighbouring => {
            format!("fio {verb}:{} {}", row.batch, Size(row.io_bytes))
        }
        Layer::Fio => format!("fio {verb} {}", Size(row.io_bytes)),
    }
}

/// A figure in three significant digits, or with thousands separated.
fn figure(figure: Option<f64>) -> String {
    match figure {
        None => String::new(),
        Some(figure) if figure >= 99.95 => separated(figure),
        Some(figure) if figure >= 9.995 => format!("{figure:.1}"),
        Some(figure) => format!("{figure:.2}"),
    }
}

fn separated(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn engines(rows: &[Row]) -> Vec<EngineName> {
    let all = [EngineName::Memory, EngineName::Posix, EngineName::Uring];
    all.into_iter().filter(|&engine| rows.iter().any(|row| row.engine == engine)).collect()
}

/// What the run says, in one sentence: the largest batch of the largest value on the best engine.
pub(super) fn summary(rows: &[Row]) -> Option<String> {
    let engine = *engines(rows).last()?;
    let find = |layer, operation| {
        let of_case = rows
            .iter()
            .filter(|row| row.engine == engine && row.layer == layer && row.operation == operation);
        let largest = of_case.clone().map(|row| (row.batch, row.value_bytes)).max()?;
        of_case.clone().find(|row| (row.batch, row.value_bytes) == largest)
    };
    let Some((put, get)) =
        find(Layer::Store, Operation::Put).zip(find(Layer::Store, Operation::Get))
    else {
        let (write, read) =
            find(Layer::Raw, Operation::Write).zip(find(Layer::Raw, Operation::Read))?;
        return Some(format!(
            "On {}, batches of {} x {} are written at {} MB/s and read at {} MB/s.",
            engine.name(),
            write.batch,
            Size(write.value_bytes),
            figure(Some(write.mb_per_s)),
            figure(Some(read.mb_per_s)),
        ));
    };
    Some(format!(
        "On {}, batches of {} x {} are put at {} MB/s ({:.1} times key by key) and got at {} MB/s \
         ({:.1} times); every value that was read back was the one that had been put.",
        engine.name(),
        put.batch,
        Size(put.value_bytes),
        figure(Some(put.mb_per_s)),
        put.ratio_to_serial.unwrap_or(f64::NAN),
        figure(Some(get.mb_per_s)),
        get.ratio_to_serial.unwrap_or(f64::NAN),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

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
