//! `edge-agent install` and `uninstall`: this program as a service of the device's own init.
//!
//! What is to be there is worked out first, and then made so: a second run changes nothing, and
//! `--dry-run` stops in between. With another root than `/` (a card or an image that is mounted) no command
//! runs: the service is enabled by the link or the file that the init looks for.

mod service;
mod step;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use service::Init;

use crate::os::volatile::{self, Persistence};
use crate::tunnel::{identity, membership};
use service::{BadArgument, Service};
use step::{FileContent, InstallStep, io_error, say};

/// The program and files to install, and their places.
#[derive(Debug)]
pub struct Install {
    /// The place where the device's root file system is: `/`, or where it is mounted.
    pub root: PathBuf,
    /// The init to serve; `None` to look for it.
    pub init: Option<Init>,
    /// The program to install, if it is not the one that runs.
    pub program: Option<PathBuf>,
    /// The agent's state folder, as the device sees it.
    pub state: PathBuf,
    /// The arguments of `edge-agent run` besides the state folder.
    pub run: Vec<String>,
}

/// The reason why it was not installed.
#[derive(Debug, Error)]
pub enum InstallError {
    /// No init that we know.
    #[error(
        "no systemd, OpenRC or procd found in {}: have this device's init start `edge-agent run`, or name one with --init",
        .0.display()
    )]
    NoInit(PathBuf),
    /// Only root may.
    #[error("installing a service needs root: try again with sudo")]
    NotRoot,
    /// It would be forgotten at the next start.
    #[error(
        "the state folder {} is in memory: the device would lose its key at the next start; join with --state on a disk (such as /etc/edge-agent) and give the same here",
        .0.display()
    )]
    Volatile(PathBuf),
    /// A service starts in another folder than who installs it.
    #[error("the state folder is {:?}: give the whole path, which begins with /", .0)]
    Relative(PathBuf),
    /// It may be anything.
    #[error(
        "{} is not an agent's state folder ({} and {} are missing): nothing was removed; name the folder with --state, or leave out --purge",
        .0.display(), identity::FILE, membership::FILE
    )]
    NotState(PathBuf),
    /// The init could not read it.
    #[error(transparent)]
    Argument(#[from] BadArgument),
    /// The operating system refused.
    #[error("cannot {verb} {}: {source}", path.display())]
    Io {
        /// The step that was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A command of the init failed.
    #[error("`{0}` failed ({1}): its output is above")]
    Command(String, String),
}

impl Install {
    /// Installs the service and starts it, or only says what it would do; what was done is written to
    /// `out`, a line each.
    ///
    /// # Errors
    /// [`InstallError`]; what was done before it stays.
    pub fn install(&self, dry_run: bool, out: &mut dyn io::Write) -> Result<(), InstallError> {
        let service = self.service(dry_run)?;
        self.refuse_volatile()?;
        self.warn_of_volatile(&service, out)?;
        let mut steps = vec![InstallStep::File {
            path: self.at(&service.program),
            content: FileContent::Program(self.program()?),
            mode: 0o755,
        }];
        let files = service.files()?;
        let known = files.iter().any(|file| self.at(&file.path).exists());
        steps.extend(files.into_iter().map(|file| InstallStep::File {
            path: self.at(&file.path),
            content: FileContent::Text(file.text),
            mode: file.mode,
        }));
        if !self.is_live() {
            steps.extend(
                service
                    .links()
                    .into_iter()
                    .map(|(path, to)| InstallStep::Link {
                        path: self.at(&path),
                        to,
                    }),
            );
        }
        let mut changed = false;
        for step in &steps {
            changed |= step.make_so(dry_run, out)?;
        }
        if self.is_live() {
            for command in service.start(changed, known) {
                changed |= InstallStep::Run(command).make_so(dry_run, out)?;
            }
        }
        if !changed {
            let root = self.root.display();
            let sentence = format_args!(
                "unchanged: the service of edge-agent is installed in {root} as asked"
            );
            say(out, sentence)?;
        }
        Ok(())
    }

    /// Stops the service and removes it; the state folder stays unless `purge`.
    ///
    /// # Errors
    /// [`InstallError`]; what was done before it stays.
    pub fn uninstall(
        &self,
        purge: bool,
        dry_run: bool,
        out: &mut dyn io::Write,
    ) -> Result<(), InstallError> {
        let service = self.service(dry_run)?;
        let files = service.files()?;
        if purge {
            self.refuse_to_purge_others()?;
        }
        let installed = files.iter().any(|file| self.at(&file.path).exists());
        if self.is_live() && installed {
            for command in service.stop() {
                InstallStep::Run(command).make_so(dry_run, out)?;
            }
        }
        let links = service.links().into_iter().map(|(path, _)| path);
        let mut gone: Vec<PathBuf> = links.chain(self.in_runlevels(&service)).collect();
        gone.extend(files.into_iter().map(|file| file.path));
        gone.push(service.program.clone());
        gone.push(service.previous());
        if purge {
            gone.push(self.state.clone());
        }
        let mut changed = false;
        for path in gone {
            changed |= InstallStep::Gone(self.at(&path)).make_so(dry_run, out)?;
        }
        if !changed {
            say(
                out,
                format_args!(
                    "nothing to remove: no service of edge-agent is installed in {}",
                    self.root.display()
                ),
            )?;
        }
        if self.is_live() && changed {
            for command in service.forget() {
                InstallStep::Run(command).make_so(dry_run, out)?;
            }
        }
        if !purge && self.at(&self.state).exists() {
            say(
                out,
                format_args!(
                    "kept {}: this device's key, its membership and its waiting recordings; --purge removes it",
                    self.at(&self.state).display()
                ),
            )?;
        }
        Ok(())
    }

    fn service(&self, dry_run: bool) -> Result<Service, InstallError> {
        if !self.state.is_absolute() {
            return Err(InstallError::Relative(self.state.clone()));
        }
        let init = match self.init {
            Some(init) => init,
            None => self.find_init()?,
        };
        if self.is_live() && !dry_run && !rustix::process::geteuid().is_root() {
            return Err(InstallError::NotRoot);
        }
        Ok(Service::new(init, &self.state, &self.run))
    }

    /// Returns where the service is in any runlevel, as the device sees it.
    fn in_runlevels(&self, service: &Service) -> Vec<PathBuf> {
        let Some(runlevels) = service.runlevels() else {
            return Vec::new();
        };
        let folders = fs::read_dir(self.at(runlevels)).into_iter().flatten();
        let names = folders.flatten().map(|folder| folder.file_name());
        names
            .map(|name| runlevels.join(name).join(service::NAME))
            .collect()
    }

    fn program(&self) -> Result<Vec<u8>, InstallError> {
        // By this name it is found also when the file that it came from was replaced since.
        let this = Path::new("/proc/self/exe");
        let path = self.program.as_deref().unwrap_or(this);
        fs::read(path).map_err(|source| io_error("read", path, source))
    }

    fn find_init(&self) -> Result<Init, InstallError> {
        let there = |path: &str| self.at(Path::new(path)).exists();
        // systemd may be installed and yet not be the init that runs.
        let systemd = if self.is_live() {
            Path::new("/run/systemd/system").is_dir()
        } else {
            there("/lib/systemd/systemd") || there("/usr/lib/systemd/systemd")
        };
        if systemd {
            Ok(Init::Systemd)
        } else if there("/sbin/procd") {
            Ok(Init::Procd)
        } else if there("/sbin/openrc-run") || there("/usr/sbin/openrc-run") {
            Ok(Init::Openrc)
        } else {
            Err(InstallError::NoInit(self.root.clone()))
        }
    }

    /// Refuses a state folder in memory: on a live device the key must outlast a start. (An image is not mounted yet.)
    fn refuse_volatile(&self) -> Result<(), InstallError> {
        if self.is_live() && Persistence::at(&self.state) == Persistence::Memory {
            return Err(InstallError::Volatile(self.state.clone()));
        }
        Ok(())
    }

    /// Warns of a root file system whose changes are in memory. That is a deliberate choice (a protected image), and
    /// may be written by another way; but nothing that is installed here comes back from it.
    fn warn_of_volatile(
        &self,
        service: &Service,
        out: &mut dyn io::Write,
    ) -> Result<(), InstallError> {
        if !self.is_live() {
            return Ok(());
        }
        if let Some(sentence) = volatile::warning(&self.state) {
            say(out, format_args!("{sentence}"))?;
        }
        if Persistence::at(&service.program) != Persistence::Lasting {
            say(
                out,
                format_args!(
                    "warning: {} is on a file system that keeps its changes in memory: the service is gone at the device's next start; install it into the image (--root), or make the root file system lasting first",
                    service.program.display()
                ),
            )?;
        }
        Ok(())
    }

    /// Checks that what is removed with all that is in it belongs to the agent.
    fn refuse_to_purge_others(&self) -> Result<(), InstallError> {
        let state = self.at(&self.state);
        let ours = [identity::FILE, membership::FILE];
        if state.exists() && !ours.iter().any(|file| state.join(file).exists()) {
            return Err(InstallError::NotState(state));
        }
        Ok(())
    }

    fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Returns where a path of the device is from here.
    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

#[cfg(test)]
mod tests;
