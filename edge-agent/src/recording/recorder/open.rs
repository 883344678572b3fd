//! The spool at the agent's start.

use std::path::Path;

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::ids::SessionId;
use holdfast_protocol::limits::SPOOL_RESERVE;
use holdfast_protocol::recording::spool::{Recovered, Spool, SpoolConfig, Sync};
use holdfast_protocol::wire::SegmentLost;

use super::config::RecorderConfig;
use crate::recording::adopted::is_adopted;
use crate::recording::boot::{Boot, SpoolPlace};
use crate::recording::limits::SPOOL_SHARE;
use crate::recording::spool_fs::Folder;
use crate::{info, warn};

/// The spool at the agent's start.
pub(super) struct OpenSpool {
    pub(super) spool: Spool,
    pub(super) folder: Folder,
    /// The reason why a recording that is not in it is not on the device; `None` if that is not known.
    pub(super) absence: Option<SegmentLost>,
}

/// Opens the folder and takes over what is in it.
///
/// # Errors
/// Why there can't be a spool, in words.
pub(super) fn open_spool(config: &RecorderConfig) -> Result<OpenSpool, String> {
    let mut folder = Folder::open(&config.folder).map_err(|error| error.to_string())?;
    let small = folder
        .size()
        .map_or(SPOOL_RESERVE, |size| size / SPOOL_SHARE);
    let sync = match config.sync {
        Some(sync) => sync,
        None if folder.is_volatile() => Sync::Off,
        None => Sync::Block,
    };
    let spool = SpoolConfig {
        max_bytes: config.max_bytes,
        reserve: config.reserve.unwrap_or(small.min(SPOOL_RESERVE)),
        sync,
    };
    let boot = Boot::read(&folder);
    let place = match config.in_state {
        _ if folder.is_volatile() => SpoolPlace::Memory,
        true => SpoolPlace::State,
        false => SpoolPlace::Elsewhere,
    };
    let adopted = config
        .adopted
        .as_deref()
        .is_none_or(|file| is_adopted(file, &config.folder, &folder, place, boot.is_used()));
    let absence = boot.absence(place).filter(|_| adopted);
    if absence.is_none() {
        let adopted = config.adopted.as_deref().unwrap_or(&config.folder);
        info!(
            "the spool's folder is new, or was not the only one: recordings that are missing from it are not reported as lost. Once none waits in another folder, remove {} and restart",
            adopted.display()
        );
    }
    let lost_power = |session: &SessionId| boot.lost_power(session);
    let recovered = Spool::recover_after(spool, &mut folder, &lost_power);
    let (spool, recovered) = recovered.map_err(|kind| {
        format!(
            "the spool {} cannot be read: {kind:?}",
            config.folder.display()
        )
    })?;
    report(&config.folder, &recovered);
    if let Err(error) = boot.write(&folder, &recovered.unfinished) {
        warn!("cannot note the spool's boot: {error}");
    }
    Ok(OpenSpool {
        spool,
        folder,
        absence,
    })
}

fn report(folder: &Path, recovered: &Recovered) {
    for session in &recovered.unfinished {
        info!("the recording of session {session} ends where the agent stopped unexpectedly");
    }
    for damage in &recovered.damaged {
        let (segment, block, fault) = (damage.segment, damage.block, damage.fault);
        warn!("block {block} of segment {segment} is damaged, and is delivered as it is: {fault}");
    }
    for segment in &recovered.missing {
        warn!(
            "segment {segment} is missing, and newer ones are there: the relay has it, or it was removed"
        );
    }
    for (segment, fault) in &recovered.corrupt {
        let folder = folder.to_string_lossy();
        let folder = Escaped(&folder);
        warn!("segment {segment} in {folder} is corrupt and was set aside: {fault}");
    }
}
