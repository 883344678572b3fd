//! Names of users and groups by their numbers, and homes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use crate::os::accounts::AccountFiles;
use crate::sftp::limits::MAX_SFTP_NAMES;

/// The device's users and groups, read when the first is asked for. What was found is kept: a listing asks
/// for the same few again and again.
#[derive(Default)]
pub(super) struct People {
    files: Option<AccountFiles>,
    users: BTreeMap<u32, Option<String>>,
    groups: BTreeMap<u32, Option<String>>,
}

impl People {
    /// Returns a user's name.
    pub(super) fn user(&mut self, uid: u32) -> Option<&str> {
        let files = files(&mut self.files);
        look_up(&mut self.users, uid, |uid| files.name_of(uid))
    }

    /// Returns a group's name.
    pub(super) fn group(&mut self, gid: u32) -> Option<&str> {
        let files = files(&mut self.files);
        look_up(&mut self.groups, gid, |gid| files.group_name_of(gid))
    }

    /// Returns a user's name, or the number.
    pub(super) fn user_or_number(&mut self, uid: u32) -> Cow<'_, str> {
        match self.user(uid) {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(uid.to_string()),
        }
    }

    /// Returns a group's name, or the number.
    pub(super) fn group_or_number(&mut self, gid: u32) -> Cow<'_, str> {
        match self.group(gid) {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(gid.to_string()),
        }
    }

    /// Returns where the account of this name is at home.
    pub(super) fn home(&mut self, name: &[u8]) -> Option<Vec<u8>> {
        let name = std::str::from_utf8(name).ok()?;
        let account = files(&mut self.files).account(name)?;
        Some(account.home.into_os_string().into_vec())
    }
}

fn files(files: &mut Option<AccountFiles>) -> &AccountFiles {
    // Where there are none, all have numbers only.
    files.get_or_insert_with(|| AccountFiles::read(Path::new("/etc")).unwrap_or_default())
}

fn look_up(
    known: &mut BTreeMap<u32, Option<String>>,
    id: u32,
    find: impl FnOnce(u32) -> Option<String>,
) -> Option<&str> {
    // A client may ask for every number there is.
    if known.len() >= MAX_SFTP_NAMES && !known.contains_key(&id) {
        known.clear();
    }
    let name = known.entry(id).or_insert_with(|| find(id));
    name.as_deref()
}
