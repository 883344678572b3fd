//! The facts that an export begins with: whose session it was, and on which terminal.

use holdfast_protocol::recording::record::RecordingStart;
use holdfast_protocol::wire::WindowSize;

use crate::store::{RecordingFacts, SessionFacts};

/// The facts of a session that its exports are titled with: the relay's, not the device's words.
#[derive(Clone, Debug)]
pub(crate) struct Title {
    pub(super) session: SessionFacts,
    /// `TERM` and size of the terminal; outer `None`: an older relay did not keep it.
    pub(super) terminal: Option<Option<(String, WindowSize)>>,
}

impl Title {
    /// Returns the title of a recording.
    #[must_use]
    pub(crate) fn of(facts: &RecordingFacts) -> Self {
        let begun = facts.begun.as_ref();
        Self {
            session: facts.row.session.clone(),
            terminal: begun.map(|begun| begun.terminal.clone()),
        }
    }

    /// Returns `TERM` and size of the terminal, if there was one.
    #[must_use]
    pub(crate) fn terminal(
        &self,
        start: Option<&RecordingStart<'_>>,
    ) -> Option<(String, WindowSize)> {
        self.terminal.clone().unwrap_or_else(|| {
            let said = start?.terminal.as_ref();
            said.map(|said| (said.term.to_owned(), said.size))
        })
    }
}
