//! The kinds of packets, section 3 of the draft, and the names of extensions that all sides know.

/// The first packet of a client: its version.
pub const INIT: u8 = 1;
/// The answer to it.
pub const VERSION: u8 = 2;
/// Opens a file.
pub const OPEN: u8 = 3;
/// Closes a file or folder.
pub const CLOSE: u8 = 4;
/// Reads from a file.
pub const READ: u8 = 5;
/// Writes to a file.
pub const WRITE: u8 = 6;
/// Attributes of a path, of a link itself.
pub const LSTAT: u8 = 7;
/// Attributes of an open file.
pub const FSTAT: u8 = 8;
/// Sets attributes of a path.
pub const SETSTAT: u8 = 9;
/// Sets attributes of an open file.
pub const FSETSTAT: u8 = 10;
/// Opens a folder.
pub const OPENDIR: u8 = 11;
/// Lists the next names of an open folder.
pub const READDIR: u8 = 12;
/// Removes a file.
pub const REMOVE: u8 = 13;
/// Makes a folder.
pub const MKDIR: u8 = 14;
/// Removes a folder.
pub const RMDIR: u8 = 15;
/// Resolves a path.
pub const REALPATH: u8 = 16;
/// Attributes of a path, behind links.
pub const STAT: u8 = 17;
/// Renames.
pub const RENAME: u8 = 18;
/// Reads a link.
pub const READLINK: u8 = 19;
/// Makes a symbolic link.
pub const SYMLINK: u8 = 20;
/// A request that is named by a string.
pub const EXTENDED: u8 = 200;

// Answers.

/// The status of a request.
pub const STATUS: u8 = 101;
/// A file or folder is open.
pub const HANDLE: u8 = 102;
/// Bytes of a file.
pub const DATA: u8 = 103;
/// Names.
pub const NAME: u8 = 104;
/// Attributes.
pub const ATTRS: u8 = 105;
/// The answer to an extended request.
pub const EXTENDED_REPLY: u8 = 201;

/// Our own: an attribute of that name, with nothing in it, of a file that `Open` makes and that was not there. The
/// file goes with the session, unless it has another name or is gone by then. The relay's `cp` asks for it.
pub const TEMPORARY: &[u8] = b"temporary@holdfast";

/// Our own: the relay opens a file by it under a handle that the client has already, so that what the client does with
/// it follows at once. If it can't be opened, whatever is asked of the handle is answered as the open was.
pub const OPEN_AS: &[u8] = b"open-as@holdfast";

/// Our own: the relay has a file closed by it which the client is about to close. If the client goes on instead, it
/// is opened again.
pub const RELEASE: &[u8] = b"release@holdfast";

// Extensions of OpenSSH (its `PROTOCOL`, section 4) and others, by their names.

/// The limits of the server.
pub const LIMITS: &[u8] = b"limits@openssh.com";

/// Renames, over a file that is there.
pub const POSIX_RENAME: &[u8] = b"posix-rename@openssh.com";

/// Makes a hard link.
pub const HARDLINK: &[u8] = b"hardlink@openssh.com";

/// Brings an open file to the disk.
pub const FSYNC: &[u8] = b"fsync@openssh.com";

/// The room of the file system of a path.
pub const STATVFS: &[u8] = b"statvfs@openssh.com";

/// The same of an open file.
pub const FSTATVFS: &[u8] = b"fstatvfs@openssh.com";

/// Sets attributes of a path, of a link itself.
pub const LSETSTAT: &[u8] = b"lsetstat@openssh.com";

/// Resolves a path as a shell does.
pub const EXPAND_PATH: &[u8] = b"expand-path@openssh.com";

/// Copies from one open file to another.
pub const COPY_DATA: &[u8] = b"copy-data";

/// The home of an account.
pub const HOME_DIRECTORY: &[u8] = b"home-directory";

/// The names of users and groups.
pub const USERS_GROUPS_BY_ID: &[u8] = b"users-groups-by-id@openssh.com";
