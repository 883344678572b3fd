//! An error with its causes, in one sentence.

use alloc::string::{String, ToString as _};
use core::error::Error;
use core::fmt;

/// An error and its causes, each behind the one that it caused. A cause that the text before it names already, as many
/// errors do, is not repeated.
#[derive(Clone, Copy, Debug)]
pub struct Causes<'a>(pub &'a dyn Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said: String = self.0.to_string();
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !said.contains(&text) {
                said.push_str(": ");
                said.push_str(&text);
            }
            next = cause.source();
        }
        f.write_str(&said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thiserror::Error;

    #[derive(Debug, Error)]
    #[error("permission denied")]
    struct Denied;

    #[derive(Debug, Error)]
    #[error("cannot read x: {source}")]
    struct Names {
        source: Denied,
    }

    #[derive(Debug, Error)]
    #[error("cannot start")]
    struct Hides(#[source] Names);

    #[test]
    fn each_cause_is_named_once() {
        let names = Names { source: Denied };
        assert_eq!(
            Causes(&names).to_string(),
            "cannot read x: permission denied"
        );
        assert_eq!(
            Causes(&Hides(names)).to_string(),
            "cannot start: cannot read x: permission denied"
        );
    }
}
