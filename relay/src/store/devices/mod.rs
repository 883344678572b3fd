//! Devices: who is enrolled, and whether they can be reached.

pub(crate) mod changes;
pub(crate) mod enrol;
pub(crate) mod labels;
pub(crate) mod tokens;
pub(crate) mod tunnels;

use std::collections::HashMap;
use std::time::Duration;

use holdfast_protocol::ids::{DeviceId, DeviceName, NameError, PublicKey};
use holdfast_protocol::limits::STALE_KEEPALIVES;
use sqlx::{ColumnIndex, Decode, FromRow, Type};

use super::{RELAY_HEARTBEAT_STALE, Store, StoreError, Tx};
use crate::clock::Timestamp;
use crate::model::device::{ClonePair, ClonedDevice, Device, Presence, PresenceState};
use crate::store::backend::sql;

/// One select for all look-ups; `concat!` keeps each query a constant.
macro_rules! select_device {
    ($tail:literal) => {
        concat!(
            "SELECT d.id, d.public_key, d.name, d.labels, d.enrolled, d.agent_version, d.target,
                d.token, d.cloned, d.cloned_first, d.cloned_second, d.revoked, t.closed, t.last_heard, t.keepalive_secs, t.address, r.heartbeat
            FROM devices d
            LEFT JOIN tunnels t ON t.device = d.id
            LEFT JOIN relays r ON r.id = t.relay AND r.stopped IS NULL ",
            $tail
        )
    };
}

/// One select of a device with the version of access, which is there even if the device is not.
macro_rules! select_device_at_version {
    ($tail:literal) => {
        concat!(
            "SELECT v.version, q.* FROM
                (SELECT CAST(value AS BIGINT) AS version FROM meta WHERE key = 'access_version') v
            LEFT JOIN (",
            select_device!($tail),
            ") q ON TRUE"
        )
    };
}

const ALL: &str = select_device!("ORDER BY d.name, d.revoked NULLS FIRST");
// The one that has the name now, or else the last that had it.
const BY_NAME: &str =
    select_device!("WHERE d.name = $1 ORDER BY d.revoked IS NOT NULL, d.revoked DESC LIMIT 1");
const BY_NAME_AT_VERSION: &str = select_device_at_version!(
    "WHERE d.name = $1 ORDER BY d.revoked IS NOT NULL, d.revoked DESC LIMIT 1"
);
const BY_ID_AT_VERSION: &str = select_device_at_version!("WHERE d.id = $1");
const BY_KEY: &str = select_device!("WHERE d.public_key = $1");
const BY_ID: &str = select_device!("WHERE d.id = $1");
const HOLDER: &str = "SELECT id FROM devices WHERE name = $1 AND revoked IS NULL";
const NAME_NOW: &str = "SELECT name, revoked IS NOT NULL FROM devices WHERE id = $1";
const NAMES: &str = "SELECT id, name FROM devices WHERE revoked IS NULL";
const REVOKED: &str = "SELECT id FROM devices WHERE revoked IS NOT NULL";

impl Store {
    /// Returns all devices by name, the revoked ones too, with their presence at `now`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn devices(&self, now: Timestamp) -> Result<Vec<Device>, StoreError> {
        let rows: Vec<Row> = sql::query_as(ALL).fetch_all(self.reads()).await?;
        rows.into_iter().map(|row| row.device(now)).collect()
    }

    /// Returns the device of that identifier, or else of that name. If none has the name now but one had it when it
    /// was revoked, that one: so look at [`Device::revoked`]. The identifier comes first, because the relay chose it
    /// and a device may choose its name.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn device_named(
        &self,
        name: &DeviceName,
    ) -> Result<Option<Device>, StoreError> {
        if let Some(id) = DeviceId::from_hex(name.as_str())
            && let Some(device) = self.device(id).await?
        {
            return Ok(Some(device));
        }
        let row = sql::query_as(BY_NAME).bind(name.as_str());
        let row: Option<Row> = row.fetch_optional(self.reads()).await?;
        row.map(|row| row.device(Timestamp::now())).transpose()
    }

    /// Returns the device that a text from outside names, as [`Self::device_named`] does: of what cannot be a name,
    /// none.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn device_of(&self, text: &str) -> Result<Option<Device>, StoreError> {
        match named_device(text) {
            Ok(name) => self.device_named(&name).await,
            Err(_) => Ok(None),
        }
    }

    /// Returns the version of access and, of the same moment, the device of that identifier or name, as
    /// [`Self::device_named`] does.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn device_named_at_version(
        &self,
        name: &DeviceName,
    ) -> Result<(i64, Option<Device>), StoreError> {
        if let Some(id) = DeviceId::from_hex(name.as_str())
            && let (version, Some(device)) = self.device_at_version(id).await?
        {
            return Ok((version, Some(device)));
        }
        let row = sql::query_as(BY_NAME_AT_VERSION).bind(name.as_str());
        at_version(row.fetch_one(self.reads()).await?)
    }

    /// Returns the version of access and, of the same moment, the device of that identifier, revoked or not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn device_at_version(
        &self,
        id: DeviceId,
    ) -> Result<(i64, Option<Device>), StoreError> {
        let row = sql::query_as(BY_ID_AT_VERSION).bind(id.0.as_slice());
        at_version(row.fetch_one(self.reads()).await?)
    }

    /// Returns the device with that key, revoked or not.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn device_by_key(
        &self,
        key: &PublicKey,
    ) -> Result<Option<Device>, StoreError> {
        let row = sql::query_as(BY_KEY).bind(key.0.as_slice());
        let row: Option<Row> = row.fetch_optional(self.reads()).await?;
        row.map(|row| row.device(Timestamp::now())).transpose()
    }

    /// Returns the device of that identifier, revoked or not.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn device(&self, id: DeviceId) -> Result<Option<Device>, StoreError> {
        let row = sql::query_as(BY_ID).bind(id.0.as_slice());
        let row: Option<Row> = row.fetch_optional(self.reads()).await?;
        row.map(|row| row.device(Timestamp::now())).transpose()
    }

    /// Returns the identifiers of all revoked devices: for a relay that looks whether it still has a tunnel of
    /// one of them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn revoked_devices(&self) -> Result<Vec<DeviceId>, StoreError> {
        let ids: Vec<Vec<u8>> = sql::query_scalar(REVOKED).fetch_all(self.reads()).await?;
        ids.iter().map(|id| device_id(id)).collect()
    }

    /// Returns the names of all devices that are not revoked.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn device_names(&self) -> Result<HashMap<DeviceId, DeviceName>, StoreError> {
        let rows: Vec<(Vec<u8>, String)> = sql::query_as(NAMES).fetch_all(self.reads()).await?;
        let read = |(id, name): (Vec<u8>, String)| Ok((device_id(&id)?, device_name(&name)?));
        rows.into_iter().map(read).collect()
    }
}

fn at_version(row: AtVersion) -> Result<(i64, Option<Device>), StoreError> {
    let device = row.device.map(|row| row.device(Timestamp::now()));
    Ok((row.version, device.transpose()?))
}

/// Returns what a text names a device by: its name, or its identifier. That may be typed in capitals, as no name is.
///
/// # Errors
/// [`NameError`]: it can be neither.
pub(crate) fn named_device(text: &str) -> Result<DeviceName, NameError> {
    let id = DeviceId::from_hex(text).map(|id| id.to_string());
    DeviceName::new(id.as_deref().unwrap_or(text))
}

/// Returns the device that a name is taken by: the one that has it now, or the one, revoked or not, of which it is the
/// identifier.
pub(super) async fn taken_by(
    tx: &mut Tx,
    name: &DeviceName,
) -> Result<Option<DeviceId>, StoreError> {
    if let Some(holder) = holder(tx, name).await? {
        return Ok(Some(holder));
    }
    let Some(id) = DeviceId::from_hex(name.as_str()) else {
        return Ok(None);
    };
    let found = sql::query_as(NAME_NOW).bind(id.0.as_slice());
    let found: Option<(String, bool)> = found.fetch_optional(&mut *tx.connection().await?).await?;
    Ok(found.map(|_| id))
}

/// Returns the device that has a name now.
async fn holder(tx: &mut Tx, name: &DeviceName) -> Result<Option<DeviceId>, StoreError> {
    let id = sql::query_scalar(HOLDER).bind(name.as_str());
    let id: Option<Vec<u8>> = id.fetch_optional(&mut *tx.connection().await?).await?;
    id.map(|id| device_id(&id)).transpose()
}

/// Returns the device that has this identifier, or else this name, with the name that it has now; `None` if it is
/// revoked. A revoked device's identifier is the name of no other.
pub(super) async fn named_now(
    tx: &mut Tx,
    name: &DeviceName,
) -> Result<Option<(DeviceId, DeviceName)>, StoreError> {
    if let Some(id) = DeviceId::from_hex(name.as_str()) {
        let found = sql::query_as(NAME_NOW).bind(id.0.as_slice());
        let found: Option<(String, bool)> =
            found.fetch_optional(&mut *tx.connection().await?).await?;
        match found {
            Some((_, true)) => return Ok(None),
            Some((name, false)) => return Ok(Some((id, device_name(&name)?))),
            None => {}
        }
    }
    let id = holder(tx, name).await?;
    Ok(id.map(|id| (id, name.clone())))
}

/// Returns the device with a key, inside a transaction.
pub(super) async fn by_key(
    tx: &mut Tx,
    key: &PublicKey,
    now: Timestamp,
) -> Result<Option<Device>, StoreError> {
    let row = sql::query_as(BY_KEY).bind(key.0.as_slice());
    let row: Option<Row> = row.fetch_optional(&mut *tx.connection().await?).await?;
    row.map(|row| row.device(now)).transpose()
}

fn device_id(column: &[u8]) -> Result<DeviceId, StoreError> {
    let exact = column.try_into();
    exact
        .map(DeviceId)
        .map_err(|_| StoreError::Corrupt("a device's identifier"))
}

fn device_name(column: &str) -> Result<DeviceName, StoreError> {
    DeviceName::new(column).map_err(|_| StoreError::Corrupt("a device's name"))
}

/// The version of access, and a device if there is one.
struct AtVersion {
    version: i64,
    device: Option<Row>,
}

impl<'r, R: sqlx::Row> FromRow<'r, R> for AtVersion
where
    Row: FromRow<'r, R>,
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    Option<Vec<u8>>: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let is_found = row.try_get::<Option<Vec<u8>>, _>("id")?.is_some();
        Ok(Self {
            version: row.try_get("version")?,
            device: is_found.then(|| Row::from_row(row)).transpose()?,
        })
    }
}

/// A device as it is in the tables.
#[derive(sqlx::FromRow)]
struct Row {
    id: Vec<u8>,
    public_key: Vec<u8>,
    name: String,
    labels: String,
    enrolled: i64,
    agent_version: String,
    target: String,
    token: Option<String>,
    cloned: Option<i64>,
    cloned_first: Option<String>,
    cloned_second: Option<String>,
    revoked: Option<i64>,
    closed: Option<i64>,
    last_heard: Option<i64>,
    keepalive_secs: Option<i64>,
    address: Option<String>,
    heartbeat: Option<i64>,
}

impl Row {
    fn device(self, now: Timestamp) -> Result<Device, StoreError> {
        let corrupt = || StoreError::Corrupt("a device");
        Ok(Device {
            id: device_id(&self.id)?,
            name: DeviceName::new(&self.name).map_err(|_| corrupt())?,
            key: PublicKey(
                self.public_key
                    .as_slice()
                    .try_into()
                    .map_err(|_| corrupt())?,
            ),
            labels: labels::from_column(&self.labels)?,
            cloned: self.cloned(),
            enrolled: Timestamp(self.enrolled),
            presence: self.presence(now),
            agent_version: self.agent_version,
            target: self.target,
            token: self.token,
            revoked: self.revoked.map(Timestamp),
        })
    }

    fn cloned(&self) -> Option<ClonedDevice> {
        let address = |column: &Option<String>| column.as_deref()?.parse().ok();
        Some(ClonedDevice {
            seen: Timestamp(self.cloned?),
            pair: ClonePair {
                first: address(&self.cloned_first)?,
                second: address(&self.cloned_second)?,
            },
        })
    }

    fn presence(&self, now: Timestamp) -> Presence {
        let last_seen = self.last_heard.map(Timestamp);
        let silent = now.since(last_seen.unwrap_or(now));
        let beat = self.heartbeat.map(Timestamp);
        let relay_lives = beat.is_some_and(|beat| now.since(beat) < RELAY_HEARTBEAT_STALE);
        let keepalive = u64::try_from(self.keepalive_secs.unwrap_or(0)).unwrap_or(0);
        let stale_after = Duration::from_secs(keepalive).saturating_mul(STALE_KEEPALIVES);
        let (state, since) = match (last_seen, self.closed) {
            (None, _) => (PresenceState::Offline, None),
            (Some(_), Some(closed)) => (PresenceState::Offline, Some(Timestamp(closed))),
            // Its relay died: it was reachable for as long as that lived, or was heard on its tunnel.
            (Some(_), None) if !relay_lives => (PresenceState::Offline, last_seen.max(beat)),
            (Some(_), None) if silent > stale_after => (PresenceState::Stale, None),
            (Some(_), None) => (PresenceState::Online, None),
        };
        Presence {
            state,
            since,
            last_seen,
            address: self.address.as_deref().and_then(|text| text.parse().ok()),
        }
    }
}
