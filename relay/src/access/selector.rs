//! A selection of devices on one line: `role=camera,site!=berlin`. What it says is a [`LabelRule`], as
//! the labels of a role's rule are; it picks, and allows nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::ids::LabelKey;

use crate::model::form::pattern;
use crate::model::invalid::Invalid;
use crate::model::labels::Labels;
use crate::model::limits::{MAX_RULE_LABELS, MAX_RULE_VALUES};
use crate::model::role::rule::{LabelRule, ValueRule};

/// The selector of any device.
const ANY: &str = "*";

const EXPECTED: &str = "expected labels such as role=camera,site!=berlin, or * for every device";

/// Picks devices by their labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    text: String,
    rule: LabelRule,
}

impl Selector {
    /// Returns whether a device with these labels is meant.
    #[must_use]
    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        self.rule.matches(labels)
    }
}

impl FromStr for Selector {
    type Err = Invalid;

    /// Returns `KEY=VALUE`, `KEY!=VALUE` and `KEY=*`, with commas between them; all must hold. Of a key that is given
    /// more than once, one of the plain values must, as in a role's list. `*` alone is every device.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut rule = LabelRule::any();
        if text != ANY {
            for part in text.split(',') {
                add(&mut rule.0, part)?;
            }
        }
        Ok(Self {
            text: text.to_owned(),
            rule,
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn add(rules: &mut BTreeMap<LabelKey, ValueRule>, part: &str) -> Result<(), Invalid> {
    let wrong = |why: &str| Invalid::from(format!("\"{}\": {why}", Escaped(part)));
    let (key, value) = part.split_once('=').ok_or_else(|| wrong(EXPECTED))?;
    // A role writes `env = "!=lab"`; on a line, `env!=lab` is what people type. Both are understood.
    let (key, value) = match key.strip_suffix('!') {
        Some(key) => (key, format!("!={value}")),
        None => (key, value.to_owned()),
    };
    let key = LabelKey::new(key).map_err(|error| wrong(&error.to_string()))?;
    let pattern = pattern(&value)?;
    let full = rules.len() >= MAX_RULE_LABELS && !rules.contains_key(&key);
    let values = rules.entry(key).or_default();
    if full || values.0.len() >= MAX_RULE_VALUES {
        return Err(wrong(&format!(
            "too many labels or values; the maximum is {MAX_RULE_LABELS} labels with {MAX_RULE_VALUES} values each"
        )));
    }
    values.0.push(pattern);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_protocol::ids::LabelValue;

    fn labels(text: &str) -> Labels {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(key, value)| (LabelKey::new(key).unwrap(), LabelValue::new(value).unwrap()))
            .collect()
    }

    #[test]
    fn it_means_what_the_same_labels_mean_in_a_role() {
        // Selector, labels of a device, whether it is meant.
        let table = [
            ("*", "", true),
            ("role=camera", "role=camera", true),
            ("role=camera", "role=sensor", false),
            ("role=camera", "", false),
            ("role=camera,site=berlin", "role=camera,site=berlin", true),
            ("role=camera,site=berlin", "role=camera", false),
            ("site!=berlin", "site=paris", true),
            ("site!=berlin", "", true),
            ("site!=berlin", "site=berlin", false),
            ("site=!=berlin", "site=berlin", false),
            ("site=*", "site=x", true),
            ("site=*", "", false),
            ("site=*,site!=lab", "site=lab", false),
            ("site=berlin,site=paris", "site=paris", true),
            ("site=berlin,site=paris", "site=rome", false),
            ("addr=a:b/c", "addr=a:b/c", true),
        ];
        for (text, device, expected) in table {
            let selector: Selector = text.parse().unwrap();
            assert_eq!(
                selector.matches(&labels(device)),
                expected,
                "{text} {device}"
            );
            assert_eq!(selector.to_string(), text);
        }
    }

    #[test]
    fn a_slip_of_the_pen_picks_nothing() {
        for bad in [
            "",
            ",",
            "role",
            "role=",
            "role=camera,",
            "=camera",
            "!=camera",
            "*=*",
            "role!camera",
            "role==camera",
            "role=a b",
            "role=\u{1b}[2J",
        ] {
            let said = bad.parse::<Selector>().unwrap_err().to_string();
            assert!(
                !said.is_empty() && !said.contains('\u{1b}'),
                "{bad}: {said}"
            );
        }
        let many: Vec<String> = (0..=MAX_RULE_LABELS).map(|n| format!("k{n}=v")).collect();
        assert!(many.join(",").parse::<Selector>().is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text: String, like in "[a-c=!*,]{0,16}") {
            let _ = text.parse::<Selector>();
            let _ = like.parse::<Selector>();
        }
    }
}
