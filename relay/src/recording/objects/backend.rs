//! The place where whole recordings are kept: as the configuration says it, and as the store remembers it for the
//! commands that run beside the relay.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use holdfast_protocol::escape::Escaped;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::recording::limits::{BUCKET_REQUEST, BUCKET_RETRIES, BUCKET_TIMEOUT};
use crate::store::{Store, StoreError, Tx, meta};

/// The default region of S3's buckets, which other makers' servers take for any.
const REGION: &str = "us-east-1";
/// More than three lines with keys hold.
const MAX_CREDENTIALS: u64 = 16 * 1024;

/// The storage of whole segments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "store", rename_all = "lowercase")]
pub(crate) enum StorageBackend {
    /// In the state folder.
    #[default]
    Folder,
    /// In a bucket.
    S3(Bucket),
}

/// A bucket of S3, or of a server that speaks it. Nothing in it is secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bucket {
    /// Its name.
    pub bucket: String,
    /// The prefix of the names of the objects.
    pub prefix: Option<String>,
    /// The server, if it is not Amazon's: `https://HOST[:PORT]`.
    pub endpoint: Option<String>,
    /// Amazon's region.
    pub region: Option<String>,
    /// The file with the keys; `None`: they are in the environment.
    pub credentials: Option<PathBuf>,
}

/// The reason why recordings cannot be got at.
#[derive(Debug, Error)]
pub(crate) enum StorageError {
    /// No keys.
    #[error(
        "no credentials for the recordings' bucket \"{0}\": set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file with `credentials` in the configuration's [recordings]"
    )]
    NoCredentials(String),
    /// The file with the keys cannot be read.
    #[error("cannot read the recordings' credentials {file}: {source}")]
    Read {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Anybody can read it.
    #[error("the recordings' credentials {0} can be read by other accounts: chmod 600 it")]
    Open(PathBuf),
    /// It holds something else.
    #[error(
        "the recordings' credentials {0} lack aws_access_key_id or aws_secret_access_key: the file is like ~/.aws/credentials, and its [default] counts"
    )]
    Incomplete(PathBuf),
    /// The configuration does not work.
    #[error("the recordings' store cannot be opened: {0}")]
    Settings(String),
    /// The remembered storage cannot be read.
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl StorageError {
    pub(crate) fn of(error: object_store::Error) -> Self {
        Self::Settings(Escaped(&error.to_string()).to_string())
    }
}

impl StorageBackend {
    /// Remembers it for commands that do not read the configuration.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn remember(&self, tx: &mut Tx) -> Result<(), StoreError> {
        // Texts always can be written as JSON.
        let text = serde_json::to_string(self).unwrap_or_default();
        tx.meta_set(meta::RECORDINGS, &text).await
    }

    /// Returns the reason why a relay with this storage has to be the only one of its database, if there is one.
    #[must_use]
    pub(crate) fn why_alone(&self, store: &Store) -> Option<&'static str> {
        if !store.is_shared() {
            return Some(
                "this relay's database is a file, and a cluster needs PostgreSQL: see `relay migrate`",
            );
        }
        match self {
            Self::Folder => Some(
                "this relay keeps recordings in its state folder, and a cluster needs `store = \"s3\"` in the configuration's [recordings]",
            ),
            Self::S3(_) => None,
        }
    }

    /// Returns whether both are the same place, wherever each finds its credentials.
    #[must_use]
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        let bare = |place: &Self| match place {
            Self::Folder => Self::Folder,
            Self::S3(bucket) => Self::S3(Bucket {
                credentials: None,
                ..bucket.clone()
            }),
        };
        bare(self) == bare(other)
    }

    /// Returns the storage that the relay that served last has remembered.
    ///
    /// # Errors
    /// [`StorageError`].
    pub(crate) async fn remembered(store: &Store) -> Result<Self, StorageError> {
        match store.meta_get(meta::RECORDINGS).await? {
            None => Ok(Self::Folder),
            Some(text) => serde_json::from_str(&text)
                .map_err(|_| StorageError::Store(StoreError::Corrupt("where recordings are"))),
        }
    }
}

impl Bucket {
    pub(crate) fn open(&self) -> Result<AmazonS3, StorageError> {
        let keys = self.keys()?;
        let endpoint = self.endpoint.as_deref();
        let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
        let client = ClientOptions::new()
            .with_timeout(BUCKET_REQUEST)
            .with_connect_timeout(BUCKET_REQUEST)
            .with_allow_http(plain);
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(self.bucket.as_str())
            .with_region(self.region.as_deref().unwrap_or(REGION))
            .with_access_key_id(keys.id)
            .with_secret_access_key(keys.secret)
            // Other makers' servers rarely have a name for each bucket.
            .with_virtual_hosted_style_request(endpoint.is_none())
            .with_client_options(client)
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: BUCKET_RETRIES,
                retry_timeout: BUCKET_TIMEOUT,
            });
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(token) = keys.token {
            builder = builder.with_token(token);
        }
        builder.build().map_err(StorageError::of)
    }

    fn keys(&self) -> Result<Keys, StorageError> {
        if let Some(file) = &self.credentials {
            return Keys::read(file);
        }
        let keys = Keys::of(|name| {
            let value = std::env::var(name.to_ascii_uppercase()).ok();
            value.filter(|text| !text.is_empty())
        });
        keys.ok_or_else(|| StorageError::NoCredentials(Escaped(&self.bucket).to_string()))
    }
}

/// The credentials of a bucket.
struct Keys {
    id: String,
    secret: String,
    token: Option<String>,
}

impl Keys {
    fn of(mut find: impl FnMut(&str) -> Option<String>) -> Option<Self> {
        Some(Self {
            id: find("aws_access_key_id")?,
            secret: find("aws_secret_access_key")?,
            token: find("aws_session_token"),
        })
    }

    fn read(file: &Path) -> Result<Self, StorageError> {
        let failed = |source| StorageError::Read {
            file: file.to_owned(),
            source,
        };
        let opened = fs::File::open(file).map_err(failed)?;
        let mode = opened.metadata().map_err(failed)?.permissions().mode();
        if mode & 0o007 != 0 {
            return Err(StorageError::Open(file.to_owned()));
        }
        let mut text = String::new();
        let read = opened.take(MAX_CREDENTIALS).read_to_string(&mut text);
        read.map_err(failed)?;
        Self::parse(&text).ok_or_else(|| StorageError::Incomplete(file.to_owned()))
    }

    /// Returns the form of `~/.aws/credentials`: the keys under `[default]`, or under nothing.
    fn parse(text: &str) -> Option<Self> {
        let mut counts = true;
        let mut lines = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                counts = line == "[default]";
            } else if let Some((name, value)) = line.split_once('=').filter(|_| counts) {
                lines.push((name.trim(), value.trim()));
            }
        }
        Self::of(|wanted| {
            let found = lines.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const FILE: &str = "# ours\n[other]\naws_access_key_id = NO\n[default]\naws_access_key_id = AKID\n aws_secret_access_key=a=b/c\n";

    #[test]
    fn credentials_are_like_those_of_other_programs() {
        let keys = Keys::parse(FILE).unwrap();
        assert_eq!((keys.id.as_str(), keys.secret.as_str()), ("AKID", "a=b/c"));
        assert_eq!(keys.token, None);
        let bare = "aws_access_key_id=A\naws_secret_access_key=B\naws_session_token=C\n";
        assert_eq!(Keys::parse(bare).unwrap().token.as_deref(), Some("C"));
        assert!(Keys::parse("aws_access_key_id = A\n").is_none());
        assert!(Keys::parse("[other]\naws_access_key_id=A\naws_secret_access_key=B").is_none());
    }

    #[test]
    fn a_file_that_everybody_can_read_is_refused() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(FILE.as_bytes()).unwrap();
        assert!(Keys::read(file.path()).is_ok());
        let open = fs::Permissions::from_mode(0o644);
        fs::set_permissions(file.path(), open).unwrap();
        let error = Keys::read(file.path()).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        assert!(!error.contains("a=b/c"), "{error}");
    }

    #[test]
    fn nothing_secret_is_shown() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(FILE.as_bytes()).unwrap();
        let place = StorageBackend::S3(Bucket {
            bucket: "b".to_owned(),
            endpoint: Some("http://127.0.0.1:1".to_owned()),
            credentials: Some(file.path().to_owned()),
            ..Bucket::default()
        });
        let folder = tempfile::tempdir().unwrap();
        let objects = crate::recording::objects::Objects::new(folder.path().to_owned(), &place);
        let shown = format!("{:?} {place:?} {:?}", objects.unwrap(), Keys::parse(FILE));
        assert!(
            !shown.contains("a=b/c") && !shown.contains("AKID"),
            "{shown}"
        );
    }
}
