//! A line that came over ssh, in words.

use shell_words::ParseError;

/// Splits a line into the words of a POSIX shell. What is behind the `--` of an `exec` is one word, unchanged: it is
/// not ours to take apart, because the shell of each device does that, as with `ssh DEVICE COMMAND`.
///
/// # Errors
/// A quote is not closed.
pub(super) fn words(line: &str) -> Result<Vec<String>, ParseError> {
    let Some((ours, command)) = behind_dashes(line) else {
        return shell_words::split(line);
    };
    let mut words = shell_words::split(ours)?;
    words.extend((!command.is_empty()).then(|| command.to_owned()));
    Ok(words)
}

/// Returns the line of an `exec` up to its `--`, and what is behind it.
fn behind_dashes(line: &str) -> Option<(&str, &str)> {
    line.trim_start().strip_prefix("exec")?.strip_prefix(' ')?;
    let (mut quote, mut escaped, mut begins) = (None, false, true);
    for (at, c) in line.char_indices() {
        let rest = &line[at..];
        let dashes = rest.strip_prefix("--").filter(|_| begins);
        if dashes.is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')) {
            let (ours, command) = line.split_at(at + 2);
            return Some((ours, command.trim_ascii()));
        }
        begins = false;
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (Some('\''), _) => {}
            (_, '\\') => escaped = true,
            (None, '\'' | '"') => quote = Some(c),
            (None, ' ') => begins = true,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_behind_the_dashes_of_an_exec_stays_as_it_is() {
        // Line, and its words.
        let table: [(&str, &[&str]); 9] = [
            (
                "exec --on a=b -- echo 'x  y' | wc",
                &["exec", "--on", "a=b", "--", "echo 'x  y' | wc"],
            ),
            (
                "exec --on a=b -- it's",
                &["exec", "--on", "a=b", "--", "it's"],
            ),
            (
                "  exec --on 'a=b' --  df -h  ",
                &["exec", "--on", "a=b", "--", "df -h"],
            ),
            (
                "exec --on ' -- ' -- x",
                &["exec", "--on", " -- ", "--", "x"],
            ),
            (
                "exec --on \"\\\" -- \" -- x",
                &["exec", "--on", "\" -- ", "--", "x"],
            ),
            (
                "exec --on a -- b -- c",
                &["exec", "--on", "a", "--", "b -- c"],
            ),
            ("exec --on a --", &["exec", "--on", "a", "--"]),
            ("exec --on a --x", &["exec", "--on", "a", "--x"]),
            ("devices -- 'a b'", &["devices", "--", "a b"]),
        ];
        for (line, expected) in table {
            assert_eq!(words(line).unwrap(), expected, "{line}");
        }
        assert!(words("devices show 'x").is_err() && words("exec --on 'x -- y").is_err());
    }
}
