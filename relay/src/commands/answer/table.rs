//! Tables for people: aligned columns, nothing in them that could drive a terminal.

use holdfast_protocol::count::Count;
use holdfast_protocol::escape::Escaped;

use crate::commands::limits::{MIN_TABLE_COLUMN, MIN_TABLE_WIDTH};
use crate::output::columns;
use crate::store::Labels;

/// The mark of what is cut off.
const CUT: char = '…';

/// Returns rows under a head, columns two spaces apart. Every cell is escaped here, wherever it is from. Within the
/// width of a terminal the widest columns are shortened until all fit, but for the first, which is what a row is
/// called.
pub(crate) fn table<const N: usize>(
    width: Option<usize>,
    head: [&str; N],
    rows: &[[String; N]],
) -> String {
    let escaped = |row: &[String; N]| row.clone().map(|cell| Escaped(&cell).to_string());
    let mut rows: Vec<[String; N]> = rows.iter().map(escaped).collect();
    let Some(width) = width.map(|width| width.max(MIN_TABLE_WIDTH)) else {
        return columns(head, rows.into_iter());
    };
    let mut widths: Vec<usize> = head.iter().map(|word| word.chars().count()).collect();
    for row in &rows {
        for (cell, most) in row.iter().zip(&mut widths) {
            *most = cell.chars().count().max(*most);
        }
    }
    let gaps = 2 * N.saturating_sub(1);
    let mut over = (widths.iter().sum::<usize>() + gaps).saturating_sub(width);
    while over > 0 {
        let widest = widths.iter_mut().skip(1).max_by_key(|width| **width);
        let Some(widest) = widest.filter(|width| **width > MIN_TABLE_COLUMN) else {
            break;
        };
        *widest -= 1;
        over -= 1;
    }
    for row in &mut rows {
        for (cell, most) in row.iter_mut().zip(&widths) {
            *cell = cut(cell, *most);
        }
    }
    let text = columns(head, rows.into_iter());
    fitted(&text, Some(width))
}

/// Returns each line of a text within the width of a terminal.
pub(crate) fn fitted(text: &str, width: Option<usize>) -> String {
    match width.map(|width| width.max(MIN_TABLE_WIDTH)) {
        None => text.to_owned(),
        Some(width) => text.lines().map(|line| cut(line, width) + "\n").collect(),
    }
}

/// Returns the beginning of a text that is too long, and a sign of that.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept = text.chars().take(most.saturating_sub(1));
    kept.chain([CUT]).collect()
}

/// Returns one thing in full: a word and a value per line. Values are escaped here.
pub(crate) fn card(lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(word, _)| word.len()).max().unwrap_or(0);
    let line = |(word, value): &(&str, String)| format!("{word:<width$}  {}\n", Escaped(value));
    lines.iter().map(line).collect()
}

/// Returns `role=camera,site=lab`, or `-`.
pub(crate) fn labels(labels: &Labels) -> String {
    let shown: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    or_dash(&shown.join(","))
}

/// Returns an empty text as something that can be seen.
pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

/// Returns `1 key`, `2 keys`.
pub(crate) fn count(n: usize, what: &str) -> String {
    Count(n as u64, what).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widest(text: &str) -> usize {
        text.lines().map(|line| line.chars().count()).max().unwrap()
    }

    #[test]
    fn a_table_fits_its_terminal() {
        let row = ["3f9a".to_owned(), "x".repeat(300), "kitchen-cam".to_owned()];
        let rows = [row.clone(), ["1".into(), "short".into(), "y\u{1b}".into()]];
        let head = ["ID", "WHAT", "DEVICE"];
        for width in [40, 80, 132] {
            let text = table(Some(width), head, &rows);
            assert_eq!(widest(&text), width, "{text}");
            assert!(text.contains("xx…  kitchen-cam\n"), "{text}");
            assert!(
                text.contains("3f9a  ") && text.contains("y\\u{1b}"),
                "{text}"
            );
        }
        // No terminal: nothing is cut. One that is too narrow is not given up to.
        assert!(table(None, head, &rows).contains(&row[1]));
        assert_eq!(widest(&table(Some(1), head, &rows)), MIN_TABLE_WIDTH);
        let fits = ["1".to_owned(), "2".to_owned(), "3".to_owned()];
        assert_eq!(
            table(Some(80), head, std::slice::from_ref(&fits)),
            table(None, head, &[fits])
        );
    }
}
