//! Tables of figures.

use comfy_table::{CellAlignment, LineStyle, TableStyle};
use humansize::{BINARY, format_size};

const RULE: LineStyle = LineStyle::none().fill('─').junction('─');
const STYLE: TableStyle =
    TableStyle::new().top_border(RULE).header_separator(RULE).bottom_border(RULE);

/// A table whose first column is text.
pub(super) struct Table(comfy_table::Table);

impl Table {
    pub(super) fn new<'a>(header: impl IntoIterator<Item = &'a str>) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(STYLE);
        table.set_header(header);
        Self(table)
    }

    /// Adds a row.
    pub(super) fn row<'a>(
        &mut self,
        title: impl Into<String>,
        figures: impl IntoIterator<Item = &'a str>,
    ) {
        let figures = figures.into_iter().map(str::to_owned);
        self.0.add_row(std::iter::once(title.into()).chain(figures));
    }

    /// Prints the table below a title.
    pub(super) fn print(mut self, title: &str) {
        for column in self.0.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        println!("\n{title}\n{}", self.0);
    }
}

/// A number of bytes with a binary unit.
pub(super) fn size(bytes: u64) -> String {
    format_size(bytes, BINARY)
}

/// A share in percent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A ratio of two counts, 0 if there is nothing to divide by.
pub(super) fn ratio(of: u64, to: u64) -> f64 {
    if to == 0 { 0.0 } else { of as f64 / to as f64 }
}
