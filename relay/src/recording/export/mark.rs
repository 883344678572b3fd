//! A mark of a record for its reader, and lines that begin with one.

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::recording::record::Stream;

use super::text::ExportText;
use crate::recording::limits::MAX_TEXT_LINE;

/// The reason why something in a recording is not what the operator was shown or sent, as far as the relay can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The session was cut off before the relay could pass it on.
    Unshown,
    /// The session was cut off before the relay saw the answer to this operation.
    Unanswered,
    /// Input that the relay did not send.
    Unsent,
    /// The relay passed on something else.
    Contradicted,
    /// The relay cannot say.
    Unproved,
}

impl Mark {
    /// Returns its words, as they appear in every export.
    #[must_use]
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Unshown => "not shown to the operator",
            Self::Unanswered => "answer not seen by the relay",
            Self::Unsent => "not sent by the operator",
            Self::Contradicted => "not what the relay passed on",
            Self::Unproved => "not proved",
        }
    }

    /// Returns a line with the mark before it.
    pub(crate) fn line(mark: Option<Self>, line: &str) -> String {
        match mark {
            Some(mark) => format!("[{}] {line}", mark.text()),
            None => line.to_owned(),
        }
    }
}

/// Makes lines of bytes that have a mark: each begins with it, and none drives a terminal.
#[derive(Debug, Default)]
pub(crate) struct MarkedLines([(ExportText, String); 3]);

impl MarkedLines {
    /// Returns the lines that are whole with these bytes.
    pub(crate) fn take(&mut self, stream: Stream, mark: Mark, bytes: &[u8]) -> Vec<String> {
        let [stdin, stdout, stderr] = &mut self.0;
        let (text, line) = match stream {
            Stream::Stdin => stdin,
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        let mut lines = Vec::new();
        for piece in text.take(bytes).split_inclusive('\n') {
            line.push_str(piece.trim_end_matches('\n'));
            if piece.ends_with('\n') || line.len() > MAX_TEXT_LINE {
                lines.push(marked(mark, &std::mem::take(line)));
            }
        }
        lines
    }

    /// Returns whether a line of any stream is not whole yet.
    pub(crate) fn has_begun(&self) -> bool {
        self.0.iter().any(|(_, line)| !line.is_empty())
    }

    /// Returns the same as [`Self::take`] for a terminal, with the line that is not whole: each begins where the one before ends.
    pub(crate) fn take_for_terminal(&mut self, stream: Stream, mark: Mark, bytes: &[u8]) -> String {
        let mut lines = self.take(stream, mark, bytes);
        lines.extend(self.rest(mark));
        lines.iter().map(|line| format!("\r\n{line}")).collect()
    }

    /// Returns the lines that are not whole.
    pub(crate) fn rest(&mut self, mark: Mark) -> Vec<String> {
        let lines = self.0.iter_mut().map(|(_, line)| std::mem::take(line));
        let lines = lines.filter(|line| !line.is_empty());
        lines.map(|line| marked(mark, &line)).collect()
    }
}

fn marked(mark: Mark, line: &str) -> String {
    Mark::line(
        Some(mark),
        &Escaped(line.trim_end_matches('\r')).to_string(),
    )
}
