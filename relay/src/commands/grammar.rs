//! The grammar of what is typed at the SSH console: the command tree alone.

use clap::{CommandFactory as _, Parser};

use super::usage::{console_tip, usage};
use super::{AnyCommand, line, own_state};
use crate::commands::limits::MAX_CONSOLE_LINE;
use crate::output::USAGE;

/// The console's grammar: the command tree alone. `serve` and `--state` do not exist there.
#[derive(Parser)]
#[command(
    name = "ssh RELAY",
    about = "The relay's console: the same commands as on the relay itself",
    no_binary_name = true,
    disable_version_flag = true
)]
pub(crate) struct Console {
    #[command(subcommand)]
    command: AnyCommand,
}

/// Parses a line that came over ssh, in the words of a POSIX shell: quotes and backslashes, but no
/// variables, no wildcards and no pipes.
///
/// # Errors
/// The text to answer with and the exit status: with [`DONE`] it is help and belongs on stdout, with
/// [`USAGE`] it says what is wrong and belongs on stderr.
pub(crate) fn parse_console(line: &str) -> Result<AnyCommand, (String, u8)> {
    if line.len() > MAX_CONSOLE_LINE {
        let text = format!("the command is longer than {MAX_CONSOLE_LINE} bytes\n");
        return Err((text, USAGE));
    }
    let words = line::words(line)
        .map_err(|_| ("a quote in the command is not closed\n".to_owned(), USAGE))?;
    let words = own_state(words.into_iter().map(Into::into), false);
    match Console::try_parse_from(words) {
        Ok(console) => Ok(console.command),
        Err(error) => {
            let tree = Console::command();
            let (mut text, code) = usage(&error, &tree);
            text.push_str(console_tip(&error, &tree));
            Err((text, code))
        }
    }
}
