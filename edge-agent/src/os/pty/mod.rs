//! Pseudo-terminals.

mod modes;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use holdfast_protocol::wire::{Pty, WindowSize};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use smol::Async;

/// A terminal that was just made.
#[derive(Debug)]
pub(crate) struct OpenTerminal {
    /// Our end.
    pub(crate) master: Async<OwnedFd>,
    /// The process's end. It must be dropped once the process has it, or its end is never seen.
    pub(crate) slave: OwnedFd,
    /// Its path, for `SSH_TTY`.
    pub(crate) path: PathBuf,
}

impl OpenTerminal {
    /// Makes a terminal with the size and the modes that were asked for. A mode that the kernel has not
    /// or refuses is left as it is, as with sshd.
    ///
    /// # Errors
    /// What the kernel says when it has no more terminals, or no `/dev/ptmx`.
    pub(crate) fn open(asked: &Pty) -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = PathBuf::from(std::ffi::OsString::from_vec(
            ptsname(&master, Vec::new())?.into_bytes(),
        ));
        // Kernels before 4.13 cannot open the other end by descriptor.
        let slave = ioctl_tiocgptpeer(&master, flags).or_else(|_| {
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
            rustix::fs::open(&path, flags, Mode::empty())
        })?;
        if let Ok(mut termios) = tcgetattr(&slave) {
            modes::apply(&mut termios, &asked.modes);
            let _ = tcsetattr(&slave, OptionalActions::Now, &termios);
        }
        let master = Async::new(master)?;
        resize(&master, asked.size);
        Ok(Self {
            master,
            slave,
            path,
        })
    }
}

/// Sets the size; the kernel then tells the foreground process by WINCH.
pub(crate) fn resize(master: &Async<OwnedFd>, size: WindowSize) {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: size.width,
        ws_ypixel: size.height,
    };
    // It fails only when the terminal is gone, which its reader notices.
    let _ = tcsetwinsize(master, size);
}

/// Returns whether what is typed is not shown: a password, say. A terminal that is gone shows nothing.
pub(crate) fn hides_input(master: &Async<OwnedFd>) -> bool {
    tcgetattr(master).map_or(true, |termios| {
        !termios.local_modes.contains(LocalModes::ECHO)
    })
}
