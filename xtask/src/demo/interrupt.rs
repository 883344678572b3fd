//! Ctrl-C and its kin as something to look at, so that the demo ends its programs before it goes.

use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// How late we notice that the session ended.
const POLL: Duration = Duration::from_millis(10);

pub(super) struct Interrupt {
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// From now on SIGINT, SIGTERM and SIGHUP no longer end the process by themselves.
    pub(super) fn install() -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&asked))
                .context("cannot catch signals")?;
        }
        Ok(Self { asked })
    }

    /// An error once a signal has come.
    pub(super) fn check(&self) -> Result<()> {
        if self.asked.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Waits for `child`, which shares our terminal; on a signal it is ended too.
    pub(super) fn wait_for(&self, child: &mut Child) -> Result<ExitStatus> {
        loop {
            if let Some(status) = child.try_wait().context("cannot wait for ssh")? {
                return Ok(status);
            }
            if self.check().is_err() {
                child.kill().context("cannot end ssh")?;
                child.wait().context("cannot wait for ssh")?;
                bail!("interrupted");
            }
            thread::sleep(POLL);
        }
    }
}
