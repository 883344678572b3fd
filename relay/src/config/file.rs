//! The configuration as it is written: TOML, and what its texts mean.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use holdfast_protocol::identity::release::ReleaseKey;
use serde::Deserialize;

use super::{
    ConfigError, DEFAULT_AUDIT_KEEP, HEALTH_EXPECTED, PublicHost, SSH_EXPECTED, TUNNEL_EXPECTED,
    quoted,
};
use crate::audit::{AuditSettings, SinkOutput, WhenUnwritable};
use crate::config::limits::{
    MAX_LOGIN_GRACE, MAX_PENALTY_EXEMPT, MAX_PROXY_PROTOCOL, MIN_LOGIN_GRACE,
};
use crate::fence::OnStoreLoss;
use crate::model::form::{TableOnly, size, text};
use crate::model::invalid::Invalid;
use crate::model::lock::{network, with_excess_bits};
use crate::recording::RecordingSettings;
use crate::recording::limits::EXPECT_WITHIN;
use crate::recording::objects::backend::{Bucket, StorageBackend};
use crate::recording::objects::budget::Bounds;
use crate::state::DatabaseUrl;
use crate::tunnel::clones::OnClone;
use holdfast_protocol::escape::Escaped;
use ipnet::IpNet;

/// All of it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfigFile {
    pub(super) state: Option<PathBuf>,
    #[serde(default, deserialize_with = "database")]
    pub(super) database: Option<DatabaseUrl>,
    #[serde(default, deserialize_with = "ssh_address")]
    pub(super) ssh: Option<SocketAddr>,
    #[serde(default, deserialize_with = "tunnel_address")]
    pub(super) tunnel: Option<SocketAddr>,
    #[serde(default, deserialize_with = "public_host")]
    pub(super) public: Option<PublicHost>,
    #[serde(default, deserialize_with = "public_host")]
    pub(super) public_ssh: Option<PublicHost>,
    pub(super) drain_grace: Option<HumanDuration>,
    #[serde(default, deserialize_with = "login_grace")]
    pub(super) login_grace: Option<HumanDuration>,
    #[serde(default)]
    pub(super) penalty_exempt: Vec<String>,
    #[serde(default)]
    pub(super) proxy_protocol: Vec<String>,
    #[serde(default, deserialize_with = "release_key")]
    pub(super) release_key: Option<ReleaseKey>,
    #[serde(default, deserialize_with = "parsed")]
    pub(super) on_clone: OnClone,
    #[serde(default, deserialize_with = "section")]
    pub(super) cluster: ClusterFile,
    #[serde(default, deserialize_with = "health")]
    pub(super) health: Option<HealthFile>,
    #[serde(default, deserialize_with = "section")]
    pub(super) audit: AuditFile,
    #[serde(default, deserialize_with = "section")]
    pub(super) recordings: RecordingsFile,
}

/// `[recordings]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the table [recordings]")]
pub(super) struct RecordingsFile {
    expect_within: Option<HumanDuration>,
    keep: Option<Keep>,
    #[serde(default)]
    store: StoreKind,
    bucket: Option<String>,
    prefix: Option<String>,
    endpoint: Option<String>,
    region: Option<String>,
    credentials: Option<PathBuf>,
    device_max: Option<ByteSize>,
    max: Option<ByteSize>,
    min_free: Option<ByteSize>,
}

/// The kind of storage for recordings.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoreKind {
    #[default]
    Folder,
    S3,
}

impl RecordingsFile {
    pub(super) fn settings(self) -> Result<RecordingSettings, &'static str> {
        let words = [&self.bucket, &self.prefix, &self.endpoint, &self.region];
        let is_s3 = words.iter().any(|word| word.is_some()) || self.credentials.is_some();
        let place = match (self.store, self.bucket) {
            (StoreKind::Folder, _) if is_s3 => {
                return Err(
                    "[recordings]: bucket, prefix, endpoint, region and credentials need `store = \"s3\"`",
                );
            }
            (StoreKind::Folder, _) => StorageBackend::Folder,
            (StoreKind::S3, None) => {
                return Err("[recordings]: `store = \"s3\"` needs `bucket = \"NAME\"`");
            }
            (StoreKind::S3, Some(bucket)) => {
                let credentials = self.credentials.map(std::path::absolute).transpose();
                let wrong = "[recordings]: `credentials` is not a path";
                StorageBackend::S3(Bucket {
                    bucket,
                    prefix: self.prefix,
                    endpoint: self.endpoint,
                    region: self.region,
                    // Commands beside the relay may be run in any folder.
                    credentials: credentials.map_err(|_| wrong)?,
                })
            }
        };
        let defaults = Bounds::default();
        let min_free = match self.min_free {
            None => defaults.min_free,
            Some(ByteSize(Some(size))) => size,
            Some(ByteSize(None)) => {
                return Err("[recordings]: `min_free` is a size: \"0 B\" leaves nothing free");
            }
        };
        Ok(RecordingSettings {
            bounds: Bounds {
                device_max: self.device_max.map_or(defaults.device_max, |size| size.0),
                max: self.max.map_or(defaults.max, |size| size.0),
                min_free,
            },
            expect_within: self.expect_within.map_or(EXPECT_WITHIN, |text| text.0),
            keep: self.keep.and_then(|keep| keep.0),
            place,
        })
    }
}

/// `[cluster]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the table [cluster]")]
pub(super) struct ClusterFile {
    #[serde(default, deserialize_with = "parsed")]
    pub(super) on_store_loss: OnStoreLoss,
}

/// `[health]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the table [health]")]
pub(super) struct HealthFile {
    #[serde(deserialize_with = "health_address")]
    pub(super) listen: SocketAddr,
}

/// `[audit]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the table [audit]")]
pub(super) struct AuditFile {
    file: Option<String>,
    #[serde(default, deserialize_with = "parsed")]
    when_unwritable: WhenUnwritable,
    #[serde(default)]
    keep: Keep,
}

impl AuditFile {
    pub(super) fn settings(self) -> AuditSettings {
        let output = self.file.map(|file| match file.as_str() {
            "stdout" => SinkOutput::Stdout,
            _ => SinkOutput::File(file.into()),
        });
        AuditSettings {
            output,
            when_unwritable: self.when_unwritable,
            keep: self.keep.0,
        }
    }
}

/// A time to keep things: a duration, or `"forever"`.
#[derive(Debug)]
struct Keep(Option<Duration>);

impl Default for Keep {
    fn default() -> Self {
        Self(Some(DEFAULT_AUDIT_KEEP))
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = text(from, "a span, as in \"400d\", or \"forever\"")?;
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

/// A size such as `"64 GiB"`, or `"unlimited"`.
#[derive(Debug)]
struct ByteSize(Option<u64>);

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = text(from, "a size, as in \"64 GiB\", or \"unlimited\"")?;
        if text == "unlimited" {
            return Ok(Self(None));
        }
        let wanted = "expected a size like \"500 MiB\" or \"64 GiB\", or \"unlimited\"";
        size(&text)
            .map(|size| Self(Some(size)))
            .ok_or_else(|| serde::de::Error::custom(wanted))
    }
}

/// Returns the networks of `penalty_exempt`.
pub(super) fn exempt(texts: &[String]) -> Result<Vec<IpNet>, Invalid> {
    let networks = networks("penalty_exempt", texts, MAX_PENALTY_EXEMPT)?;
    let is_long = |network: &IpNet| network.network().is_ipv6() && network.prefix_len() > 64;
    match networks.iter().position(is_long).and_then(|at| texts.get(at)) {
        Some(long) => Err(format!(
            "penalty_exempt: \"{}\" is longer than a /64, and a /64 counts as one source: name the /64",
            Escaped(long)
        )
        .into()),
        None => Ok(networks),
    }
}

/// Returns the networks of `proxy_protocol`.
pub(super) fn balancers(texts: &[String]) -> Result<Vec<IpNet>, Invalid> {
    networks("proxy_protocol", texts, MAX_PROXY_PROTOCOL)
}

/// Returns the networks that a key lists.
fn networks(key: &str, texts: &[String], most: usize) -> Result<Vec<IpNet>, Invalid> {
    if texts.len() > most {
        let count = texts.len();
        return Err(format!("{key} has {count} networks; the maximum is {most}").into());
    }
    let network = |text: &String| {
        let shown = Escaped(text);
        if let Some(network) = with_excess_bits(text) {
            return Err(
                format!("{key}: \"{shown}\" has bits beyond its prefix: write {network}").into(),
            );
        }
        network(text).ok_or_else(|| {
            format!("{key}: \"{shown}\" is not an address or network such as 203.0.113.0/24").into()
        })
    };
    texts.iter().map(network).collect()
}

#[derive(Debug)]
pub(super) struct HumanDuration(pub(super) Duration);

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = text(from, "a span, as in \"15m\"")?;
        let wrong = |_| serde::de::Error::custom("expected a duration like \"5s\" or \"1m\"");
        humantime::parse_duration(&text).map(Self).map_err(wrong)
    }
}

/// Returns a time in which a client can log in, and which does not keep the place of one that never does.
fn login_grace<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<Option<HumanDuration>, D::Error> {
    let span = HumanDuration::deserialize(from)?;
    if (MIN_LOGIN_GRACE..=MAX_LOGIN_GRACE).contains(&span.0) {
        return Ok(Some(span));
    }
    let (least, most) = (MIN_LOGIN_GRACE.as_secs(), MAX_LOGIN_GRACE.as_secs());
    Err(serde::de::Error::custom(format!(
        "expected {least}s to {most}s: in less, a client cannot log in; in more, a client that never does keeps a connection slot"
    )))
}

fn database<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<DatabaseUrl>, D::Error> {
    let text = String::deserialize(from)?;
    let url = DatabaseUrl::new(&text).map_err(serde::de::Error::custom)?;
    Ok(Some(url))
}

fn ssh_address<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    address(from, SSH_EXPECTED).map(Some)
}

fn tunnel_address<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<Option<SocketAddr>, D::Error> {
    address(from, TUNNEL_EXPECTED).map(Some)
}

fn health_address<'de, D: serde::Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    address(from, HEALTH_EXPECTED)
}

fn address<'de, D: serde::Deserializer<'de>>(
    from: D,
    expected: &'static str,
) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    let parsed = text.parse();
    parsed.map_err(|_| serde::de::Error::custom(expected))
}

fn public_host<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<PublicHost>, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

fn release_key<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<ReleaseKey>, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

/// Returns a section, which is a table and no list of its values.
fn section<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(TableOnly(from))
}

fn health<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<HealthFile>, D::Error> {
    section(from).map(Some)
}

/// Returns a text with one of a few meanings.
fn parsed<'de, D: serde::Deserializer<'de>, T>(from: D) -> Result<T, D::Error>
where
    T: FromStr<Err = &'static str>,
{
    let text = String::deserialize(from)?;
    text.parse().map_err(serde::de::Error::custom)
}

/// Returns whether other accounts can read a file.
pub(super) fn is_open(path: &Path) -> bool {
    let mode = std::fs::metadata(path).map(|meta| meta.permissions().mode());
    mode.is_ok_and(|mode| mode & 0o007 != 0)
}

pub(super) fn read_file(path: &Path) -> Result<ConfigFile, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        file: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|error| ConfigError::Parse {
        file: path.to_owned(),
        problem: quoted(&text, &error),
    })
}
