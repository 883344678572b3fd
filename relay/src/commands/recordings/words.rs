//! `--state` has two meanings behind `recordings`: the relay's folder, as everywhere, and the recordings'
//! state. Which of the two it is, its value says.

use std::ffi::{OsStr, OsString};

use crate::store::RecordingState;

/// The flag whose value decides.
const STATE: &str = "--state";
/// The other name of the recordings' state, which clap knows.
const IN_STATE: &str = "--in-state";

/// Returns the words of a command line, without the program's name: behind the command `recordings`, `--state` with one
/// of the recordings' states is called by its other name, so that clap takes it for a filter and not for the folder. A
/// folder of such a name is `--state ./complete`. Where there is no folder to choose (`has_folder`), any value is a
/// filter, so that what is wrong with it is said.
pub(crate) fn own_state(
    words: impl IntoIterator<Item = OsString>,
    has_folder: bool,
) -> Vec<OsString> {
    let is_filter = |value: &OsStr| !has_folder || is_state(value);
    let mut words = words.into_iter();
    let mut own = Vec::new();
    let mut command: Option<bool> = None;
    while let Some(word) = words.next() {
        let text = word.to_str().unwrap_or_default();
        if text == "--" {
            own.push(word);
            own.extend(words);
            break;
        }
        let ours = command == Some(true);
        if text == STATE {
            let value = words.next();
            let filters = ours && value.as_deref().map_or(!has_folder, is_filter);
            own.push(match (filters, &value) {
                // An empty value is answered with those that there are.
                (true, None) => format!("{IN_STATE}=").into(),
                (true, Some(_)) => IN_STATE.into(),
                (false, _) => STATE.into(),
            });
            own.extend(value);
            continue;
        }
        let value = text
            .strip_prefix(STATE)
            .and_then(|rest| rest.strip_prefix('='));
        match value {
            Some(value) if ours && is_filter(OsStr::new(value)) => {
                own.push(format!("{IN_STATE}={value}").into());
                continue;
            }
            // The first word that is neither a flag nor its value is the command; only `--state` may stand
            // before it with a value.
            None if command.is_none() && !text.starts_with('-') => {
                command = Some(text == "recordings");
            }
            _ => {}
        }
        own.push(word);
    }
    own
}

fn is_state(value: &OsStr) -> bool {
    RecordingState::ALL
        .iter()
        .any(|state| value == state.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_value_says_which_state_is_meant() {
        // What is typed, and what clap reads; `None`: the same.
        let table = [
            (
                "recordings --state complete",
                Some("recordings --in-state complete"),
            ),
            (
                "recordings --state=lost --json",
                Some("recordings --in-state=lost --json"),
            ),
            ("recordings --json --state /srv/hf", None),
            ("recordings --state=/srv/hf", None),
            ("recordings show 3f9a --state /srv/hf", None),
            (
                "recordings --state complete --state /srv/hf",
                Some("recordings --in-state complete --state /srv/hf"),
            ),
            (
                "--state /srv/hf recordings grep sudo --state tampered",
                Some("--state /srv/hf recordings grep sudo --in-state tampered"),
            ),
            // Before the command it is the folder, whatever it is called.
            ("--state complete recordings", None),
            ("--state=complete recordings", None),
            ("recordings --state ./complete", None),
            ("recordings --state completed", None),
            // The word elsewhere is not the command.
            ("--state recordings devices --state complete", None),
            ("serve --config recordings --state complete", None),
            ("user show recordings --state complete", None),
            ("lock user recordings --state=lost", None),
            // What is no flag stays, and so does one without its value.
            ("recordings grep -- --state lost", None),
            ("recordings --state", None),
            ("--json", None),
            ("", None),
        ];
        for (typed, read) in table {
            let typed_words = words(typed);
            let read = words(read.unwrap_or(typed));
            assert_eq!(own_state(typed_words, true), read, "{typed}");
        }
        for (typed, read) in [
            ("recordings --state nosuch", "recordings --in-state nosuch"),
            ("recordings --state", "recordings --in-state="),
            ("devices --state", "devices --state"),
        ] {
            assert_eq!(own_state(words(typed), false), words(read), "{typed}");
        }
    }

    #[test]
    fn a_folder_need_not_be_text() {
        use std::os::unix::ffi::OsStringExt as _;
        let words = vec![
            "recordings".into(),
            "--state".into(),
            OsString::from_vec(vec![b'/', 0xff]),
        ];
        assert_eq!(own_state(words.clone(), true), words);
    }
}
