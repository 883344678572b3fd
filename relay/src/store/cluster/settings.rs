//! The settings that all relays of a cluster have to have alike. Each notes its own when it begins to serve: what acts on
//! the common state, as the time that recordings are kept, would otherwise be that of whichever relay acts first.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::store::{MemberId, Store, StoreError, Tx, meta};

/// The settings of one relay: texts by their keys in the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct SharedSettings(pub(crate) BTreeMap<String, String>);

impl Tx {
    /// Notes the settings of a member that begins to serve.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn note_settings(
        &mut self,
        member: MemberId,
        settings: &SharedSettings,
    ) -> Result<(), StoreError> {
        let text = crate::json::compact(settings);
        self.meta_set(&meta::of_member(meta::SETTINGS, member), &text)
            .await
    }
}

impl Store {
    /// Returns the settings in which the present members differ, each in words: `on_clone is first on a and newest on b`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn unlike_settings(&self) -> Result<Vec<String>, StoreError> {
        let mut noted = Vec::new();
        for member in self.members().await? {
            if !member.is_present() {
                continue;
            }
            let text = self
                .meta_get(&meta::of_member(meta::SETTINGS, member.id))
                .await?;
            // One that has not served since it notes them says nothing.
            let Some(text) = text else { continue };
            let settings: SharedSettings = serde_json::from_str(&text)
                .map_err(|_| StoreError::Corrupt("the settings of a relay"))?;
            noted.push((member.name, settings));
        }
        Ok(unlike(&noted))
    }
}

/// Returns the settings that are not the same on all.
fn unlike(noted: &[(String, SharedSettings)]) -> Vec<String> {
    let keys: BTreeSet<&String> = noted
        .iter()
        .flat_map(|(_, settings)| settings.0.keys())
        .collect();
    let differs = |key: &&String| {
        // A relay of another version may not know it.
        let known = noted
            .iter()
            .filter_map(|(name, settings)| Some((name, settings.0.get(*key)?)));
        let known: Vec<_> = known.collect();
        let values: BTreeSet<_> = known.iter().map(|(_, value)| *value).collect();
        (values.len() > 1).then(|| {
            let each = known
                .iter()
                .map(|(name, value)| format!("{value} on {name}"));
            format!("`{key}` is {}", each.collect::<Vec<_>>().join(" and "))
        })
    };
    keys.iter().filter_map(differs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_differ_are_named_with_the_relays() {
        let settings = |pairs: &[(&str, &str)]| {
            let owned = pairs
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()));
            SharedSettings(owned.collect())
        };
        let noted = [
            (
                "a".to_owned(),
                settings(&[("keep", "90days"), ("max", "1 B")]),
            ),
            (
                "b".to_owned(),
                settings(&[("keep", "forever"), ("max", "1 B"), ("new", "x")]),
            ),
            (
                "c".to_owned(),
                settings(&[("keep", "90days"), ("max", "1 B")]),
            ),
        ];
        let expected = ["`keep` is 90days on a and forever on b and 90days on c"];
        assert_eq!(unlike(&noted), expected);
        assert!(unlike(&noted[..1]).is_empty());
    }
}
