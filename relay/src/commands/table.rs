//! Tables for people: aligned columns, nothing in them that could drive a terminal.

use std::fmt::Write as _;

use holdfast_protocol::escape::Escaped;

use crate::store::Labels;

/// Rows under a head, columns two spaces apart. Every cell is escaped here, wherever it is from.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let escaped = |row: &[String; N]| row.clone().map(|cell| Escaped(&cell).to_string());
    columns(head, rows.iter().map(escaped))
}

/// The same of rows that are harmless already.
pub(crate) fn columns<const N: usize>(
    head: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let head = std::iter::once(head.map(str::to_owned));
    let shown: Vec<[String; N]> = head.chain(rows).collect();
    let width = |column: usize| {
        let cells = shown.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in &shown {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing into a String cannot fail.
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// One thing in full: a word and a value per line. Values are escaped here.
pub(super) fn card(lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(word, _)| word.len()).max().unwrap_or(0);
    let line = |(word, value): &(&str, String)| format!("{word:<width$}  {}\n", Escaped(value));
    lines.iter().map(line).collect()
}

/// `role=camera,site=lab`, or `-`.
pub(super) fn labels(labels: &Labels) -> String {
    let shown: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    or_dash(&shown.join(","))
}

/// What is empty, as something that can be seen.
pub(super) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

/// `1 key`, `2 keys`.
pub(super) fn count(n: usize, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {what}{plural}")
}
