//! The misbehaviours, by family. Each file has a table of its own at its top.

pub mod channels;
pub mod control;
pub mod evidence;
pub mod file_operations;
pub mod forward_logs;
pub mod forwards;
pub mod inventories;
pub mod joins;
pub mod logins;
pub mod recordings;
pub mod sessions;
pub mod sftp;
pub mod sftp_answers;
pub mod uploads;

use std::fmt::Write as _;

use anyhow::{Result, bail};

use crate::device::DeviceCase;
use crate::operator::OperatorCase;

/// Every case of a device.
#[must_use]
pub fn of_devices() -> Vec<&'static DeviceCase> {
    [
        sessions::CASES,
        control::CASES,
        joins::CASES,
        forwards::CASES,
        recordings::CASES,
        evidence::CASES,
        forward_logs::CASES,
        sftp_answers::CASES,
        file_operations::CASES,
        uploads::CASES,
        inventories::CASES,
    ]
    .concat_refs()
}

/// Every case of an operator.
#[must_use]
pub fn of_operators() -> Vec<&'static OperatorCase> {
    [logins::CASES, channels::CASES, sftp::CASES].concat_refs()
}

/// The list of all cases, as `--list` prints it.
#[must_use]
pub fn list() -> String {
    let mut text = String::from("device:\n");
    for case in of_devices() {
        let _ = writeln!(text, "  {:28} {}", case.name, case.what);
    }
    text.push_str("operator:\n");
    for case in of_operators() {
        let _ = writeln!(text, "  {:28} {}", case.name, case.what);
    }
    text
}

/// The device's case of this name.
///
/// # Errors
/// There is none: the error has the list.
pub fn of_device(name: &str) -> Result<&'static DeviceCase> {
    match of_devices().into_iter().find(|case| case.name == name) {
        Some(case) => Ok(case),
        None => bail!("there is no device case \"{name}\"; there are:\n{}", list()),
    }
}

/// The operator's case of this name.
///
/// # Errors
/// There is none: the error has the list.
pub fn of_operator(name: &str) -> Result<&'static OperatorCase> {
    match of_operators().into_iter().find(|case| case.name == name) {
        Some(case) => Ok(case),
        None => bail!(
            "there is no operator case \"{name}\"; there are:\n{}",
            list()
        ),
    }
}

trait ConcatRefs<T> {
    fn concat_refs(self) -> Vec<&'static T>;
}

impl<T, const N: usize> ConcatRefs<T> for [&'static [T]; N] {
    fn concat_refs(self) -> Vec<&'static T> {
        self.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_sentences_end() {
        let names: Vec<(&str, &str)> = of_devices()
            .into_iter()
            .map(|case| (case.name, case.what))
            .chain(
                of_operators()
                    .into_iter()
                    .map(|case| (case.name, case.what)),
            )
            .collect();
        let unique: HashSet<&str> = names.iter().map(|(name, _)| *name).collect();
        assert_eq!(unique.len(), names.len());
        for (name, what) in names {
            assert!(what.ends_with('.'), "{name}: {what}");
            assert!(list().contains(name), "{name}");
        }
    }

    #[test]
    fn unknown_case_is_an_error_with_the_list() {
        let error = of_device("no-such-case").unwrap_err().to_string();
        assert!(error.contains("incoming-flood"), "{error}");
        let error = of_operator("no-such-case").unwrap_err().to_string();
        assert!(error.contains("offer-flood"), "{error}");
    }
}
