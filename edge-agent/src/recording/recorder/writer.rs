//! The thread that works on the spool's folder: it alone waits for the disk.

use crate::os::sync;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use embedded_io::ErrorKind;
use holdfast_protocol::limits::WRITE_RETRY;
use holdfast_protocol::recording::medium::{FileName, Medium as _};
use holdfast_protocol::recording::spool::{SpoolWork, perform};
use holdfast_protocol::wire::SegmentLost;

use super::{Recorder, RecorderState, SegmentRead};
use crate::recording::spool_fs::Folder;

/// Works until the recorder stops and everything is written.
pub(super) fn work(recorder: &Arc<Recorder>, mut folder: Folder) {
    let mut later = None;
    let mut state = recorder.lock();
    loop {
        if let Some(read) = state.wanted.take() {
            drop(state);
            let outcome = read_segment(&mut folder, &read);
            state = recorder.lock();
            state.handle_read(recorder.now(), &read, outcome);
            recorder.changed.notify(usize::MAX);
            continue;
        }
        give_back(recorder, &mut state, &mut later);
        let work = state.poll_work(recorder.now());
        if let Some(work) = work {
            drop(state);
            let outcome = perform(&mut folder, &work);
            state = recorder.lock();
            match (&work, outcome) {
                // It would be asked for again at once.
                (SpoolWork::Remove(_), Err(kind)) if kind != ErrorKind::NotFound => {
                    later = Some((recorder.now() + WRITE_RETRY, work, kind));
                }
                (_, outcome) => state.handle_done(recorder.now(), work, outcome),
            }
            recorder.changed.notify(usize::MAX);
            continue;
        }
        if state.stopping && state.is_written() {
            state.stopped = true;
            recorder.changed.notify(usize::MAX);
            return;
        }
        let retry = later.as_ref().map(|(at, ..)| *at);
        state = sleep(recorder, state, retry);
    }
}

/// A removal that failed: when it may be asked for again, and what was said of it.
type Postponed = Option<(Duration, SpoolWork, ErrorKind)>;

fn give_back(recorder: &Recorder, state: &mut RecorderState, later: &mut Postponed) {
    if let Some((_, work, kind)) = later.take_if(|(at, ..)| *at <= recorder.now()) {
        state.handle_done(recorder.now(), work, Err(kind));
    }
}

/// Waits until there is work, or is woken.
fn sleep<'a>(
    recorder: &'a Recorder,
    mut state: MutexGuard<'a, RecorderState>,
    retry: Option<Duration>,
) -> MutexGuard<'a, RecorderState> {
    let until = [state.poll_timeout(), retry].into_iter().flatten().min();
    state.sleeps_until = Some(until.unwrap_or(Duration::MAX));
    let time = until.map(|until| until.saturating_sub(recorder.now()));
    let mut state = sync::wait(&recorder.work, state, time);
    state.sleeps_until = None;
    state
}

fn read_segment(folder: &mut Folder, read: &SegmentRead) -> Result<Vec<u8>, SegmentLost> {
    use embedded_io::Error as _;
    let name = FileName::Segment(read.segment);
    let mut bytes = vec![0; read.length];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match folder.read(name, read.at + filled as u64, rest) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(SegmentLost::Missing),
            Err(_) => return Err(SegmentLost::Unreadable),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
