//! Room for recordings: what they take, and what is free.

use std::path::Path;

use super::{Finding, Level};
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
    let mut problem = |message: String| found.push(Finding::new(Level::Problem, CHECK, message));
    let own = folder.join("recordings");
    // That the folder cannot be looked into is said already.
    let free = free(if own.is_dir() { &own } else { folder });
    if let Ok(free) = free
        && free < bounds.min_free
    {
        problem(format!(
            "{} are free and `min_free` is {}: uploads are refused, and devices keep what they recorded; make room",
            bytes(free),
            bytes(bounds.min_free)
        ));
    }
    let sizes = used.iter().map(|(_, size)| *size);
    let all = sizes.fold(0, u64::saturating_add);
    if bounds.max.is_some_and(|max| all >= max) {
        problem(format!(
            "they take {}, which is `max`: uploads are refused; remove some, or raise it",
            bytes(all)
        ));
    }
    for (device, size) in &used {
        if bounds.device_max.is_some_and(|max| *size >= max) {
            problem(format!(
                "those of device {device} take {}, which is `device_max`: its uploads are refused",
                bytes(*size)
            ));
        }
    }
    if found.is_empty() {
        let free = free.map_or_else(|_| "?".to_owned(), bytes);
        let message = format!("they take {}; {free} are free", bytes(all));
        found.push(Finding::new(Level::Ok, CHECK, message));
    }
    Ok(found)
}
