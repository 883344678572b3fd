//! The output of bulk work for its client: lines as they come, the progress, and in the end a table.

use std::io;

use tokio::io::AsyncWriteExt as _;

use super::lines::Line;
use super::outcome::BulkOutcome;
use crate::output::{Out, columns};

/// Takes a terminal's line back: to its beginning, and nothing behind it.
const CLEAR: &[u8] = b"\r\x1b[K";

/// Shows what happens.
pub(super) struct ProgressScreen<'s, 'w> {
    out: &'s mut Out<'w>,
    err: &'s mut Out<'w>,
    /// True if progress is drawn: on a terminal, and not for machines.
    draws: bool,
    /// The text that is shown now.
    drawn: String,
    json: bool,
    total: usize,
    done: usize,
    outcomes: Vec<BulkOutcome>,
    all_well: bool,
}

impl<'s, 'w> ProgressScreen<'s, 'w> {
    pub(super) fn new(
        out: &'s mut Out<'w>,
        err: &'s mut Out<'w>,
        terminal: bool,
        json: bool,
        total: usize,
    ) -> Self {
        Self {
            out,
            err,
            draws: terminal && !json,
            drawn: String::new(),
            json,
            total,
            done: 0,
            outcomes: Vec::new(),
            all_well: true,
        }
    }

    /// Shows a line of output.
    pub(super) async fn line(&mut self, line: &Line) -> io::Result<()> {
        self.clear().await?;
        let text = format!("{}: {}\n", line.device, line.text);
        let to = if line.is_error {
            &mut *self.err
        } else {
            &mut *self.out
        };
        to.write_all(text.as_bytes()).await?;
        to.flush().await
    }

    /// Notes that a device is done.
    pub(super) async fn done(&mut self, outcome: BulkOutcome) -> io::Result<()> {
        self.done += 1;
        self.all_well &= outcome.is_ok();
        if self.json {
            self.out.write_all(&outcome.json()).await?;
            return self.out.flush().await;
        }
        self.outcomes.push(outcome);
        Ok(())
    }

    /// Draws how far it is, if that has changed.
    pub(super) async fn progress(&mut self, running: usize, waiting: usize) -> io::Result<()> {
        if !self.draws {
            return Ok(());
        }
        let mut text = format!("{} of {} done, {running} running", self.done, self.total);
        if waiting > 0 {
            text += &format!(", {waiting} offline: waiting");
        }
        if text == self.drawn {
            return Ok(());
        }
        self.clear().await?;
        self.err.write_all(text.as_bytes()).await?;
        self.drawn = text;
        self.err.flush().await
    }

    /// Shows what came of it, and says whether all went well.
    pub(super) async fn end(mut self) -> io::Result<bool> {
        self.clear().await?;
        if !self.json {
            self.outcomes
                .sort_by(|one, other| one.device.cmp(&other.device));
            let rows = self.outcomes.iter().map(BulkOutcome::cells);
            let table = columns(["DEVICE", "EXIT", "TIME", "NOTE"], rows);
            self.out.write_all(table.as_bytes()).await?;
            self.out.flush().await?;
        }
        Ok(self.all_well && self.done == self.total)
    }

    async fn clear(&mut self) -> io::Result<()> {
        if self.drawn.is_empty() {
            return Ok(());
        }
        self.drawn.clear();
        self.err.write_all(CLEAR).await?;
        self.err.flush().await
    }
}
