//! The words before everything else of a recording whose marks do not say all.

use holdfast_protocol::escape::Escaped;
use serde_json::{Value, json};

use crate::json;
use crate::recording::verify::TAMPERED;

/// The one thing that every reader of a recording has to know first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// It is not what passed, for this reason.
    Tampered(String),
    /// It has no verdict yet: more may come, and be something else than what passed.
    Unproved,
}

/// The reason why nothing of a recording without a verdict counts as proved.
const UNPROVED: &str = "is still coming in: before its verdict nothing of it is proved";

impl Notice {
    /// Returns the reason, as it follows "this recording".
    #[must_use]
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Tampered(why) => why,
            Self::Unproved => UNPROVED,
        }
    }

    /// Returns the line of text.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        format!("[this recording {}]", Escaped(self.reason()))
    }

    /// Returns the line in JSON. The names are relied upon.
    #[must_use]
    pub(crate) fn json_line(&self) -> Vec<u8> {
        let (event, reason): (&str, Value) = match self {
            Self::Tampered(why) => {
                let reason = why.strip_prefix(TAMPERED).unwrap_or(why);
                ("tampered", reason.into())
            }
            Self::Unproved => ("unproved", UNPROVED.into()),
        };
        json::line(&json!({ "time": 0.0, "event": event, "reason": reason }))
    }

    /// Returns the event of an asciicast, which follows its header.
    #[must_use]
    pub(crate) fn marker(&self) -> String {
        let text = json::compact(&self.text());
        format!("[0.000000, \"m\", {text}]\n")
    }
}
