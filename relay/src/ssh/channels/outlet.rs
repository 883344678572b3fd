//! The way back to the operator: one channel of an SSH connection, with its own window.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use holdfast_protocol::wire::{Exit, Signal};
use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Sig};
use tokio::io::AsyncWrite;

use crate::session::ending::FAILED;
use crate::session::output::{Gone, Output, TakenOutput, notice};

/// RFC 4254 section 5.2: `SSH_EXTENDED_DATA_STDERR`.
const STDERR: u32 = 1;

/// Sends to one channel. Every method waits until the channel's own window takes it, and for nothing
/// else, so that a slow channel slows itself alone.
#[derive(Debug)]
pub(crate) struct Outlet {
    channel: ChannelWriteHalf<Msg>,
    handle: Handle,
}

impl Outlet {
    /// Returns the outlet of a channel.
    #[must_use]
    pub(crate) fn new(channel: ChannelWriteHalf<Msg>, handle: Handle) -> Self {
        Self { channel, handle }
    }

    /// Returns it as a writer, which waits for the channel's window.
    #[must_use]
    pub(crate) fn writer(&self) -> Pin<Box<dyn AsyncWrite + Send>> {
        Box::pin(self.channel.make_writer())
    }

    /// Returns a writer of error output.
    #[must_use]
    pub(crate) fn error_writer(&self) -> Pin<Box<dyn AsyncWrite + Send>> {
        Box::pin(self.channel.make_writer_ext(Some(STDERR)))
    }

    async fn send_exit(&self, exit: Exit) -> Result<(), Gone> {
        match exit {
            Exit::Status(status) => self.channel.exit_status(status).await.map_err(|_| Gone),
            Exit::Signal {
                signal,
                core_dumped,
            } => {
                let (id, no_text) = (self.channel.id(), String::new);
                let sent = self.handle.exit_signal_request(
                    id,
                    name(signal),
                    core_dumped,
                    no_text(),
                    no_text(),
                );
                sent.await.map_err(|()| Gone)
            }
        }
    }
}

impl Output for Outlet {
    fn stdout(&self, data: Bytes) -> TakenOutput<'_> {
        Box::pin(async { self.channel.data_bytes(data).await.map_err(|_| Gone) })
    }

    fn stderr(&self, data: Bytes) -> TakenOutput<'_> {
        let sent = self.channel.extended_data_bytes(STDERR, data);
        Box::pin(async { sent.await.map_err(|_| Gone) })
    }

    /// Sends a line of the relay's own. A channel has no other place for it than its error output.
    fn notice(&self, sentence: &str, newline: &str) -> TakenOutput<'_> {
        self.stderr(notice(sentence, newline).into())
    }

    fn exit(&self, exit: Option<Exit>) -> TakenOutput<'_> {
        Box::pin(self.send_exit(exit.unwrap_or(FAILED)))
    }

    fn eof(&self) -> TakenOutput<'_> {
        Box::pin(async { self.channel.eof().await.map_err(|_| Gone) })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // A connection that is gone has no channel to close.
            let _ = self.channel.close().await;
        })
    }
}

/// Returns SSH's name of a signal (RFC 4254 section 6.10); the others as OpenSSH spells them.
fn name(signal: Signal) -> Sig {
    match signal {
        Signal::Abrt => Sig::ABRT,
        Signal::Alrm => Sig::ALRM,
        Signal::Fpe => Sig::FPE,
        Signal::Hup => Sig::HUP,
        Signal::Ill => Sig::ILL,
        Signal::Int => Sig::INT,
        Signal::Kill => Sig::KILL,
        Signal::Pipe => Sig::PIPE,
        Signal::Quit => Sig::QUIT,
        Signal::Segv => Sig::SEGV,
        Signal::Term => Sig::TERM,
        Signal::Usr1 => Sig::USR1,
        Signal::Usr2 => Sig::Custom("USR2".into()),
        Signal::Winch => Sig::Custom("WINCH@openssh.com".into()),
        Signal::Bus => Sig::Custom("BUS@openssh.com".into()),
        Signal::Sys => Sig::Custom("SYS@openssh.com".into()),
        Signal::Trap => Sig::Custom("TRAP@openssh.com".into()),
        Signal::Xcpu => Sig::Custom("XCPU@openssh.com".into()),
        Signal::Xfsz => Sig::Custom("XFSZ@openssh.com".into()),
        Signal::Other(number) => Sig::Custom(format!("SIG{number}@openssh.com")),
    }
}

/// Returns the signal of an SSH name; `None` for one that we do not pass on.
#[must_use]
pub(crate) fn signal(sig: &Sig) -> Option<Signal> {
    Some(match sig {
        Sig::ABRT => Signal::Abrt,
        Sig::ALRM => Signal::Alrm,
        Sig::FPE => Signal::Fpe,
        Sig::HUP => Signal::Hup,
        Sig::ILL => Signal::Ill,
        Sig::INT => Signal::Int,
        Sig::KILL => Signal::Kill,
        Sig::PIPE => Signal::Pipe,
        Sig::QUIT => Signal::Quit,
        Sig::SEGV => Signal::Segv,
        Sig::TERM => Signal::Term,
        Sig::USR1 => Signal::Usr1,
        Sig::Custom(name) => match name.as_str() {
            "USR2" => Signal::Usr2,
            "WINCH" => Signal::Winch,
            _ => return None,
        },
    })
}
