//! A patch in the unified format, taken off.

use std::collections::BTreeMap;

/// The changes of a patch to one file.
pub(crate) struct Patch<'a> {
    pub(crate) hunks: Vec<Hunk<'a>>,
}

/// One changed place.
pub(crate) struct Hunk<'a> {
    /// The number of its first line in the patched file.
    pub(crate) start: usize,
    /// Its lines, each behind a space, a plus or a minus.
    pub(crate) lines: Vec<&'a str>,
}

/// Reads a patch as `git diff` writes it, and returns its parts by file.
pub(crate) fn parse(text: &str) -> BTreeMap<&str, Patch<'_>> {
    let mut patches = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        if let Some(file) = line.strip_prefix("+++ b/") {
            patches.insert(file, Patch { hunks: vec![] });
            current = Some(file);
        } else if line.starts_with("diff ") || line.starts_with("--- a/") {
            current = None;
        } else if let Some(patch) = current.and_then(|file| patches.get_mut(file)) {
            if let Some(place) = line.strip_prefix("@@ ") {
                patch.hunks.push(Hunk {
                    start: start(place),
                    lines: vec![],
                });
            } else if let Some(hunk) = patch.hunks.last_mut() {
                hunk.lines.push(line);
            }
        }
    }
    patches
}

/// The first line of `-1,2 +3,4 @@` in the patched file.
fn start(place: &str) -> usize {
    let after = place.split(' ').find_map(|word| word.strip_prefix('+'));
    let number = after.and_then(|word| word.split(',').next());
    number.unwrap().parse().unwrap()
}

impl Patch<'_> {
    /// Returns the file as it was before the patch; an error says where it does not fit.
    pub(crate) fn take_off(&self, patched: &str) -> Result<String, String> {
        let lines: Vec<&str> = patched.lines().collect();
        let (mut at, mut before) = (0, vec![]);
        for hunk in &self.hunks {
            let start = hunk.start - 1;
            before.extend(lines.get(at..start).ok_or("it is too short")?);
            at = start;
            for line in &hunk.lines {
                let (kind, text) = line.split_at(1);
                if kind != "-" {
                    if lines.get(at) != Some(&text) {
                        return Err(format!("line {}: expected {text:?}", at + 1));
                    }
                    at += 1;
                }
                if kind != "+" {
                    before.push(text);
                }
            }
        }
        before.extend(&lines[at..]);
        Ok(before.join("\n") + "\n")
    }
}
