//! The answers of commands: all of them pass here, escaped, and the exit status is that of what was done.

pub(crate) mod failure;
pub(crate) mod fold;
pub(crate) mod leftover;
pub(crate) mod table;

use std::io;

use holdfast_protocol::escape::{Lines, OneLine};
use tokio::io::AsyncWriteExt as _;

use crate::output::Out;

use failure::Failure;

/// Writes the answer. A reader that has seen enough (`| head`) is no error; a full disk is one, unless the command has
/// done by then what it was given for: that is mentioned on `err`, and done it is.
pub(super) async fn write(
    out: &mut Out<'_>,
    err: &mut Out<'_>,
    text: &str,
    is_deed: bool,
) -> Result<(), Failure> {
    match say(out, &Lines(text).to_string()).await {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) if is_deed => {
            let sentence = format!("it is done, but the answer cannot be written: {error}");
            complain(err, &sentence).await;
            Ok(())
        }
        Err(error) => Err(Failure::unwritten(&error)),
        Ok(()) => Ok(()),
    }
}

/// Writes a sentence to `err`. If that is gone as well, the exit status is all that is left to say it with.
pub(super) async fn complain(err: &mut Out<'_>, sentence: &str) {
    let _ = say(err, &format!("{}\n", OneLine(sentence))).await;
}

async fn say(to: &mut Out<'_>, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes()).await?;
    to.flush().await
}
