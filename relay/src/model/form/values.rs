//! The single values of a role, each read with a sentence that says what was expected.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::ids::{LabelKey, LabelValue, Login};
use ipnet::IpNet;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, Expected, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::written::text;
use crate::model::invalid::Invalid;
use crate::model::limits::{
    MAX_IDLE_TIMEOUT, MAX_MAX_SESSION, MAX_RULE_LABELS, MAX_RULE_VALUES, MIN_IDLE_TIMEOUT,
    MIN_MAX_SESSION,
};
use crate::model::role::rule::{LabelRule, LoginRule, ValuePattern, ValueRule};
use crate::model::role::{
    Ability, ContentBound, IdleTimeout, MaxSession, OnDisconnect, RecordingMode, RoleName,
    StdinMode,
};

/// Any key, or any value.
const ANY: &str = "*";
const NOT: &str = "!=";
const USER: &str = "{user}";
const NEVER: &str = "never";
const UNLIMITED: &str = "unlimited";

/// Sizes by their unit.
const UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// A text that is parsed on its way in and shown on its way out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FormText<T>(pub T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for FormText<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        // The sentences of names do not repeat the text.
        let wrong = |error| D::Error::custom(format!("\"{}\": {error}", Escaped(&text)));
        text.parse().map(Self).map_err(wrong)
    }
}

impl<T: fmt::Display> Serialize for FormText<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

/// Types whose form is one text: how it is read, and written.
macro_rules! by_text {
    ($($type:ty, $expected:literal: $read:expr, $write:expr;)+) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let read: fn(&str) -> Result<Self, Invalid> = $read;
                read(&text(from, $expected)?).map_err(D::Error::custom)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let write: fn(&Self) -> String = $write;
                to.serialize_str(&write(self))
            }
        }
    )+};
}

by_text! {
    IdleTimeout, "a span, as in \"15m\", or \"never\"": idle, |idle| match idle {
        Self::Never => NEVER.to_owned(),
        Self::After(after) => humantime::format_duration(*after).to_string().replace(' ', ""),
    };
    MaxSession, "a span, as in \"8h\"": longest, |longest| humantime::format_duration(longest.0).to_string().replace(' ', "");
    OnDisconnect, "a string": |word| Self::from_word(word).ok_or_else(|| expected(word, Self::WORDS)),
        |what| what.as_str().to_owned();
    RecordingMode, "a string": |word| Self::from_word(word).ok_or_else(|| expected(word, Self::WORDS)),
        |mode| mode.as_str().to_owned();
    StdinMode, "a string": |word| Self::from_word(word).ok_or_else(|| expected(word, Self::WORDS)),
        |mode| mode.as_str().to_owned();
    ContentBound, "a size, as in \"16 MiB\", or \"unlimited\"": content, |bound| match bound {
        Self::Bytes(bytes) => size_text(*bytes),
        Self::Unlimited => UNLIMITED.to_owned(),
    };
    Ability, "a string": ability, |ability| ability.as_str().to_owned();
    LoginRule, "a string": login, |login| match login {
        Self::Any => ANY.to_owned(),
        Self::User => USER.to_owned(),
        Self::Exact(login) => login.to_string(),
    };
    ValuePattern, "a string": value, |pattern| match pattern {
        Self::Any => ANY.to_owned(),
        Self::Exact(value) => value.to_string(),
        Self::Not(value) => format!("{NOT}{value}"),
    };
    RoleName, "a string": |text| Self::new(text).map_err(|error| format!("\"{}\": {error}", Escaped(text)).into()),
        ToString::to_string;
}

fn expected(found: &str, words: &[&str]) -> Invalid {
    format!("\"{}\": expected {}", Escaped(found), words.join(", ")).into()
}

fn idle(text: &str) -> Result<IdleTimeout, Invalid> {
    if text == NEVER {
        return Ok(IdleTimeout::Never);
    }
    let wrong = || {
        format!(
            "\"{}\": expected a span like \"15m\", or \"{NEVER}\"",
            Escaped(text)
        )
    };
    let span = humantime::parse_duration(text).map_err(|_| wrong())?;
    if span < MIN_IDLE_TIMEOUT || span > MAX_IDLE_TIMEOUT {
        return Err(format!(
            "\"{}\": an idle timeout is from 1s to 366d, or \"{NEVER}\"",
            Escaped(text)
        )
        .into());
    }
    Ok(IdleTimeout::After(whole_millis(span)))
}

fn longest(text: &str) -> Result<MaxSession, Invalid> {
    let span = humantime::parse_duration(text).map_err(|_| {
        format!(
            "\"{}\": expected a span like \"8h\"; leave it out for no limit",
            Escaped(text)
        )
    })?;
    if span < MIN_MAX_SESSION || span > MAX_MAX_SESSION {
        return Err(format!(
            "\"{}\": a session's longest duration is from 1s to 366d; leave it out for no limit",
            Escaped(text)
        )
        .into());
    }
    Ok(MaxSession(whole_millis(span)))
}

fn content(text: &str) -> Result<ContentBound, Invalid> {
    if text == UNLIMITED {
        return Ok(ContentBound::Unlimited);
    }
    let bytes = size(text).ok_or_else(|| {
        format!(
            "\"{}\": expected a size like \"16 MiB\", or \"{UNLIMITED}\"",
            Escaped(text)
        )
    })?;
    Ok(ContentBound::Bytes(bytes))
}

/// Reads a size such as `16 MiB`; `None` if it is none, or too large to count.
#[must_use]
pub(crate) fn size(text: &str) -> Option<u64> {
    UNITS.iter().find_map(|(unit, bytes)| {
        let number = text.strip_suffix(unit)?.trim_end();
        number.parse::<u64>().ok()?.checked_mul(*bytes)
    })
}

/// Returns the size in its greatest unit that needs no fraction.
fn size_text(bytes: u64) -> String {
    let whole = |(_, unit): &&(&str, u64)| bytes > 0 && bytes.is_multiple_of(*unit);
    let (unit, of) = UNITS.iter().find(whole).unwrap_or(&("B", 1));
    format!("{} {unit}", bytes / of)
}

/// Rounds to whole milliseconds: what is shown is what applies.
fn whole_millis(span: Duration) -> Duration {
    Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

fn ability(word: &str) -> Result<Ability, Invalid> {
    let found = Ability::ALL.into_iter().find(|one| one.as_str() == word);
    found.ok_or_else(|| expected(word, &Ability::OFFERED.map(Ability::as_str)))
}

fn login(text: &str) -> Result<LoginRule, Invalid> {
    match text {
        ANY => Ok(LoginRule::Any),
        USER => Ok(LoginRule::User),
        _ => Login::new(text).map(LoginRule::Exact).map_err(|error| {
            format!(
                "\"{}\": expected a login, \"{USER}\" or \"{ANY}\": {error}",
                Escaped(text)
            )
            .into()
        }),
    }
}

pub(crate) fn value(text: &str) -> Result<ValuePattern, Invalid> {
    let exact = |value: &str| {
        LabelValue::new(value).map_err(|error| {
            format!(
                "\"{}\": expected a label's value, \"{NOT}VALUE\" or \"{ANY}\": {error}",
                Escaped(text)
            )
            .into()
        })
    };
    match (text, text.strip_prefix(NOT)) {
        (ANY, _) => Ok(ValuePattern::Any),
        (_, Some(unwanted)) => exact(unwanted).map(ValuePattern::Not),
        _ => exact(text).map(ValuePattern::Exact),
    }
}

/// A value alone, or a list of values.
struct OneOrMany<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMany<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one, or a list of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
        T::deserialize(serde::de::value::StrDeserializer::new(text)).map(|one| vec![one])
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|one| vec![one])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<T>, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(seq))
    }
}

pub(crate) fn one_or_many<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    from.deserialize_any(OneOrMany(PhantomData))
}

/// A limit of what runs at a time; 0 is none.
struct LimitNumber;

impl Visitor<'_> for LimitNumber {
    type Value = Option<u32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 0 (no limit) to {}", u32::MAX)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Option<u32>, E> {
        let wrong = |_| E::custom(format!("{number}: expected {}", &self as &dyn Expected));
        u32::try_from(number).map(Some).map_err(wrong)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Option<u32>, E> {
        let wrong = |_| E::custom(format!("{number}: expected {}", &self as &dyn Expected));
        u32::try_from(number).map(Some).map_err(wrong)
    }
}

pub(crate) fn limit<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    from.deserialize_any(LimitNumber)
}

/// Networks. One with bits beyond its prefix is a slip of the pen: which part of it is meant?
pub(crate) fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let texts: Vec<String> = one_or_many(from)?;
    // No network at all would mean any: who empties the list means the opposite.
    if texts.is_empty() {
        let wrong = "source is empty: name a network, or leave it out (then from anywhere)";
        return Err(D::Error::custom(wrong));
    }
    let network = |text: &String| {
        let network = text.parse::<IpNet>().ok();
        let network = network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        match network {
            None => Err(D::Error::custom(format!(
                "\"{}\": expected a network like 203.0.113.0/24 or 2001:db8::/32, or an address",
                Escaped(text)
            ))),
            Some(network) if network != network.trunc() => Err(D::Error::custom(format!(
                "\"{network}\" has bits beyond its prefix: write {}",
                network.trunc()
            ))),
            Some(network) => Ok(network),
        }
    };
    texts.iter().map(network).collect()
}

impl<'de> Deserialize<'de> for ValueRule {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let patterns: Vec<ValuePattern> = one_or_many(from)?;
        if patterns.is_empty() || patterns.len() > MAX_RULE_VALUES {
            let wrong = format!("a label in a rule has 1 to {MAX_RULE_VALUES} values");
            return Err(D::Error::custom(wrong));
        }
        Ok(Self(patterns))
    }
}

impl Serialize for ValueRule {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(to),
            many => many.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for LabelRule {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let named: BTreeMap<String, ValueRule> = BTreeMap::deserialize(from)?;
        if named.is_empty() {
            let wrong = "labels is empty: for any device write { \"*\" = \"*\" }";
            return Err(D::Error::custom(wrong));
        }
        if named.len() > MAX_RULE_LABELS {
            let wrong = format!(
                "labels names {} keys; the maximum is {MAX_RULE_LABELS}",
                named.len()
            );
            return Err(D::Error::custom(wrong));
        }
        let mut rule = Self::any();
        for (key, values) in named {
            if key == ANY {
                // `*` means any device: with a value it would mean less than it says.
                if values.0 != [ValuePattern::Any] {
                    let wrong = "the label \"*\" takes the value \"*\" alone: { \"*\" = \"*\" } is any device";
                    return Err(D::Error::custom(wrong));
                }
                continue;
            }
            let name = LabelKey::new(&key)
                .map_err(|error| D::Error::custom(format!("\"{}\": {error}", Escaped(&key))))?;
            rule.0.insert(name, values);
        }
        Ok(rule)
    }
}

impl Serialize for LabelRule {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.is_any() {
            let mut map = to.serialize_map(Some(1))?;
            map.serialize_entry(ANY, ANY)?;
            return map.end();
        }
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (key, values) in &self.0 {
            map.serialize_entry(key.as_str(), values)?;
        }
        map.end()
    }
}
