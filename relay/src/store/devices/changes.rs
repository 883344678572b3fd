//! Changes of devices that are enrolled: their names, their labels, and the end of trust in them.

use holdfast_protocol::ids::{DeviceId, DeviceName, LabelKey, LabelValue};
use holdfast_protocol::limits::MAX_LABELS;
use thiserror::Error;

use super::{labels, named_now, taken_by, tokens};
use crate::clock::Timestamp;
use crate::store::backend::sql;
use crate::store::meta::AccessPart;
use crate::store::{Labels, StoreError, TokenLeft, Tx};

/// The reason why a device was not renamed.
#[derive(Debug, Error)]
pub(crate) enum RenameError {
    /// There is no such device.
    #[error("no device \"{0}\": see `devices`")]
    Unknown(DeviceName),
    /// Another device has the new name, or it is the identifier of one.
    #[error("name \"{name}\" is taken by device {holder}: choose another, or revoke that one")]
    Taken {
        /// The new name.
        name: DeviceName,
        /// The device that has it.
        holder: DeviceId,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The reason why labels were not changed.
#[derive(Debug, Error)]
pub(crate) enum LabelError {
    /// There is no such device.
    #[error("no device \"{0}\": see `devices`")]
    Unknown(DeviceName),
    /// There would be too many.
    #[error("\"{0}\" would have {1} labels; the maximum is {MAX_LABELS}: remove some with KEY=")]
    TooMany(DeviceName, usize),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A device that was revoked just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RevokedDevice {
    /// Its identifier.
    pub id: DeviceId,
    /// The name that it had.
    pub name: DeviceName,
    /// The token that it enrolled with, if others could still enrol with it when the device was revoked.
    pub token: Option<TokenLeft>,
}

/// The reason why a device was not revoked.
#[derive(Debug, Error)]
pub(crate) enum RevokeError {
    /// There is no such device.
    #[error("no device \"{0}\": see `devices`")]
    Unknown(DeviceName),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

const RENAME: &str = "UPDATE devices SET name = $2 WHERE id = $1";
const LABEL: &str = "UPDATE devices SET labels = $2 WHERE id = $1";
const LABELS: &str = "SELECT labels FROM devices WHERE id = $1";
const REVOKE: &str = "UPDATE devices SET revoked = $2 WHERE id = $1";
const CLOSE: &str = "UPDATE tunnels SET closed = $2 WHERE device = $1 AND closed IS NULL";

impl Tx {
    /// Gives a device, which is named by its present name or its identifier, another name.
    ///
    /// # Errors
    /// [`RenameError`].
    pub(crate) async fn rename_device(
        &mut self,
        old: &DeviceName,
        new: &DeviceName,
    ) -> Result<(), RenameError> {
        let Some((id, old)) = named_now(self, old).await? else {
            return Err(RenameError::Unknown(old.clone()));
        };
        match taken_by(self, new).await? {
            Some(same) if same == id && old == *new => {
                self.unchanged();
                return Ok(());
            }
            Some(holder) if holder != id => {
                let name = new.clone();
                return Err(RenameError::Taken { name, holder });
            }
            // Its own identifier is no other device's.
            Some(_) | None => {}
        }
        self.about(id, &old);
        let rename = sql::query(RENAME).bind(id.0.as_slice()).bind(new.as_str());
        rename.execute(&mut *self.connection().await?).await?;
        self.access_changed(AccessPart::Other).await?;
        Ok(())
    }

    /// Sets labels of a device and removes others (`None`). Gives what it has afterwards.
    ///
    /// # Errors
    /// [`LabelError`].
    pub(crate) async fn label_device(
        &mut self,
        name: &DeviceName,
        changes: &[(LabelKey, Option<LabelValue>)],
    ) -> Result<Labels, LabelError> {
        let Some((id, name)) = named_now(self, name).await? else {
            return Err(LabelError::Unknown(name.clone()));
        };
        let column = sql::query_scalar(LABELS).bind(id.0.as_slice());
        let column: String = column.fetch_one(&mut *self.connection().await?).await?;
        let mut labels = labels::from_column(&column)?;
        for (key, value) in changes {
            match value {
                Some(value) => labels.insert(key.clone(), value.clone()),
                None => labels.remove(key),
            };
        }
        if labels.len() > MAX_LABELS {
            return Err(LabelError::TooMany(name, labels.len()));
        }
        let column = labels::to_column(&labels);
        self.about(id, &name);
        let set = sql::query(LABEL).bind(id.0.as_slice()).bind(column);
        set.execute(&mut *self.connection().await?).await?;
        self.access_changed(AccessPart::Other).await?;
        Ok(labels)
    }

    /// Ends trust in a device's key for ever and frees its name. What is left of the token that it enrolled with is
    /// given back, and with `end_token` it is removed in the same transaction.
    ///
    /// # Errors
    /// [`RevokeError`].
    pub(crate) async fn revoke_device(
        &mut self,
        name: &DeviceName,
        now: Timestamp,
        end_token: bool,
    ) -> Result<RevokedDevice, RevokeError> {
        let Some((id, name)) = named_now(self, name).await? else {
            return Err(RevokeError::Unknown(name.clone()));
        };
        self.about(id, &name);
        for sql in [REVOKE, CLOSE] {
            let query = sql::query(sql).bind(id.0.as_slice()).bind(now.0);
            query.execute(&mut *self.connection().await?).await?;
        }
        let token = tokens::left_of(self, id, now).await?;
        if let Some(token) = &token {
            self.fact("token", token.id.as_str());
            self.fact("token_uses_left", token.uses_left);
            self.fact("token_removed", end_token);
            if end_token {
                tokens::remove(self, &token.id).await?;
            }
        }
        self.access_changed(AccessPart::Other).await?;
        Ok(RevokedDevice { id, name, token })
    }
}
