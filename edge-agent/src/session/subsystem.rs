//! Finds the program that serves a subsystem.

use std::path::{Path, PathBuf};

use holdfast_protocol::wire::{SFTP, SessionRefusal, SftpTerms};
use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};

/// The server of the subsystem sftp, as the config names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SftpServer {
    /// The agent itself: [`crate::sftp`].
    Internal,
    /// A program of the device, by its absolute path.
    Device(String),
}

/// The program of a subsystem.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SubsystemServer {
    /// The agent itself.
    Internal,
    /// The agent itself, restricted to this.
    Held(SftpTerms),
    /// This program.
    Program(PathBuf),
}

/// Returns what serves the subsystem `name`. Another program knows nothing of terms: under them the agent serves
/// sftp, whatever the config says.
///
/// # Errors
/// [`SessionRefusal::NoSubsystem`] with its name: the relay says what is missing and what to do.
pub(crate) fn find(
    name: &str,
    sftp: &SftpServer,
    terms: Option<SftpTerms>,
) -> Result<SubsystemServer, SessionRefusal> {
    if let Some(terms) = terms.filter(|_| name == SFTP) {
        return Ok(SubsystemServer::Held(terms));
    }
    match sftp {
        SftpServer::Internal if name == SFTP => Ok(SubsystemServer::Internal),
        SftpServer::Device(path) if name == SFTP && runs(Path::new(path)) => {
            Ok(SubsystemServer::Program(path.into()))
        }
        _ => Err(SessionRefusal::NoSubsystem(name.to_owned())),
    }
}

fn runs(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn refused(name: &str) -> Result<SubsystemServer, SessionRefusal> {
        Err(SessionRefusal::NoSubsystem(name.to_owned()))
    }

    #[test]
    fn another_program_is_taken_only_if_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sftp-server");
        let device = |path: &Path| SftpServer::Device(path.to_str().unwrap().to_owned());
        assert_eq!(find(SFTP, &device(&path), None), refused(SFTP));
        assert_eq!(find(SFTP, &device(folder.path()), None), refused(SFTP));
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(
            find(SFTP, &device(&path), None),
            Ok(SubsystemServer::Program(path))
        );
    }

    #[test]
    fn another_subsystem_is_refused_by_its_name() {
        assert_eq!(
            find(SFTP, &SftpServer::Internal, None),
            Ok(SubsystemServer::Internal)
        );
        for server in [SftpServer::Internal, SftpServer::Device("/bin/sh".into())] {
            assert_eq!(find("netconf", &server, None), refused("netconf"));
        }
    }

    #[test]
    fn under_terms_the_agent_serves_itself() {
        let terms = SftpTerms {
            read_only: true,
            root: None,
        };
        for server in [SftpServer::Internal, SftpServer::Device("/bin/sh".into())] {
            let held = find(SFTP, &server, Some(terms.clone()));
            assert_eq!(held, Ok(SubsystemServer::Held(terms.clone())));
            assert_eq!(
                find("netconf", &server, Some(terms.clone())),
                refused("netconf")
            );
        }
    }
}
