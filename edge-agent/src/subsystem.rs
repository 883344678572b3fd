//! Which program serves a subsystem.

use std::path::{Path, PathBuf};

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::wire::SessionRefusal;
use rustix::fs::{Access, access};

/// Where distributions put OpenSSH's `sftp-server`: Debian, Fedora and Arch, Alpine and BSD, SUSE and
/// older Arch, Buildroot.
const SFTP_SERVERS: [&str; 5] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/sftp-server",
];

/// The program for the subsystem `name`.
///
/// # Errors
/// [`SessionRefusal::NoSubsystem`] with what is missing and what to do.
pub(crate) fn find(name: &str) -> Result<PathBuf, SessionRefusal> {
    if name != "sftp" {
        let text = format!(
            "no subsystem \"{}\" on this device: sftp is the only one",
            Escaped(name)
        );
        return Err(SessionRefusal::NoSubsystem(text));
    }
    find_among(&SFTP_SERVERS.map(Path::new)).ok_or_else(|| {
        let text =
            "no sftp-server on this device: install it (openssh-sftp-server), or use `scp -O`";
        SessionRefusal::NoSubsystem(text.to_owned())
    })
}

fn find_among(places: &[&Path]) -> Option<PathBuf> {
    let runs = |path: &&&Path| path.is_file() && access(**path, Access::EXEC_OK).is_ok();
    places.iter().find(runs).map(|path| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_first_place_that_holds_a_program_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (missing, second, third) = (
            folder.path().join("a"),
            folder.path().join("b"),
            folder.path().join("c"),
        );
        for path in [&second, &third] {
            std::fs::write(path, "").unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let places = [missing.as_path(), folder.path(), &second, &third];
        assert_eq!(find_among(&places).as_ref(), Some(&second));
        assert_eq!(find_among(&places[..2]), None);
    }

    #[test]
    fn another_subsystem_is_refused_by_its_name() {
        let refused = find("netconf\u{1b}[2J");
        let Err(SessionRefusal::NoSubsystem(text)) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(
            text,
            "no subsystem \"netconf\\u{1b}[2J\" on this device: sftp is the only one"
        );
    }
}
