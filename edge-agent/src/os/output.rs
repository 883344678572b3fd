//! The stdout and stderr of the commands. Nothing here panics, and no exit status depends on a sentence that only says
//! what was done: the reader may have seen enough (`| head`), the log's disk may be full.

use std::fmt::{self, Write as _};
use std::io::{self, Write};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use holdfast_protocol::escape::Lines;
use holdfast_protocol::words::nearest::nearest;

/// Stdout, as one command uses it. A reader that is gone is never an error.
#[derive(Debug)]
pub struct Stdout {
    use_as: UseAs,
    over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UseAs {
    /// The text is what was asked for: if it cannot be written, the command has failed.
    Answer,
    /// The text says what was done, and that was done whether or not it can be said.
    Report,
}

impl Stdout {
    /// Returns the output of a command that is run for its text: a failure to write it is an error.
    #[must_use]
    pub fn answer() -> Self {
        Self::new(UseAs::Answer)
    }

    /// Returns the output of a command that changes something and reports it. A failure to write is reported on stderr,
    /// once.
    #[must_use]
    pub fn report() -> Self {
        Self::new(UseAs::Report)
    }

    fn new(use_as: UseAs) -> Self {
        Self {
            use_as,
            over: false,
        }
    }

    /// Writes lines. What could drive a terminal comes out as an escape.
    ///
    /// # Errors
    /// The answer cannot be written. Of a report there is none.
    pub fn say(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        let mut whole = String::new();
        // Writing into a String fails only if a value's own Display does.
        let _ = writeln!(whole, "{}", Lines(&text.to_string()));
        self.write_all(whole.as_bytes())?;
        self.flush()
    }

    fn settle(&mut self, done: io::Result<()>) -> io::Result<()> {
        let Err(error) = done else {
            return Ok(());
        };
        match self.use_as {
            _ if error.kind() == io::ErrorKind::BrokenPipe => self.over = true,
            UseAs::Answer => return Err(error),
            UseAs::Report => {
                self.over = true;
                complain(format_args!(
                    "it is done, but the sentence that says so cannot be written: {error}"
                ));
            }
        }
        Ok(())
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.over {
            let done = io::stdout().lock().write_all(bytes);
            self.settle(done)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.over {
            return Ok(());
        }
        let done = io::stdout().lock().flush();
        self.settle(done)
    }
}

/// Writes a sentence to stderr. If that is gone as well, the exit status is all that is left to say it with.
pub fn complain(text: fmt::Arguments<'_>) {
    let text = text.to_string();
    let _ = writeln!(io::stderr().lock(), "edge-agent: {}", Lines(&text));
}

/// Returns the command that there is not.
fn slip(error: &clap::Error) -> Option<&str> {
    match error.get(ContextKind::InvalidSubcommand)? {
        ContextValue::String(came) => Some(came),
        _ => None,
    }
}

/// Writes what the command line's grammar has to say, and returns the exit status. `commands` are those that there are.
#[must_use]
pub fn usage(error: &clap::Error, commands: &[&str]) -> u8 {
    let text = error.render().to_string();
    if error.use_stderr() {
        // The library's sentence, as the agent's others begin and, for a command, with those that there are.
        let text = match text.strip_prefix("error: ") {
            Some(said) => format!("edge-agent: {said}"),
            None => text,
        };
        let known = match error.kind() {
            ErrorKind::InvalidSubcommand => {
                let known: Vec<String> = commands.iter().map(|name| (*name).to_owned()).collect();
                let near = slip(error).and_then(|came| nearest(came, &known));
                let near = near.map_or_else(String::new, |near| format!("Did you mean `{near}`? "));
                format!("\n{near}The commands are {}.\n", known.join(", "))
            }
            _ => String::new(),
        };
        let _ = write!(io::stderr().lock(), "{}{}", Lines(&text), Lines(&known));
        return 2;
    }
    match Stdout::answer().say(format_args!("{}", text.trim_end_matches('\n'))) {
        Ok(()) => 0,
        Err(error) => {
            complain(format_args!("cannot write the answer: {error}"));
            1
        }
    }
}
