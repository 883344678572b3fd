//! Which program serves a subsystem.

use std::path::{Path, PathBuf};

use holdfast_protocol::wire::{SFTP, SessionRefusal};
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
/// [`SessionRefusal::NoSubsystem`] with its name: the relay says what is missing and what to do.
pub(crate) fn find(name: &str) -> Result<PathBuf, SessionRefusal> {
    let found = if name == SFTP {
        find_among(&SFTP_SERVERS.map(Path::new))
    } else {
        None
    };
    found.ok_or_else(|| SessionRefusal::NoSubsystem(name.to_owned()))
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
        let refused = find("netconf");
        assert_eq!(
            refused,
            Err(SessionRefusal::NoSubsystem("netconf".to_owned()))
        );
    }
}
