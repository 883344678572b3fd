//! Labels of devices and tokens.

use std::collections::BTreeMap;

use holdfast_protocol::ids::{LabelKey, LabelValue};

/// The labels of a device or a token, in the order of their keys.
pub(crate) type Labels = BTreeMap<LabelKey, LabelValue>;
