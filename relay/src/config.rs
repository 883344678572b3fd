//! Makes one checked [`Config`] of what was typed (flags) and written (the TOML file).

mod file;
pub(crate) mod limits;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use holdfast_protocol::escape::OneLine;
use holdfast_protocol::identity::release::ReleaseKey;
use holdfast_protocol::identity::token::is_address;
use ipnet::IpNet;
use thiserror::Error;

use self::file::{ConfigFile, read_file};
use crate::audit::AuditSettings;
use crate::config::limits::{LOGIN_GRACE, MAX_SHOWN_VALUE};
use crate::fence::OnStoreLoss;
use crate::model::invalid::Invalid;
use crate::recording::RecordingSettings;
use crate::state::DatabaseUrl;
use crate::store::cluster::settings::SharedSettings;
use crate::tunnel::clones::OnClone;

/// The default state folder.
pub(crate) const DEFAULT_STATE: &str = "/var/lib/holdfast";
/// 2222, because 22 is mostly taken by the machine's own sshd.
const DEFAULT_SSH: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 2222);
const DEFAULT_TUNNEL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 4433);
/// The expected form of an address to listen for operators at.
pub(crate) const SSH_EXPECTED: &str = "expected IP:PORT, as in 0.0.0.0:2222";
/// The same for health checks.
const HEALTH_EXPECTED: &str = "expected IP:PORT, as in 127.0.0.1:9470";
/// The same for devices.
pub(crate) const TUNNEL_EXPECTED: &str = "expected IP:PORT, as in 0.0.0.0:4433";
/// Long enough for a prompt and a copy of a small file to end, short enough for a service manager.
const DEFAULT_DRAIN_GRACE: Duration = Duration::from_secs(5);
/// More than a year: what happened in the same month a year ago can be looked up.
const DEFAULT_AUDIT_KEEP: Duration = Duration::from_secs(400 * 86_400);

/// The checked configuration of a relay that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// The state folder.
    pub state: PathBuf,
    /// The database on a server, if the relay is to have one.
    pub database: Option<DatabaseUrl>,
    /// The listen address for operators (TCP). Port 0: any free one.
    pub ssh: SocketAddr,
    /// The listen address for devices (UDP). Port 0: any free one.
    pub tunnel: SocketAddr,
    /// The public address of this relay alone: tokens and the roster name it.
    pub public: Option<PublicHost>,
    /// The address that operators dial, where it is not that of [`Self::public`]: it may lead to any relay of a cluster.
    pub public_ssh: Option<PublicHost>,
    /// After SIGTERM, how long live sessions may go on.
    pub drain_grace: Duration,
    /// The time from accepting an SSH connection to its authentication, however chatty the peer.
    pub login_grace: Duration,
    /// Networks whose failed logins are not held against them.
    pub penalty_exempt: Vec<IpNet>,
    /// Networks of TCP load balancers, whose connections begin with a header of the PROXY protocol.
    pub proxy_protocol: Vec<IpNet>,
    /// The key that new versions of the agent are signed with: devices pin it when they enrol.
    pub release_key: Option<ReleaseKey>,
    /// The policy for the second of two machines that have one device's key.
    pub on_clone: OnClone,
    /// The reaction of sessions to the loss of a store that the relay shares.
    pub on_store_loss: OnStoreLoss,
    /// The listen address for health checks (TCP). Port 0: any free one.
    pub health: Option<SocketAddr>,
    /// The audit log.
    pub audit: AuditSettings,
    /// Recordings.
    pub recordings: RecordingSettings,
    /// The file that it was read from, if that has the database's password and other accounts can read it.
    pub exposed: Option<PathBuf>,
}

/// The values of the flags of `relay serve`; each beats the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    /// `--state`.
    pub state: Option<PathBuf>,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--database`.
    pub database: Option<DatabaseUrl>,
    /// `--ssh`.
    pub ssh: Option<SocketAddr>,
    /// `--tunnel`.
    pub tunnel: Option<SocketAddr>,
    /// `--public`.
    pub public: Option<PublicHost>,
}

/// The reason why there is no configuration.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {file}: {source}")]
    Read {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file holds something else than was expected.
    #[error("{file}: {problem}")]
    Parse {
        /// The file.
        file: PathBuf,
        /// The problem and its place, in one line.
        problem: String,
    },
    /// The relay listens everywhere and the machine's name is not a valid host name.
    #[error(
        "no name for devices to dial: this machine's name is not a valid host name; give one with --public HOST"
    )]
    NoPublicName,
}

impl Config {
    /// Puts the flags over the file over the defaults.
    ///
    /// # Errors
    /// [`ConfigError`] if the file cannot be read, or holds an unknown key or a bad value.
    pub(crate) fn load(flags: Flags) -> Result<Self, ConfigError> {
        let file = match &flags.config {
            Some(path) => read_file(path)?,
            None => ConfigFile::default(),
        };
        let has_password = file
            .database
            .as_ref()
            .is_some_and(DatabaseUrl::has_password);
        let path = flags.config.as_ref().filter(|_| has_password);
        let exposed = path.filter(|path| file::is_open(path)).cloned();
        let recordings = file.recordings.settings();
        let recordings = recordings.map_err(|problem| ConfigError::Parse {
            file: flags.config.clone().unwrap_or_default(),
            problem: problem.to_owned(),
        })?;
        let invalid = |problem: Invalid| ConfigError::Parse {
            file: flags.config.clone().unwrap_or_default(),
            problem: problem.to_string(),
        };
        let penalty_exempt = file::exempt(&file.penalty_exempt).map_err(invalid)?;
        let proxy_protocol = file::balancers(&file.proxy_protocol).map_err(invalid)?;
        Ok(Self {
            state: flags
                .state
                .or(file.state)
                .unwrap_or_else(|| PathBuf::from(DEFAULT_STATE)),
            database: flags.database.or(file.database),
            ssh: flags.ssh.or(file.ssh).unwrap_or(DEFAULT_SSH),
            tunnel: flags.tunnel.or(file.tunnel).unwrap_or(DEFAULT_TUNNEL),
            public: flags.public.or(file.public),
            public_ssh: file.public_ssh,
            drain_grace: file.drain_grace.map_or(DEFAULT_DRAIN_GRACE, |text| text.0),
            login_grace: file.login_grace.map_or(LOGIN_GRACE, |text| text.0),
            penalty_exempt,
            proxy_protocol,
            release_key: file.release_key,
            on_clone: file.on_clone,
            on_store_loss: file.cluster.on_store_loss,
            health: file.health.map(|health| health.listen),
            audit: file.audit.settings(),
            recordings,
            exposed,
        })
    }

    /// Returns the `host:port` that devices dial: for tokens and roster. `bound` is where the tunnel listens.
    ///
    /// # Errors
    /// [`ConfigError::NoPublicName`].
    pub(crate) fn public_tunnel(&self, bound: SocketAddr) -> Result<String, ConfigError> {
        let port = self.public.as_ref().and_then(|public| public.port);
        public_address(
            self.public.as_ref(),
            bound.ip(),
            port.unwrap_or(bound.port()),
        )
    }

    /// Returns the `host:port` that operators dial: for ssh-config. `bound` is where SSH listens.
    ///
    /// # Errors
    /// [`ConfigError::NoPublicName`].
    pub(crate) fn public_ssh(&self, bound: SocketAddr) -> Result<String, ConfigError> {
        match &self.public_ssh {
            Some(public) => {
                let port = public.port.unwrap_or(bound.port());
                public_address(Some(public), bound.ip(), port)
            }
            None => self.own_ssh(bound),
        }
    }

    /// Returns the settings that all relays of a cluster have to have alike, each under its key in the file.
    #[must_use]
    pub(crate) fn shared(&self) -> SharedSettings {
        let span = |span: Duration| humantime::format_duration(span).to_string();
        let kept = |time: Option<Duration>| time.map_or_else(|| "forever".to_owned(), span);
        let size = |bytes: Option<u64>| {
            bytes.map_or_else(|| "unlimited".to_owned(), |it| format!("{it} B"))
        };
        let text = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
        let recordings = &self.recordings;
        let settings = [
            (
                "public_ssh",
                text(self.public_ssh.as_ref().map(ToString::to_string)),
            ),
            (
                "release_key",
                text(self.release_key.map(|key| key.to_string())),
            ),
            ("on_clone", format!("{:?}", self.on_clone).to_lowercase()),
            (
                "[cluster] on_store_loss",
                format!("{:?}", self.on_store_loss).to_lowercase(),
            ),
            ("[audit] keep", kept(self.audit.keep)),
            ("[recordings] expect_within", span(recordings.expect_within)),
            ("[recordings] keep", kept(recordings.keep)),
            (
                "[recordings] device_max",
                size(recordings.bounds.device_max),
            ),
            ("[recordings] max", size(recordings.bounds.max)),
        ];
        let named = settings
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        SharedSettings(named.collect())
    }

    /// Returns the `host:port` at which operators reach this relay and no other.
    ///
    /// # Errors
    /// [`ConfigError::NoPublicName`].
    pub(crate) fn own_ssh(&self, bound: SocketAddr) -> Result<String, ConfigError> {
        public_address(self.public.as_ref(), bound.ip(), bound.port())
    }
}

fn public_address(
    public: Option<&PublicHost>,
    bound: IpAddr,
    port: u16,
) -> Result<String, ConfigError> {
    let address = match public {
        Some(public) => format!("{public}:{port}", public = HostOnly(public)),
        None if bound.is_unspecified() => {
            let name = rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned();
            format!("{name}:{port}")
        }
        None => SocketAddr::new(bound, port).to_string(),
    };
    is_address(&address)
        .then_some(address)
        .ok_or(ConfigError::NoPublicName)
}

/// A name or address that others reach the relay by, and the public port if it differs from the bound one (a router or
/// container that maps ports).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicHost {
    /// A DNS name, or an IP address without brackets.
    pub host: String,
    /// The public port: of `public` the tunnel's, and of `public_ssh` that for operators.
    pub port: Option<u16>,
}

impl FromStr for PublicHost {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "expected HOST or HOST:PORT, as in relay.example.com, 192.0.2.1:4433 or [2001:db8::1]:4433";
        if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(Self {
                host: ip.to_string(),
                port: None,
            });
        }
        let with_port = if is_address(text) {
            text.to_owned()
        } else {
            format!("{text}:1")
        };
        if !is_address(&with_port) {
            return Err(WANTED);
        }
        let (host, port) = with_port.rsplit_once(':').ok_or(WANTED)?;
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: (with_port == text)
                .then(|| port.parse())
                .transpose()
                .map_err(|_| WANTED)?,
        })
    }
}

impl fmt::Display for PublicHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HostOnly(self).fmt(f)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// The host in the form that precedes a port: IPv6 in brackets.
struct HostOnly<'a>(&'a PublicHost);

impl fmt::Display for HostOnly<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.host.contains(':') {
            write!(f, "[{}]", self.0.host)
        } else {
            f.write_str(&self.0.host)
        }
    }
}

/// Returns a TOML error without its drawing: the line's number and what is wrong there.
pub(crate) fn one_line(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start);
    let line = text
        .get(..start)
        .map_or(1, |head| head.matches('\n').count() + 1);
    let message = error.message().replace('\n', " ");
    format!("line {line}: {message}")
}

/// Returns [`one_line`] with the key and the value that the error is about.
fn quoted(text: &str, error: &toml::de::Error) -> String {
    let sentence = one_line(text, error);
    match value_at(text, error) {
        Some(value) => format!("{sentence}; it has `{value}`"),
        None => sentence,
    }
}

/// Returns the key and the value that the error is about, if it is about a value and that is on one line.
fn value_at(text: &str, error: &toml::de::Error) -> Option<String> {
    let span = error.span()?;
    let head = text.get(..span.start)?;
    let begin = head.rfind('\n').map_or(0, |end| end + 1);
    let key = text.get(begin..span.start)?;
    let value = text.get(span)?;
    // A span at the key is about the key, which the error names.
    let is_value = key.trim_end().ends_with('=') && !value.is_empty() && !value.contains('\n');
    // It may hold a password.
    let is_secret = key.contains("database");
    (is_value && !is_secret).then(|| {
        let shown: String = format!("{key}{value}")
            .chars()
            .take(MAX_SHOWN_VALUE)
            .collect();
        OneLine(shown.trim_start()).to_string()
    })
}

#[cfg(test)]
mod tests;
