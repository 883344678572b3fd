//! `cp`: one file onto many devices. What it does is in [`crate::bulk`]; here is how it is asked for.

use std::str::FromStr;

use super::exec::BulkOptions;
use crate::access::selector::Selector;
use crate::audit::Event;
use crate::commands::call::{Call, Command, Right};
use crate::commands::limits::MAX_COPY_PATH;
use crate::commands::{Done, Failure};
use crate::model::invalid::Invalid;

/// Put a file onto many devices
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  ssh -p 2222 relay.example.com cp - --on role=camera:/etc/motd --login root <motd
  ssh -p 2222 relay.example.com cp - --on 'role=camera,site!=lab:bin/tool' --mode 755 --wait 1h <tool

The file comes on stdin, once, and goes to each device by sftp, as you: your roles must allow `sftp` there.
On a device there is the old file or the new one, never half of it. A file that is replaced keeps its mode; a
link is replaced, not followed. PATH begins behind the first colon; without a slash in front it is in the home
of the login.
Exit status 0: all devices have it. 1: some have not. 2: usage.")]
pub(crate) struct Args {
    /// `-`: the file comes on stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: String,
    /// The devices, by their labels as in a role, and the path there
    #[arg(long, value_name = "SELECTOR:PATH")]
    pub(crate) on: PathLocation,
    /// The file's mode, in octal [default: that of the file it replaces, or what the account gives new ones]
    #[arg(long, value_name = "MODE", value_parser = mode)]
    pub(crate) mode: Option<u32>,
    /// Print a line of JSON for each device
    #[arg(long)]
    pub(crate) json: bool,
    /// The rest
    #[command(flatten)]
    pub(crate) order: BulkOptions,
}

/// The destination of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathLocation {
    pub(crate) on: Selector,
    pub(crate) path: String,
}

impl Args {
    /// Returns the line that asks the console for this, with the file on stdin.
    #[must_use]
    pub(crate) fn at_console(&self) -> String {
        let PathLocation { on, path } = &self.on;
        let mut words = vec!["cp".into(), "-".into(), "--on".into()];
        words.push(format!("{on}:{path}"));
        if let Some(mode) = self.mode {
            words.extend(["--mode".into(), format!("{mode:o}")]);
        }
        words.extend(self.order.words());
        words.extend(self.json.then(|| "--json".into()));
        shell_words::join(words)
    }
}

impl Command for Args {
    fn need(&self) -> Right {
        // Each device is decided on by itself.
        Right::AnyRole
    }

    fn event(&self) -> Option<Event> {
        // What is done on each device is a session there, with rows of its own.
        None
    }

    fn names_file(&self) -> bool {
        self.file != "-"
    }

    fn streams(&self) -> bool {
        true
    }

    async fn run(self, _call: Call<'_, '_>) -> Result<Done, Failure> {
        Err(super::only_over_ssh())
    }
}

impl FromStr for PathLocation {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let expected = "expected SELECTOR:PATH, as in role=camera:/etc/motd";
        let (on, path) = text.split_once(':').ok_or(expected)?;
        if path.is_empty() || path.ends_with('/') {
            return Err("the path must name a file, not a folder".into());
        }
        if path.contains('\0') || path.len() > MAX_COPY_PATH {
            return Err(
                format!("a path has at most {MAX_COPY_PATH} bytes, and none of them is 0").into(),
            );
        }
        Ok(Self {
            on: on.parse()?,
            path: path.to_owned(),
        })
    }
}

fn mode(text: &str) -> Result<u32, Invalid> {
    let mode = u32::from_str_radix(text, 8).ok();
    let mode = mode.filter(|mode| *mode <= 0o777 && !text.starts_with('+'));
    mode.ok_or_else(|| "expected a mode in octal, from 0 to 777".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_selector_and_a_path() {
        let place: PathLocation = "role=camera,site!=lab:a:b/c".parse().unwrap();
        assert_eq!(place.path, "a:b/c");
        assert_eq!(place.on, "role=camera,site!=lab".parse().unwrap());
        let long = format!("*:{}", "x".repeat(MAX_COPY_PATH + 1));
        for bad in ["", "*", "*:", "*:a/", ":/x", "role:/x", "*:a\0b", &long] {
            assert!(bad.parse::<PathLocation>().is_err(), "{bad}");
        }
        assert_eq!(mode("0755"), Ok(0o755));
        for bad in ["", "8", "1000", "4755", "+644", "-1", "u+x"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }
}
