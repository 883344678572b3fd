//! Labels as a column: a JSON object, always read and written whole.

use std::collections::BTreeMap;

use holdfast_protocol::ids::{LabelKey, LabelValue};

use crate::model::labels::Labels;
use crate::store::StoreError;

pub(crate) fn to_column(labels: &Labels) -> String {
    let text: BTreeMap<&str, &str> = labels
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    // A map of texts always encodes.
    serde_json::to_string(&text).unwrap_or_default()
}

pub(crate) fn from_column(column: &str) -> Result<Labels, StoreError> {
    let corrupt = StoreError::Corrupt("a label");
    let Ok(text) = serde_json::from_str::<BTreeMap<String, String>>(column) else {
        return Err(corrupt);
    };
    let label = |(key, value): (&String, &String)| {
        Some((LabelKey::new(key).ok()?, LabelValue::new(value).ok()?))
    };
    text.iter().map(label).collect::<Option<_>>().ok_or(corrupt)
}
