//! The nearest of the words that there are, to one that there is not.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::limits::MAX_NEAREST_WORD;

/// Returns the word that is the fewest slips away, if they are few.
#[must_use]
pub fn nearest<'k>(came: &str, known: &'k [String]) -> Option<&'k str> {
    if came.len() > MAX_NEAREST_WORD {
        return None;
    }
    let bare = |word: &str| word.trim_start_matches('-').to_ascii_lowercase();
    let came = bare(came);
    let slips = |word: &&String| distance(&came, &bare(word));
    let near = known.iter().min_by_key(slips)?;
    let most = (came.chars().count() / 3).max(1);
    (slips(&near) <= most).then_some(near)
}

/// Returns the number of letters that have to be added, removed, changed, or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // The rows of the letters before the last, before this one, and of this one.
    let (mut older, mut above) = (Vec::new(), (0..=b.len()).collect::<Vec<usize>>());
    let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX);
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let changed = at(&above, j).saturating_add(usize::from(x != y));
            let added = at(&row, j).min(at(&above, j + 1)).saturating_add(1);
            let is_swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            let swapped = match is_swapped {
                true => at(&older, j - 1).saturating_add(1),
                false => usize::MAX,
            };
            row.push(changed.min(added).min(swapped));
        }
        older = core::mem::replace(&mut above, row);
    }
    at(&above, b.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned as _;

    #[test]
    fn few_slips_are_forgiven() {
        let known = ["status", "doctor", "--state"].map(str::to_owned);
        assert_eq!(nearest("sttaus", &known), Some("status"));
        assert_eq!(nearest("doktor", &known), Some("doctor"));
        assert_eq!(nearest("--stat", &known), Some("--state"));
        assert_eq!(nearest("frobnicate", &known), None);
        assert_eq!(nearest(&"s".repeat(MAX_NEAREST_WORD + 1), &known), None);
    }

    #[test]
    fn slips_are_counted() {
        let table = [
            ("", "", 0),
            ("", "abc", 3),
            ("devices", "devices", 0),
            ("devcies", "devices", 1),
            ("device", "devices", 1),
            ("sesions", "sessions", 1),
            ("kitten", "sitting", 3),
        ];
        for (a, b, expected) in table {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
        let known = ["lock".to_owned(), "unlock".to_owned()];
        assert_eq!(nearest("lcok", &known), Some("lock"));
        assert_eq!(nearest("x", &known), None);
        assert_eq!(nearest(&"lock".repeat(1000), &known), None);
    }
}
