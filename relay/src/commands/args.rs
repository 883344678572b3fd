//! What arguments have in common: labels and spans of time.

use std::str::FromStr;
use std::time::Duration;

use holdfast_protocol::ids::{LabelKey, LabelValue};

/// Longest life of a token: longer ones are forgotten, not used.
const MAX_TTL: Duration = Duration::from_secs(366 * 86_400);

/// `KEY=VALUE`.
#[derive(Clone, Debug)]
pub(super) struct Label(pub LabelKey, pub LabelValue);

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse()? {
            LabelChange(key, Some(value)) => Ok(Self(key, value)),
            LabelChange(..) => Err("a label value must not be empty".to_owned()),
        }
    }
}

/// `KEY=VALUE` sets a label, `KEY=` removes it.
#[derive(Clone, Debug)]
pub(super) struct LabelChange(pub LabelKey, pub Option<LabelValue>);

impl FromStr for LabelChange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text
            .split_once('=')
            .ok_or("expected KEY=VALUE, as in role=camera")?;
        let key = LabelKey::new(key).map_err(|error| error.to_string())?;
        if value.is_empty() {
            return Ok(Self(key, None));
        }
        let value = LabelValue::new(value).map_err(|error| error.to_string())?;
        Ok(Self(key, Some(value)))
    }
}

/// A span of time such as `30s`, `10m`, `1h`, `7d`.
pub(super) fn ttl(text: &str) -> Result<Duration, String> {
    let expected = || "expected a span of time such as 30s, 10m, 1h or 7d".to_owned();
    let span = humantime::parse_duration(text).map_err(|_| expected())?;
    if span < Duration::from_secs(1) || span > MAX_TTL {
        return Err("must be from 1s to 366d".to_owned());
    }
    Ok(span)
}
