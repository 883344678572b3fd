//! Running other programs: with errors that can be pasted into a shell, and with their output kept
//! where a stage wants to quote it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};

/// Runs `command` to its end with the terminal as it is. Anything but exit 0 is an error that holds
/// the command line.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    succeeded(command, status)
}

/// Like [`run`], for work on the side: what `command` prints goes to stderr, so that stdout keeps
/// only what the user asked for.
pub(crate) fn run_aside(command: &mut Command) -> Result<()> {
    run(command.stdout(std::io::stderr()))
}

/// Runs `command` and gives back what it wrote to stdout. On failure the error also holds its
/// stderr, unless the caller has led that elsewhere.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| cannot_start(command))?;
    if !output.status.success() {
        bail!(
            "`{}` ended with {}: {}",
            render(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed something that is not UTF-8", render(command)))
}

/// Like [`run`], and gives back the lines for which `wanted` holds, from stdout and stderr, in the
/// order they were read. Everything is passed on as it comes.
pub(crate) fn run_and_keep(
    command: &mut Command,
    wanted: fn(&str) -> bool,
) -> (Vec<String>, Result<()>) {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| cannot_start(command));
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return (Vec::new(), Err(error)),
    };
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let mut kept = Vec::new();
    thread::scope(|scope| {
        let errors = scope.spawn(move || pass_on(stderr, std::io::stderr(), wanted));
        kept = pass_on(stdout, std::io::stdout(), wanted);
        kept.extend(errors.join().unwrap_or_default());
    });
    let ended = child
        .wait()
        .with_context(|| format!("cannot wait for `{}`", render(command)))
        .and_then(|status| succeeded(command, status));
    (kept, ended)
}

fn pass_on(from: Option<impl Read>, mut to: impl Write, wanted: fn(&str) -> bool) -> Vec<String> {
    let mut kept = Vec::new();
    let Some(from) = from else { return kept };
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        // A reader that went away (`| head`) must not stop the run: its exit status still counts.
        let _ = to.write_all(&line);
        let text = String::from_utf8_lossy(&line);
        if wanted(text.trim()) {
            kept.push(text.trim().to_owned());
        }
        line.clear();
    }
    kept
}

fn succeeded(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` ended with {status}", render(command));
    }
    Ok(())
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", render(command))
}

/// The command line as one would type it, quoted where a shell needs it.
pub(crate) fn render(command: &Command) -> String {
    let mut line = quote(command.get_program());
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&quote(arg));
    }
    line
}

fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,./:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rendered_command_can_be_pasted() {
        let mut command = Command::new("ssh");
        command.args(["-p", "2222", "root+cam@127.0.0.1", "echo it's", ""]);
        assert_eq!(
            render(&command),
            r"ssh -p 2222 root+cam@127.0.0.1 'echo it'\''s' ''"
        );
    }

    #[test]
    fn kept_lines_come_from_both_streams_and_the_status_survives() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo keep one; echo drop; echo keep two >&2; exit 3"]);
        let (kept, ended) = run_and_keep(&mut command, |line| line.starts_with("keep"));
        assert_eq!(kept, ["keep one", "keep two"]);
        assert!(ended.unwrap_err().to_string().contains("exit status: 3"));
    }
}
