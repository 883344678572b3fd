//! Tables for people: aligned columns, nothing in them that could drive a terminal.

use holdfast_protocol::count::Count;
use holdfast_protocol::escape::Escaped;

use crate::commands::limits::{MIN_TABLE_COLUMN, MIN_TABLE_WIDTH};
use crate::output::{columns, cut};
use crate::store::Labels;

/// The way in which the columns of a table give way in a narrow terminal, by their numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Narrow<'a> {
    /// Those that are left out, one after the other, while the others do not fit.
    pub(crate) left_out: &'a [usize],
    /// Those that keep so many characters. Of the others the first, which is what a row is called, keeps all, and the
    /// rest keep [`MIN_TABLE_COLUMN`].
    pub(crate) kept: &'a [(usize, usize)],
}

impl Narrow<'_> {
    /// Returns what is left at least of a column of this width.
    fn least(&self, column: usize, width: usize) -> usize {
        let mut kept = self.kept.iter();
        match kept.find(|(number, _)| *number == column) {
            Some((_, least)) => width.min(*least),
            None if column == 0 => width,
            None => width.min(MIN_TABLE_COLUMN),
        }
    }

    /// Returns the least width of a table with columns of these widths.
    fn least_of_all(&self, widths: &[usize]) -> usize {
        let widths = widths.iter().enumerate();
        let least = widths.map(|(column, width)| self.least(column, *width));
        with_gaps(least)
    }
}

/// Returns the width of columns with what is between them.
fn with_gaps(widths: impl Iterator<Item = usize>) -> usize {
    let shown = widths.filter(|width| *width > 0).map(|width| width + 2);
    shown.sum::<usize>().saturating_sub(2)
}

/// Returns rows under a head, columns two spaces apart. Every cell is escaped here, wherever it is from. Within the
/// width of a terminal the widest columns are shortened until all fit, but for the first, which is what a row is
/// called.
pub(crate) fn table<const N: usize>(
    width: Option<usize>,
    head: [&str; N],
    rows: &[[String; N]],
) -> String {
    narrowed(width, head, rows, Narrow::default())
}

/// Returns the same, where the columns of a narrow terminal give way so.
pub(crate) fn narrowed<const N: usize>(
    width: Option<usize>,
    mut head: [&str; N],
    rows: &[[String; N]],
    narrow: Narrow<'_>,
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
    for column in narrow.left_out {
        if narrow.least_of_all(&widths) <= width {
            break;
        }
        if let (Some(most), Some(word)) = (widths.get_mut(*column), head.get_mut(*column)) {
            (*most, *word) = (0, "");
        }
    }
    let mut over = with_gaps(widths.iter().copied()).saturating_sub(width);
    while over > 0 {
        let wide = widths.iter_mut().enumerate();
        let wide = wide.filter(|(column, width)| **width > narrow.least(*column, **width));
        let Some((_, widest)) = wide.max_by_key(|(_, width)| **width) else {
            break;
        };
        *widest -= 1;
        over -= 1;
    }
    for row in &mut rows {
        for (cell, most) in row.iter_mut().zip(&widths) {
            *cell = match most {
                0 => String::new(),
                most => cut(cell, *most),
            };
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

/// The head of the column with a relay's name, in the listings of a cluster that has several.
pub(crate) const RELAY: &str = "RELAY";

/// Returns what that column has in a row; nothing where it is left out, which is `None`.
pub(crate) fn shown_relay(relay: Option<Option<String>>) -> String {
    relay.map_or_else(String::new, |relay| or_dash(&relay.unwrap_or_default()))
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

    #[test]
    fn a_column_is_left_out_before_one_that_is_kept() {
        let head = ["ID", "LENGTH", "WHAT", "STATE"];
        let row = ["3f9a0b1c2d", "0:06", "exec: a long command", "not verified"];
        let rows = [row.map(str::to_owned)];
        let narrow = Narrow {
            left_out: &[1, 2],
            kept: &[(3, 12)],
        };
        let shown = |width| narrowed(Some(width), head, &rows, narrow);
        assert_eq!(shown(80), table(None, head, &rows));
        let without =
            "ID          WHAT            STATE\n3f9a0b1c2d  exec: a long …  not verified\n";
        assert_eq!(shown(40), without);
        let least = Narrow {
            kept: &[(3, 12), (2, 20)],
            ..narrow
        };
        let text = narrowed(Some(40), head, &rows, least);
        assert_eq!(text, "ID          STATE\n3f9a0b1c2d  not verified\n");
    }
}
