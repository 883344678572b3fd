//! The bounds of recordings: of records and segments, of the spool, and of uploads.

use core::time::Duration;

use super::{MAX_CONTROL_MESSAGE, MAX_SFTP_PATH};

/// Most bytes of session data in one record; longer frames are recorded in parts. Small enough that a
/// record and the largest of its neighbours share a block.
pub const MAX_RECORD_DATA: usize = 16 * 1024;

/// Largest encoded record: the environment of a session is the longest ([`MAX_ENV_BYTES`](super::MAX_ENV_BYTES)), and
/// the first [`MAX_RECORD_COMMAND`] bytes of its command are beside it.
pub const MAX_RECORD: usize = 28 * 1024;

/// Most bytes of a command line in the record that starts a recording; the rest follows in records of its own.
pub const MAX_RECORD_COMMAND: usize = 4 * 1024;

/// Most plain bytes of one block. With [`BLOCK_WINDOW`] it stays below 2^16, where the compressor needs a
/// table of 8 KiB only; a session's buffers have to fit into 256 KiB.
pub const MAX_BLOCK_PLAIN: usize = 32 * 1024;

/// Limits how much of a segment's text before a block may be referred to by that block. Without it, the small
/// blocks of a terminal session would hardly be compressed.
pub const BLOCK_WINDOW: usize = 31 * 1024;

/// Full blocks that follow one which did not compress, and are stored without an attempt: each attempt reads
/// the window anew for nothing, and a copy that becomes text again is noticed within a quarter of a segment.
pub const STORED_BLOCKS: u32 = 7;

/// Largest sealed block: what does not compress is stored as it is, with 5 bytes before it and a tag of 16
/// bytes behind it.
pub const MAX_BLOCK_SEALED: usize = MAX_BLOCK_PLAIN + 32;

/// Most blocks that a reader skips behind a damaged one to find the next that is whole: a sector of flash that is lost
/// holds a few dozen of a terminal's blocks, which have some hundred bytes each.
pub const MAX_LOST_BLOCKS: u32 = 64;

/// Most places at which a reader looks for that block. Bytes that look like the head of a block are one in 20,000, and
/// the damaged block, where its length is lost, has at most [`MAX_BLOCK_SEALED`].
pub const MAX_SEARCH_STARTS: usize = 64;

/// Most sealed bytes of a recording that a reader tries in vain to find blocks: a second of work, whatever a device
/// made of its recording.
pub const MAX_SEARCH_BYTES: u64 = 256 * 1024 * 1024;

/// A segment is closed when it has grown to so many bytes: what one upload carries, and one object is.
pub const MAX_SEGMENT: usize = 1024 * 1024;

/// A segment with records in it is closed at this age, so that a long quiet session reaches the relay, and
/// its key leaves the device's memory.
pub const MAX_SEGMENT_AGE: Duration = Duration::from_secs(300);

/// Most segments of one session: at the largest, 64 GiB. It bounds what a relay keeps for a session.
pub const MAX_SEGMENTS: u32 = 64 * 1024;

/// Most missing segments in one place that a relay passes over to take the one behind them: 1 GiB, or three days of a
/// quiet session. A relay keeps the place of each in memory, and one segment must not cost it all of [`MAX_SEGMENTS`].
pub const MAX_MISSING_SEGMENTS: u32 = 1024;

/// Limits the forwards in one recording; the next forward begins another one. It bounds what a relay keeps in memory
/// to compare them: some megabytes.
pub const MAX_FORWARDS_OF_RECORDING: u32 = 16 * 1024;

/// The bytes that the recording of any session may have beside what is counted below: its start with the environment,
/// the refused variables, and output that was recorded and not passed on. Of that, a device's send window, a stream's
/// window and a client's window may be full, which are less than 3.5 MiB together.
pub const RECORDING_BASE: u64 = 4 * 1024 * 1024;

/// The bytes that a frame, a size or a signal takes beside its content: a record's head, the tag of redacted input, and
/// a block of its own.
pub const RECORDING_PER_FRAME: u64 = 96;

/// Bounds what the record of an operation on a file takes beside its paths.
pub const RECORDING_PER_OPERATION: u64 = 64;

/// Limits the bytes of records that one byte of requests can lead to: the shortest request has 13 bytes, and is
/// recorded with the path of an open file, if it names one.
pub const SFTP_RECORDED_PER_BYTE: u64 = (MAX_SFTP_PATH as u64 + RECORDING_PER_OPERATION) / 13 + 1;

/// Bounds what the beginning and the end of a forward take beside the place that it leads to: two addresses, and two
/// blocks.
pub const RECORDING_PER_FORWARD: u64 = 320;

/// The bytes that a recording of file transfer or forwards may grow by in a second beside what its relay counts: blocks
/// that are closed early, and a segment every [`MAX_SEGMENT_AGE`].
pub const RECORDING_PER_SECOND: u64 = 64 * 1024;

/// The same where processes run, whose programs are recorded: a thousand in a second, with 250 bytes of arguments each
/// after compression, are more than a device builds with.
pub const RECORDING_PER_SECOND_OF_COMMANDS: u64 = 256 * 1024;

/// The bytes that may have passed since the relay last kept the counts of a session, if it was killed: ten seconds at
/// 100 MB/s.
pub const RECORDING_UNSEEN: u64 = 1024 * 1024 * 1024;

/// Limits how many times more a recording may be when it is unpacked than it may be at most when it is sealed. The
/// bound of the sealed bytes is of data that does not compress, so that this is for records of programs alone.
pub const RECORDING_UNPACKED: u64 = 4;

/// Most points of a stream's chain that the relay keeps for one session. They let a recording that was cut
/// short be checked nearly to its end, at 3 KiB a stream.
pub const MAX_CHECKPOINTS: usize = 64;

/// Most bytes of a segment in one message of an upload stream: a message is a control message.
pub const MAX_UPLOAD_CHUNK: usize = MAX_CONTROL_MESSAGE - 64;

/// Limits how much the spool may hold where the configuration says nothing.
pub const SPOOL_BYTES: u64 = 64 * 1024 * 1024;

/// Limits how much free space of its file system the spool leaves alone where the configuration says nothing.
pub const SPOOL_RESERVE: u64 = 16 * 1024 * 1024;

/// Smallest configurable bound of a spool: two segments, so that one can be uploaded while one is written.
pub const MIN_SPOOL_BYTES: u64 = 2 * MAX_SEGMENT as u64;

/// The bytes that are gathered before they are written: small writes wear flash out.
pub const WRITE_BATCH: usize = 64 * 1024;

/// The least that a storage medium writes at once: a power cut leaves runs of zeros that are no shorter.
pub const SECTOR: usize = 512;

/// Or when its first byte has waited so long: as much as a power cut may take.
pub const WRITE_DELAY: Duration = Duration::from_secs(2);

/// The longest beginning of a recording that is written and not yet synced: with the write behind it, a power cut still
/// tears off no more than a batch and two blocks. It is for a start's record, which is short.
pub const MAX_UNSYNCED_BEGINNING: usize = MAX_BLOCK_PLAIN / 2;

/// Limits how much of a session may wait for a slow medium before its process is slowed down.
pub const MAX_UNWRITTEN: usize = 2 * WRITE_BATCH;

/// Room that is kept for each live session, so that it can always be ended: a gap, where the content of its streams
/// ends or why file operations are missing, the exit, the end, two footers and a header.
pub const SESSION_RESERVE: u64 = 4 * 1024;

/// Longest record of a forward's end, which is some numbers of at most ten bytes. Room for it is set aside when the
/// forward begins, so that what has passed on it can always be recorded.
pub const MAX_CLOSED_RECORD: usize = 64;

/// Longest record of where the content of a stream ends: numbers of at most ten bytes, and a digest. There are at most
/// three of them, and [`SESSION_RESERVE`] has room for those that find none before.
pub const MAX_CONTENT_ENDS_RECORD: usize = 80;

/// Room of the budget that only an admin's rescue of a full device may use.
pub const RECOVER_RESERVE: u64 = 128 * 1024;

/// Room that has to be free again before a gap ends, so that a full spool does not write gap after gap.
pub const GAP_HYSTERESIS: u64 = 64 * 1024;

/// Into so many shares the spool is divided. Each kind of session leaves one more to those that need it more than the
/// kind before: who copies without a terminal cannot spend what strict sessions and terminals begin with. An eighth
/// of the smallest spool holds dozens of short sessions.
pub const SPOOL_SHARES: u64 = 8;

/// The pause before a failed write is tried again.
pub const WRITE_RETRY: Duration = Duration::from_secs(5);

/// Most files of a spool: what is known of them takes about 2 MiB of a device's memory then.
pub const MAX_SPOOL_FILES: usize = 16 * 1024;

/// Bytes of recordings that may be under way and not acknowledged: they share the tunnel's send window
/// with every keystroke.
pub const UPLOAD_IN_FLIGHT: u64 = 64 * 1024;

/// A relay acknowledges after so many bytes, so that an upload never stalls for want of an answer.
pub const UPLOAD_ACK_EVERY: u64 = UPLOAD_IN_FLIGHT / 4;

/// The pause of an upload behind interactive data.
pub const UPLOAD_PAUSE: Duration = Duration::from_secs(1);

/// The pause before a segment that a relay could not take is offered again.
pub const UPLOAD_RETRY: Duration = Duration::from_secs(60);

/// The minor version from which on a device lists the recordings that it holds.
pub const INVENTORY_MINOR: u16 = 5;

/// Most recordings in one part of a device's inventory: it takes half of a control message.
pub const INVENTORY_PART: usize = 256;

/// A device lists its recordings again so long after a later tunnel began: longer than a stream may wait for its `Open`
/// there (half a minute) and the account files are read, so that what a lost tunnel still opens has its recording by then.
pub const RELIST_DELAY: Duration = Duration::from_secs(60);

/// Most inventories on one tunnel. A device begins one or two: at its start, and a while after a later tunnel began; and
/// each anew where a stream was lost before the last answer. Each costs the relay a query and what follows from it.
pub const MAX_INVENTORIES: u32 = 4;

/// Most parts of an inventory: twice as many recordings as a spool has files, because of some there is only a report.
pub const MAX_INVENTORY_PARTS: u32 = 128;

/// Limits how long a relay waits for the recording of a session that has ended, where the configuration says
/// nothing.
pub const EXPECT_WITHIN: Duration = Duration::from_secs(30 * 24 * 3600);
