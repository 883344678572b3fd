//! Room for recordings: what they take, and what is free.

use std::io;
use std::path::Path;

use tokio::time::timeout;

use super::Finding;
use crate::commands::limits::BUCKET_PROBE;
use crate::commands::sessions::bytes;
use crate::recording::archive::Archive;
use crate::recording::objects::budget::Bounds;
use crate::recording::objects::free;
use crate::store::{Store, StoreError};

const CHECK: &str = "storage";

pub(crate) async fn check(folder: &Path, store: &Store) -> Result<Vec<Finding>, StoreError> {
    let (bounds, used) = (
        Bounds::remembered(store).await?,
        store.recorded_bytes().await?,
    );
    let mut found = Vec::new();
    let mut problem =
        |message: String, remedy: &str| found.push(Finding::problem(CHECK, message, remedy));
    let own = folder.join("recordings");
    // That the folder cannot be looked into is said already.
    let free = free(if own.is_dir() { &own } else { folder });
    if let Ok(free) = free
        && free < bounds.min_free
    {
        let message = format!(
            "{} are free and `min_free` is {}: uploads are refused, and devices keep what they recorded",
            bytes(free),
            bytes(bounds.min_free)
        );
        problem(message, "make room in the state folder's file system");
    }
    let sizes = used.iter().map(|(_, size)| *size);
    let all = sizes.fold(0, u64::saturating_add);
    if bounds.max.is_some_and(|max| all >= max) {
        let message = format!(
            "recordings take {}, which is `max`: uploads are refused",
            bytes(all)
        );
        problem(
            message,
            "remove some with `relay recordings rm`, or raise `max` in [recordings]",
        );
    }
    for (device, size) in &used {
        if bounds.device_max.is_some_and(|max| *size >= max) {
            let message = format!(
                "recordings of device {device} take {}, which is `device_max`: its uploads are refused",
                bytes(*size)
            );
            problem(
                message,
                "remove some with `relay recordings rm`, or raise `device_max` in [recordings]",
            );
        }
    }
    if found.is_empty() {
        let free = free.map_or_else(|_| "?".to_owned(), bytes);
        let message = format!("recordings take {}; {free} are free", bytes(all));
        found.push(Finding::ok(CHECK, message));
    }
    Ok(found)
}

/// Tries whether the recordings' bucket, if there is one, takes an object, gives it and removes it.
pub(super) async fn bucket(archive: &Archive) -> Option<Finding> {
    const CHECK: &str = "bucket";
    let tried = timeout(BUCKET_PROBE, archive.try_bucket()).await;
    let seconds = BUCKET_PROBE.as_secs();
    let late = || Err(io::Error::other(format!("no answer within {seconds} s")));
    let found = match tried.unwrap_or_else(|_| late()) {
        Ok(false) => return None,
        Ok(true) => Finding::ok(CHECK, "an object was written, read and removed"),
        Err(error) => Finding::problem(
            CHECK,
            format!("recordings cannot be kept, and devices keep what they recorded: {error}"),
            "check the bucket, the endpoint and the credentials in [recordings], and that they permit to put, get and delete objects",
        ),
    };
    Some(found)
}
