//! What was typed (flags) and written (the TOML file) becomes one checked [`Config`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use holdfast_protocol::release::ReleaseKey;
use holdfast_protocol::token::is_address;
use serde::Deserialize;
use thiserror::Error;

use crate::audit::{Output, Settings as AuditSettings, WhenUnwritable};
use crate::limits::{EXPECT_WITHIN, LOGIN_GRACE};
use crate::recording::Settings as RecordingSettings;
use crate::recording::place::{Bucket, Place};

/// Where the state is unless said otherwise.
pub const DEFAULT_STATE: &str = "/var/lib/holdfast";
/// 2222, because 22 is mostly taken by the machine's own sshd.
const DEFAULT_SSH: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 2222);
const DEFAULT_TUNNEL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 4433);
/// Long enough for a prompt and a copy of a small file to end, short enough for a service manager.
const DEFAULT_DRAIN_GRACE: Duration = Duration::from_secs(5);
/// More than a year: what happened in the same month a year ago can be looked up.
const DEFAULT_AUDIT_KEEP: Duration = Duration::from_secs(400 * 86_400);

/// The checked configuration of a relay that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The state folder.
    pub state: PathBuf,
    /// Where operators connect (TCP). Port 0: any free one.
    pub ssh: SocketAddr,
    /// Where devices connect (UDP). Port 0: any free one.
    pub tunnel: SocketAddr,
    /// What tokens, roster and ssh-config name.
    pub public: Option<PublicHost>,
    /// After SIGTERM, how long live sessions may go on.
    pub drain_grace: Duration,
    /// From accepting an SSH connection to its authentication, however chatty the peer.
    pub login_grace: Duration,
    /// What new versions of the agent are signed with: devices pin it when they enrol.
    pub release_key: Option<ReleaseKey>,
    /// The audit log.
    pub audit: AuditSettings,
    /// Recordings.
    pub recordings: RecordingSettings,
}

/// What the flags of `relay serve` said; each beats the file.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--state`.
    pub state: Option<PathBuf>,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--ssh`.
    pub ssh: Option<SocketAddr>,
    /// `--tunnel`.
    pub tunnel: Option<SocketAddr>,
    /// `--public`.
    pub public: Option<PublicHost>,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {file}: {source}")]
    Read {
        /// The file.
        file: PathBuf,
        /// What came.
        source: std::io::Error,
    },
    /// The file holds something else than was expected.
    #[error("{file}: {problem}")]
    Parse {
        /// The file.
        file: PathBuf,
        /// Where and what, in one line.
        problem: String,
    },
    /// The relay listens everywhere and the machine's name cannot stand in an address.
    #[error(
        "no name for devices to dial: this machine's name cannot stand in an address; give one with --public HOST"
    )]
    NoPublicName,
}

impl Config {
    /// Puts the flags over the file over the defaults.
    ///
    /// # Errors
    /// [`ConfigError`] if the file cannot be read, or holds an unknown key or a bad value.
    pub fn load(flags: Flags) -> Result<Self, ConfigError> {
        let file = match &flags.config {
            Some(path) => read_file(path)?,
            None => ConfigFile::default(),
        };
        let recordings = file.recordings.settings();
        let recordings = recordings.map_err(|problem| ConfigError::Parse {
            file: flags.config.clone().unwrap_or_default(),
            problem: problem.to_owned(),
        })?;
        Ok(Self {
            state: flags
                .state
                .or(file.state)
                .unwrap_or_else(|| PathBuf::from(DEFAULT_STATE)),
            ssh: flags.ssh.or(file.ssh).unwrap_or(DEFAULT_SSH),
            tunnel: flags.tunnel.or(file.tunnel).unwrap_or(DEFAULT_TUNNEL),
            public: flags.public.or(file.public),
            drain_grace: file.drain_grace.map_or(DEFAULT_DRAIN_GRACE, |text| text.0),
            login_grace: file.login_grace.map_or(LOGIN_GRACE, |text| text.0),
            release_key: file.release_key,
            audit: file.audit.settings(),
            recordings,
        })
    }

    /// The `host:port` that devices dial: for tokens and roster. `bound` is where the tunnel listens.
    ///
    /// # Errors
    /// [`ConfigError::NoPublicName`].
    pub fn public_tunnel(&self, bound: SocketAddr) -> Result<String, ConfigError> {
        let port = self.public.as_ref().and_then(|public| public.port);
        self.public_address(bound.ip(), port.unwrap_or(bound.port()))
    }

    /// The `host:port` that operators dial: for ssh-config. `bound` is where SSH listens.
    ///
    /// # Errors
    /// [`ConfigError::NoPublicName`].
    pub fn public_ssh(&self, bound: SocketAddr) -> Result<String, ConfigError> {
        self.public_address(bound.ip(), bound.port())
    }

    fn public_address(&self, bound: IpAddr, port: u16) -> Result<String, ConfigError> {
        let address = match &self.public {
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
}

/// A name or address that others reach the relay by, and the tunnel's UDP port if it differs from
/// the bound one (a router or container that maps ports).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicHost {
    /// A DNS name, or an IP address without brackets.
    pub host: String,
    /// The tunnel's public UDP port.
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

/// The host as it stands before a port: IPv6 in brackets.
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

/// The TOML file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    state: Option<PathBuf>,
    ssh: Option<SocketAddr>,
    tunnel: Option<SocketAddr>,
    #[serde(default, deserialize_with = "public_host")]
    public: Option<PublicHost>,
    drain_grace: Option<HumanDuration>,
    login_grace: Option<HumanDuration>,
    #[serde(default, deserialize_with = "release_key")]
    release_key: Option<ReleaseKey>,
    #[serde(default)]
    audit: AuditFile,
    #[serde(default)]
    recordings: RecordingsFile,
}

/// `[recordings]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordingsFile {
    expect_within: Option<HumanDuration>,
    keep: Option<Keep>,
    #[serde(default)]
    store: StoreKind,
    bucket: Option<String>,
    prefix: Option<String>,
    endpoint: Option<String>,
    region: Option<String>,
    credentials: Option<PathBuf>,
}

/// Where recordings are kept.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoreKind {
    #[default]
    Folder,
    S3,
}

impl RecordingsFile {
    fn settings(self) -> Result<RecordingSettings, &'static str> {
        let words = [&self.bucket, &self.prefix, &self.endpoint, &self.region];
        let is_s3 = words.iter().any(|word| word.is_some()) || self.credentials.is_some();
        let place = match (self.store, self.bucket) {
            (StoreKind::Folder, _) if is_s3 => {
                return Err(
                    "[recordings]: bucket, prefix, endpoint, region and credentials need `store = \"s3\"`",
                );
            }
            (StoreKind::Folder, _) => Place::Folder,
            (StoreKind::S3, None) => {
                return Err("[recordings]: `store = \"s3\"` needs `bucket = \"NAME\"`");
            }
            (StoreKind::S3, Some(bucket)) => {
                let credentials = self.credentials.map(std::path::absolute).transpose();
                let wrong = "[recordings]: `credentials` is no path";
                Place::S3(Bucket {
                    bucket,
                    prefix: self.prefix,
                    endpoint: self.endpoint,
                    region: self.region,
                    // Commands beside the relay may be run in any folder.
                    credentials: credentials.map_err(|_| wrong)?,
                })
            }
        };
        Ok(RecordingSettings {
            expect_within: self.expect_within.map_or(EXPECT_WITHIN, |text| text.0),
            keep: self.keep.and_then(|keep| keep.0),
            place,
        })
    }
}

/// `[audit]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditFile {
    file: Option<String>,
    #[serde(default, deserialize_with = "parsed")]
    when_unwritable: WhenUnwritable,
    #[serde(default)]
    keep: Keep,
}

impl AuditFile {
    fn settings(self) -> AuditSettings {
        let output = self.file.map(|file| match file.as_str() {
            "stdout" => Output::Stdout,
            _ => Output::File(file.into()),
        });
        AuditSettings {
            output,
            when_unwritable: self.when_unwritable,
            keep: self.keep.0,
        }
    }
}

/// How long: a duration, or `"forever"`.
#[derive(Debug)]
struct Keep(Option<Duration>);

impl Default for Keep {
    fn default() -> Self {
        Self(Some(DEFAULT_AUDIT_KEEP))
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text == "forever" {
            return Ok(Self(None));
        }
        let span = humantime::parse_duration(&text)
            .ok()
            .filter(|span| !span.is_zero());
        let wanted = "expected a duration like \"400d\", or \"forever\"";
        span.map(|span| Self(Some(span)))
            .ok_or_else(|| serde::de::Error::custom(wanted))
    }
}

#[derive(Debug)]
struct HumanDuration(Duration);

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let wrong = |_| serde::de::Error::custom("expected a duration like \"5s\" or \"1m\"");
        humantime::parse_duration(&text).map(Self).map_err(wrong)
    }
}

fn public_host<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<PublicHost>, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

fn release_key<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<ReleaseKey>, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

/// A text with one of a few meanings.
fn parsed<'de, D: serde::Deserializer<'de>, T>(from: D) -> Result<T, D::Error>
where
    T: FromStr<Err = &'static str>,
{
    let text = String::deserialize(from)?;
    text.parse().map_err(serde::de::Error::custom)
}

fn read_file(path: &Path) -> Result<ConfigFile, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        file: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|error| ConfigError::Parse {
        file: path.to_owned(),
        problem: one_line(&text, &error),
    })
}

/// A TOML error without its drawing: the line's number and what is wrong there.
pub(crate) fn one_line(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start);
    let line = text
        .get(..start)
        .map_or(1, |head| head.matches('\n').count() + 1);
    let message = error.message().replace('\n', " ");
    format!("line {line}: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn load(toml: &str) -> Result<Config, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(toml.as_bytes()).unwrap();
        let flags = Flags {
            config: Some(file.path().to_owned()),
            ..Flags::default()
        };
        Config::load(flags).map_err(|error| {
            error
                .to_string()
                .replace(&file.path().display().to_string(), "FILE")
        })
    }

    #[test]
    fn flags_beat_the_file_and_the_file_beats_the_defaults() {
        let config = Config::load(Flags::default()).unwrap();
        assert_eq!(config.ssh.to_string(), "0.0.0.0:2222");
        assert_eq!(config.tunnel.to_string(), "0.0.0.0:4433");
        assert_eq!(config.state, Path::new(DEFAULT_STATE));

        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"ssh = \"127.0.0.1:1\"\ntunnel = \"127.0.0.1:2\"\ndrain_grace = \"1m\"\nlogin_grace = \"2s\"\npublic = \"relay:99\"\n")
            .unwrap();
        let config = Config::load(Flags {
            config: Some(file.path().to_owned()),
            ssh: Some("[::1]:0".parse().unwrap()),
            ..Flags::default()
        })
        .unwrap();
        assert_eq!(config.ssh.to_string(), "[::1]:0");
        assert_eq!(config.tunnel.to_string(), "127.0.0.1:2");
        assert_eq!(config.drain_grace, Duration::from_secs(60));
        assert_eq!(config.login_grace, Duration::from_secs(2));
        assert_eq!(config.public, "relay:99".parse().ok());
    }

    #[test]
    fn the_audit_log_has_a_section_of_its_own() {
        let config = load("").unwrap();
        assert_eq!(config.audit.output, None);
        assert_eq!(config.audit.when_unwritable, WhenUnwritable::Refuse);
        assert_eq!(config.audit.keep, Some(DEFAULT_AUDIT_KEEP));
        let text = "[audit]\nfile = \"/var/log/holdfast.jsonl\"\nwhen_unwritable = \"continue\"\nkeep = \"30d\"\n";
        let config = load(text).unwrap();
        assert_eq!(
            config.audit.output,
            Some(Output::File("/var/log/holdfast.jsonl".into()))
        );
        assert_eq!(config.audit.when_unwritable, WhenUnwritable::Continue);
        assert_eq!(config.audit.keep, Some(Duration::from_secs(30 * 86_400)));
        let config = load("[audit]\nfile = \"stdout\"\nkeep = \"forever\"\n").unwrap();
        assert_eq!(config.audit.output, Some(Output::Stdout));
        assert_eq!(config.audit.keep, None);
        for bad in [
            "when_unwritable = \"maybe\"",
            "keep = \"0s\"",
            "keep = \"long\"",
            "files = \"x\"",
        ] {
            let error = load(&format!("[audit]\n{bad}\n")).unwrap_err();
            assert!(error.starts_with("FILE: line 2: "), "{error}");
        }
    }

    #[test]
    fn recordings_lie_in_the_folder_or_in_a_bucket() {
        assert_eq!(load("").unwrap().recordings.place, Place::Folder);
        let text = "[recordings]\nstore = \"s3\"\nbucket = \"tapes\"\nendpoint = \"https://s3.example.com\"\ncredentials = \"/etc/keys\"\n";
        let Place::S3(bucket) = load(text).unwrap().recordings.place else {
            panic!("no bucket")
        };
        assert_eq!(bucket.bucket, "tapes");
        assert_eq!(bucket.credentials, Some("/etc/keys".into()));
        for (bad, why) in [
            ("store = \"s3\"", "needs `bucket"),
            ("bucket = \"tapes\"", "need `store"),
            ("store = \"tape\"", "line 2: unknown variant `tape`"),
            // Nothing secret belongs into a file that is shown to people.
            ("secret_access_key = \"x\"", "line 2: unknown field"),
        ] {
            let error = load(&format!("[recordings]\n{bad}\n")).unwrap_err();
            assert!(error.contains(why) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_release_key_is_minisigns() {
        assert_eq!(load("").unwrap().release_key, None);
        let key = "RWQ0ZvBD3qMc87ItdmGuC7HlCQlW4JOACk7I6L9CtP7QDodLvdtjWmN5";
        let config = load(&format!("release_key = \"{key}\"\n")).unwrap();
        assert_eq!(config.release_key.unwrap().to_string(), key);
        let error = load("release_key = \"RWsecret\"\n").unwrap_err();
        assert!(
            error.starts_with("FILE: line 1: a release key begins with RW: "),
            "{error}"
        );
    }

    #[test]
    fn a_bad_file_is_one_sentence_with_the_line() {
        let unknown = load("ssh = \"127.0.0.1:1\"\nssk = 1\n").unwrap_err();
        assert!(
            unknown.starts_with("FILE: line 2: unknown field `ssk`"),
            "{unknown}"
        );
        for bad in [
            "ssh = 22",
            "ssh = \"nowhere\"",
            "drain_grace = \"soon\"",
            "public = \"a b\"",
            "=",
        ] {
            let error = load(bad).unwrap_err();
            assert!(
                error.starts_with("FILE: line 1: ") && !error.contains('\n'),
                "{error}"
            );
        }
        let missing = Config::load(Flags {
            config: Some("/nonexistent.toml".into()),
            ..Flags::default()
        });
        assert!(
            missing
                .unwrap_err()
                .to_string()
                .starts_with("cannot read the configuration /nonexistent.toml: ")
        );
    }

    #[test]
    fn the_public_address_follows_the_flag_then_the_bound_address_then_the_host() {
        let mut config = Config::load(Flags::default()).unwrap();
        let bound = "127.0.0.1:4500".parse().unwrap();
        assert_eq!(config.public_tunnel(bound).unwrap(), "127.0.0.1:4500");
        assert_eq!(
            config.public_tunnel("[::1]:7".parse().unwrap()).unwrap(),
            "[::1]:7"
        );
        let everywhere = config
            .public_tunnel("0.0.0.0:4433".parse().unwrap())
            .unwrap();
        assert!(everywhere.ends_with(":4433") && !everywhere.starts_with("0.0.0.0"));

        config.public = "relay.example.com".parse().ok();
        assert_eq!(
            config.public_tunnel(bound).unwrap(),
            "relay.example.com:4500"
        );
        config.public = "relay.example.com:53".parse().ok();
        assert_eq!(config.public_tunnel(bound).unwrap(), "relay.example.com:53");
        assert_eq!(config.public_ssh(bound).unwrap(), "relay.example.com:4500");
        config.public = "[2001:db8::1]:53".parse().ok();
        assert_eq!(config.public_tunnel(bound).unwrap(), "[2001:db8::1]:53");
        for v6 in ["2001:db8::1", "[2001:db8::1]"] {
            config.public = v6.parse().ok();
            assert_eq!(config.public_ssh(bound).unwrap(), "[2001:db8::1]:4500");
        }
        for bad in ["", ":1", "a b", "a:0", "a:70000", "a:b", "[x]:1"] {
            assert!(bad.parse::<PublicHost>().is_err(), "{bad}");
        }
    }
}
