//! The lines of a terminal, each with the time at which its first character was shown.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use avt::parser::Function;
use avt::{Anchor, Line, Observation, Observer, Operation, Position, ScreenKind, Terminal};

/// A line of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TimedLine {
    /// The time at which its first byte was shown, in microseconds from the recording's beginning.
    pub(crate) micros: u64,
    /// The text.
    pub(crate) text: String,
}

/// The lines that leave a terminal's primary screen, and those that are left on it at the end. It does for a line with
/// its time what [`avt::observer::Transcript`] does for its text.
#[derive(Default)]
pub(super) struct TimedTranscript {
    /// The time of what is being fed.
    now: u64,
    /// The rows that show something, from the top, as they were after the last that was fed.
    rows: VecDeque<ShownRow>,
    /// The rows of the screen that may have changed since then: each that has is among them.
    dirty: Option<Range<usize>>,
    pending: Option<TimedLine>,
    ready: Vec<TimedLine>,
}

/// A row of the screen that shows something.
struct ShownRow {
    anchor: Anchor,
    micros: u64,
    text: String,
}

impl ShownRow {
    /// Returns whether a row with this text is this one, shorter or longer.
    fn continues_as(&self, text: &str) -> bool {
        self.text.starts_with(text) || text.starts_with(&self.text)
    }
}

impl TimedTranscript {
    /// Sets the time of what is fed next.
    pub(super) fn set_now(&mut self, micros: u64) {
        self.now = micros;
    }

    /// Returns what is left at the end.
    pub(super) fn finish(mut self, terminal: &Terminal) -> Vec<TimedLine> {
        self.finish_primary(terminal);
        self.ready
    }

    fn finish_primary(&mut self, terminal: &Terminal) {
        let start = self.ready.len();
        let mut times = BTreeMap::new();
        for row in std::mem::take(&mut self.rows) {
            if let Some(at) = place(terminal.resolve(&row.anchor)) {
                times.entry(at).or_insert(row.micros);
            }
        }
        let screen = terminal.primary_screen();
        let behind = screen.all_lines().count();
        let behind = behind.saturating_sub(screen.visible_lines().len());
        for (at, line) in screen.all_lines().enumerate() {
            let known = at.checked_sub(behind).and_then(|at| times.get(&at));
            self.push(known.copied().unwrap_or(self.now), line);
        }
        // The rest of the screen is empty.
        while self.ready.len() > start && self.ready.last().is_some_and(|line| line.text.is_empty())
        {
            self.ready.pop();
        }
    }

    fn push(&mut self, micros: u64, line: &Line) {
        let mut whole = self.pending.take().unwrap_or(TimedLine {
            micros,
            text: String::new(),
        });
        whole.text.extend(line.chars());
        if line.is_wrapped() {
            self.pending = Some(whole);
            return;
        }
        whole.text.truncate(whole.text.trim_end().len());
        self.ready.push(whole);
    }

    /// Notes the time of those of these rows that show something new.
    fn look(&mut self, context: &mut Observation<'_>, changed: &Range<usize>) {
        let mut known: BTreeMap<usize, ShownRow> = BTreeMap::new();
        for row in std::mem::take(&mut self.rows) {
            if let Some(at) = place(context.resolve(&row.anchor)) {
                // Rows that became one again: its beginning is that of the first.
                known.entry(at).or_insert(row);
            }
        }
        let count = context.terminal().primary_screen().visible_lines().len();
        for at in 0..count {
            if !changed.contains(&at) {
                self.rows.extend(known.remove(&at));
                continue;
            }
            let line = context.terminal().primary_screen().line(at);
            let mut text = line.map(Line::text).unwrap_or_default();
            text.truncate(text.trim_end().len());
            if text.is_empty() {
                continue;
            }
            let known = known.remove(&at);
            let known = known.filter(|row| row.continues_as(&text));
            let begun = known.map(|row| (row.anchor, row.micros)).or_else(|| {
                let position = Position {
                    screen: ScreenKind::Primary,
                    col: 0,
                    row: isize::try_from(at).ok()?,
                };
                Some((context.anchor_at(position)?, self.now))
            });
            self.rows.extend(begun.map(|(anchor, micros)| ShownRow {
                anchor,
                micros,
                text,
            }));
        }
    }
}

/// Returns the row of the primary screen that an anchor is in.
fn place(position: Option<Position>) -> Option<usize> {
    let position = position.filter(|position| position.screen == ScreenKind::Primary)?;
    usize::try_from(position.row).ok()
}

impl Observer for TimedTranscript {
    type Output = Vec<TimedLine>;

    fn before(&mut self, context: &mut Observation<'_>, operation: &Operation) {
        if matches!(operation, Operation::Function(Function::Ris)) {
            self.finish_primary(context.terminal());
        }
    }

    fn dirty(&mut self, rows: Range<usize>) {
        let before = self.dirty.take().unwrap_or_else(|| rows.clone());
        self.dirty = Some(before.start.min(rows.start)..before.end.max(rows.end));
    }

    fn evicted(&mut self, context: &mut Observation<'_>, line: &Line) {
        let text = line.text();
        let mut micros = self.now;
        // The first row that is not on the screen any more is the one that has just left it.
        while let Some(row) = self.rows.front() {
            if context.resolve(&row.anchor).is_some() {
                break;
            }
            if row.continues_as(text.trim_end()) {
                micros = micros.min(row.micros);
            }
            self.rows.pop_front();
        }
        self.push(micros, line);
    }

    fn end(&mut self, context: &mut Observation<'_>) -> Self::Output {
        let is_primary = context.terminal().active_screen_kind() == ScreenKind::Primary;
        if is_primary && let Some(rows) = self.dirty.take() {
            self.look(context, &rows);
        }
        std::mem::take(&mut self.ready)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Returns the lines of what is fed at these times.
    fn lines(fed: &[(u64, &str)]) -> Vec<(u64, String)> {
        let mut terminal = Terminal::new(20, 3).unwrap();
        let mut transcript = TimedTranscript::default();
        let mut lines = Vec::new();
        for (micros, text) in fed {
            transcript.set_now(*micros);
            lines.extend(terminal.feed_with(*text, &mut transcript));
        }
        lines.extend(transcript.finish(&terminal));
        lines
            .into_iter()
            .map(|line| (line.micros, line.text))
            .collect()
    }

    #[test]
    fn a_line_has_the_time_of_its_first_character() {
        let fed = [
            (1, "$ "),
            (2, "ls\r\n"),
            (3, "early-mark\r\n"),
            (4, "$ sleep"),
            (5, " 5\r\n"),
            (9, "$ exit\r\n"),
        ];
        let all = ["$ ls", "early-mark", "$ sleep 5", "$ exit"];
        let times = [1, 3, 4, 9];
        let wanted: Vec<_> = times.into_iter().zip(all.map(str::to_owned)).collect();
        assert_eq!(lines(&fed), wanted);
        // Also of those that are on the screen at the end, and of one that has two rows.
        let fed = [(1, "0123456789012345"), (2, "6789wrapped"), (7, "\r\nend")];
        let wanted = [
            (1, "01234567890123456789wrapped".to_owned()),
            (7, "end".to_owned()),
        ];
        assert_eq!(lines(&fed), wanted);
    }

    /// Looks at the whole screen each time.
    #[derive(Default)]
    struct Whole(TimedTranscript);

    impl Observer for Whole {
        type Output = Vec<TimedLine>;

        fn before(&mut self, context: &mut Observation<'_>, operation: &Operation) {
            self.0.before(context, operation);
        }

        fn dirty(&mut self, _: Range<usize>) {
            self.0.dirty(0..usize::MAX);
        }

        fn evicted(&mut self, context: &mut Observation<'_>, line: &Line) {
            self.0.evicted(context, line);
        }

        fn end(&mut self, context: &mut Observation<'_>) -> Self::Output {
            self.0.end(context)
        }
    }

    proptest! {
        #[test]
        fn the_changed_rows_alone_have_all_times(fed in vec("(a|bc|\r\n|\r|\n|\u{1b}\\[(H|2J|K|2;3H|3;1H|A|B|L|M|2P|@|S|T|1;2r|r|\\?1049h|\\?1049l)|\u{1b}(M|c)|defghijklmnopqrstuvwxyz){1,4}", 1..24), sizes in vec((0_usize..24, 1_usize..30, 1_usize..6), 0..3)) {
            let mut terminals = [(); 2].map(|()| Terminal::new(20, 4).unwrap());
            let (mut changed, mut whole) = (TimedTranscript::default(), Whole::default());
            let mut lines = [Vec::new(), Vec::new()];
            let [one, other] = &mut terminals;
            for (at, text) in fed.iter().enumerate() {
                let now = at as u64;
                changed.set_now(now);
                whole.0.set_now(now);
                for (_, columns, rows) in sizes.iter().filter(|(when, ..)| *when == at) {
                    lines[0].extend(one.resize_with(*columns, *rows, &mut changed));
                    lines[1].extend(other.resize_with(*columns, *rows, &mut whole));
                }
                lines[0].extend(one.feed_with(text.as_str(), &mut changed));
                lines[1].extend(other.feed_with(text.as_str(), &mut whole));
            }
            lines[0].extend(changed.finish(one));
            lines[1].extend(whole.0.finish(other));
            let [changed, whole] = lines;
            prop_assert_eq!(changed, whole);
        }
    }

    #[test]
    fn what_replaces_a_line_has_its_own_time() {
        let fed = [
            (1, "10 %"),
            (2, "\r\u{1b}[Kdone"),
            (8, "\r\n\u{1b}[H\u{1b}[2Jnew"),
        ];
        let wanted = [(2, "done".to_owned()), (8, "new".to_owned())];
        assert_eq!(lines(&fed), wanted);
        let fed = [(1, "old\r\n"), (6, "\u{1b}cafter a reset")];
        let wanted = [(1, "old".to_owned()), (6, "after a reset".to_owned())];
        assert_eq!(lines(&fed), wanted);
        // Full-screen programs have a screen of their own, of which nothing is a line.
        let fed = [
            (1, "shell\r\n"),
            (2, "\u{1b}[?1049hvim\u{1b}[2J"),
            (5, "\u{1b}[?1049l"),
            (6, "$ "),
        ];
        let wanted = [(1, "shell".to_owned()), (6, "$".to_owned())];
        assert_eq!(lines(&fed), wanted);
    }
}
