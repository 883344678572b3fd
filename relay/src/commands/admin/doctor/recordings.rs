//! Room for recordings: what they take, and what is free.

use std::path::Path;

use super::Finding;
use crate::commands::sessions::bytes;
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
