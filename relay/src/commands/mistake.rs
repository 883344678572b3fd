//! A line that the grammar does not have, as one sentence: what was expected, what came, and the nearest thing there
//! is. The grammar's library knows what is wrong; its own sentences are not those of the other commands.

use std::error::Error as _;

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use holdfast_protocol::escape::Escaped;
use holdfast_protocol::words::nearest::nearest;

/// A flag of recordings that the grammar has by another name: what is behind `--` has the one that was typed.
const RENAMED: [&str; 2] = ["--state", "--in-state"];

/// The flags whose values may hold a password.
const SECRETS: [&str; 2] = ["--database", "--to"];

/// Returns the sentence, followed by how the command is used; `None` where the library has to say it.
pub(super) fn sentence(error: &clap::Error, tree: &Command) -> Option<String> {
    let place = MistakenCommand::of(error, tree);
    let said = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let came = one(error, ContextKind::InvalidSubcommand)?;
            let known = place.subcommands();
            let what = match place.path.len() {
                0 => "no command".to_owned(),
                _ => format!("`{}` has no command", place.path.join(" ")),
            };
            let expected = match nearest(&came, &known) {
                Some(near) => format!("did you mean \"{near}\"? Expected one of"),
                None => "expected one of".to_owned(),
            };
            let came = Escaped(&came);
            format!("{what} \"{came}\": {expected} {}", known.join(", "))
        }
        ErrorKind::UnknownArgument => {
            let came = one(error, ContextKind::InvalidArg)?;
            let known = match came.starts_with('-') {
                true => place.flags(),
                false => place.subcommands(),
            };
            let is_known = |word: &str| known.iter().any(|one| one == word);
            let [typed, renamed] = RENAMED;
            let is_own = is_known(&came) || (came == typed && is_known(renamed));
            let advice = match nearest(&came, &known) {
                // It is one of the command's own, and was taken for a further word.
                _ if is_own && came.starts_with('-') => {
                    ": what is behind `--` is no option; write the options before it".to_owned()
                }
                _ if is_own => ": what is behind `--` is no command; leave the `--` out".to_owned(),
                Some(near) => format!(": did you mean \"{near}\"?"),
                None => String::new(),
            };
            let came = Escaped(&came);
            format!(
                "unexpected argument \"{came}\"{}{advice}",
                place.of_command()
            )
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = all(error, ContextKind::InvalidArg)?;
            let missing: Vec<String> = missing.iter().map(|one| alternatives(one)).collect();
            match place.path.join(" ") {
                path if path.is_empty() => format!("missing: {}", missing.join(" ")),
                path => format!("`{path}` needs {}", missing.join(" ")),
            }
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let argument = one(error, ContextKind::InvalidArg)?;
            let came = one(error, ContextKind::InvalidValue)?;
            let expected = match all(error, ContextKind::ValidValue).unwrap_or_default() {
                known if known.is_empty() => error.source().map(ToString::to_string),
                known => {
                    let near = nearest(&came, &known);
                    let near =
                        near.map_or_else(String::new, |near| format!("did you mean \"{near}\"? "));
                    Some(format!("{near}expected one of {}", known.join(", ")))
                }
            };
            let expected = expected.map_or_else(String::new, |expected| format!(": {expected}"));
            match came.as_str() {
                "" => format!("{argument} needs a value{expected}"),
                _ if argument
                    .split(' ')
                    .next()
                    .is_some_and(|flag| SECRETS.contains(&flag)) =>
                {
                    format!("invalid value for {argument}{expected}")
                }
                came => {
                    let came = Escaped(came);
                    format!("invalid value \"{came}\" for {argument}{expected}")
                }
            }
        }
        ErrorKind::ArgumentConflict => {
            // What is behind an option that is given for the command above it alone.
            let sub = || one(error, ContextKind::InvalidSubcommand);
            let came = one(error, ContextKind::InvalidArg).or_else(sub)?;
            let before = all(error, ContextKind::PriorArg)?;
            match before.as_slice() {
                [same] if *same == came => format!("{came} can be given once only"),
                others => format!("{came} cannot be given with {}", others.join(", ")),
            }
        }
        _ => return None,
    };
    // An error in a value says what was expected, and not of which command.
    let Some(usage) = error.get(ContextKind::Usage) else {
        return Some(format!("{said}\n"));
    };
    let usage = usage.to_string();
    let usage = usage.trim_end();
    let path: Vec<&str> = std::iter::once(tree.get_name()).chain(place.path).collect();
    let path = path.join(" ");
    Some(format!("{said}\n{usage}\nFor more, see `{path} --help`.\n"))
}

/// Returns whether a command that does not exist is like none of the relay's: the first word, and close to none that
/// does.
pub(super) fn is_strange(error: &clap::Error, tree: &Command) -> bool {
    let place = MistakenCommand::of(error, tree);
    let came = one(error, ContextKind::InvalidSubcommand).unwrap_or_default();
    place.path.is_empty() && nearest(&came, &place.subcommands()).is_none()
}

/// The command that was not understood.
struct MistakenCommand<'t> {
    /// Its names, from the top.
    path: Vec<&'t str>,
    command: &'t Command,
    /// The flags of the commands above it that it has, too.
    inherited: Vec<String>,
}

impl<'t> MistakenCommand<'t> {
    /// Returns the command whose usage the error shows.
    fn of(error: &clap::Error, tree: &'t Command) -> Self {
        let usage = error.get(ContextKind::Usage).map(ToString::to_string);
        let mut place = Self {
            path: Vec::new(),
            command: tree,
            inherited: Vec::new(),
        };
        for word in usage.unwrap_or_default().split_whitespace() {
            if let Some(sub) = place.command.find_subcommand(word) {
                place.path.push(sub.get_name());
                place.inherited.extend(flags(place.command, true));
                place.command = sub;
            }
        }
        place
    }

    fn of_command(&self) -> String {
        match self.path.join(" ") {
            path if path.is_empty() => String::new(),
            path => format!(" of `{path}`"),
        }
    }

    fn subcommands(&self) -> Vec<String> {
        let known = self.command.get_subcommands();
        let known = known.filter(|sub| !sub.is_hide_set() && sub.get_name() != "help");
        known.map(|sub| sub.get_name().to_owned()).collect()
    }

    fn flags(&self) -> Vec<String> {
        let own = flags(self.command, false);
        own.chain(self.inherited.iter().cloned()).collect()
    }
}

/// Returns the flags of a command, or those of them that hold for the commands below it.
fn flags(command: &Command, for_all_below: bool) -> impl Iterator<Item = String> {
    let known = command.get_arguments();
    let known = known.filter(move |argument| {
        !argument.is_hide_set() && (!for_all_below || argument.is_global_set())
    });
    known.filter_map(|argument| Some(format!("--{}", argument.get_long()?)))
}

fn all(error: &clap::Error, what: ContextKind) -> Option<Vec<String>> {
    match error.get(what)? {
        ContextValue::String(one) => Some(vec![one.clone()]),
        ContextValue::Strings(several) => Some(several.clone()),
        _ => None,
    }
}

fn one(error: &clap::Error, what: ContextKind) -> Option<String> {
    all(error, what)?.into_iter().next()
}

/// Returns `<--key <FILE>|--principal <NAME>>` as `--key <FILE> or --principal <NAME>`, and other arguments as they are.
fn alternatives(argument: &str) -> String {
    let group = argument
        .strip_prefix('<')
        .and_then(|rest| rest.strip_suffix('>'));
    match group.filter(|group| group.starts_with("--")) {
        Some(group) => group.replace(">|--", "> or --"),
        None => argument.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse_console;
    use crate::output::USAGE;

    #[test]
    fn a_mistake_names_the_nearest_thing() {
        // What is typed, and the beginning of what is said.
        let table = [
            (
                "devcies",
                "no command \"devcies\": did you mean \"devices\"? Expected one of user, ca, token, devices",
            ),
            ("uptime", "no command \"uptime\": expected one of user, ca"),
            (
                "devices shwo cam",
                "`devices` has no command \"shwo\": did you mean \"show\"? Expected one of ls, show, rename",
            ),
            (
                "devices ls --jsno",
                "unexpected argument \"--jsno\" of `devices ls`: did you mean \"--json\"?\n",
            ),
            ("devices show", "`devices show` needs <NAME>\nUsage: "),
            (
                "user add alice",
                "`user add` needs --key <FILE|-> or --principal <PRINCIPAL>\n",
            ),
            (
                "recordings --kind movie",
                "invalid value \"movie\" for --kind <KIND>: the kinds are shell",
            ),
            ("audit --since", "--since <SPAN|TIME> needs a value"),
            (
                "audit --limit abc",
                "invalid value \"abc\" for --limit <N>: expected a whole number from 0 (all) to 4294967295\n",
            ),
            (
                "token create --uses x",
                "invalid value \"x\" for --uses <USES>: expected a whole number from 1 to 4294967295\n",
            ),
            (
                "token create --uses 0",
                "invalid value \"0\" for --uses <USES>: expected a whole number from 1 to 4294967295\n",
            ),
            (
                "audit --session zz",
                "invalid value \"zz\" for --session <ID>: expected a session's id",
            ),
            (
                "audit --device 'a b'",
                "invalid value \"a b\" for --device <NAME|ID>: ",
            ),
            (
                "lock address 300.1.1.1",
                "invalid value \"300.1.1.1\" for <VALUE>: expected an address or network such as",
            ),
            (
                "lock address 10.0.0.1/8",
                "invalid value \"10.0.0.1/8\" for <VALUE>: it has bits beyond its prefix: write 10.0.0.0/8\n",
            ),
            (
                "lock user alice --message 'a\nb\u{1b}[31m'",
                "invalid value \"a\\nb\\u{1b}[31m\" for --message <MESSAGE>: must be one line",
            ),
            (
                "recordings grep -- -x --state D",
                "unexpected argument \"--state\" of `recordings grep`: what is behind `--` is no option; write",
            ),
            (
                "recordings grep -- -x --user D",
                "unexpected argument \"--user\" of `recordings grep`: what is behind `--` is no option; write the options before it\n",
            ),
            (
                "devices -- ls",
                "unexpected argument \"ls\" of `devices`: what is behind `--` is no command; leave the `--` out\n",
            ),
            ("recordings --state", "--in-state <STATE> needs a value: "),
            (
                "get users -o yaml",
                "invalid value \"yaml\" for --output <OUTPUT>: expected one of table, toml, json",
            ),
            (
                "get users -o tolm",
                "invalid value \"tolm\" for --output <OUTPUT>: did you mean \"toml\"? expected one of",
            ),
            (
                "audit --follow --until 1d",
                "--follow cannot be given with --until <SPAN|TIME>",
            ),
            (
                "wait cam --timeout 1s --timeout 2s",
                "--timeout <SPAN> can be given once only",
            ),
            (
                "recordings --json show 3f9a",
                "show cannot be given with --json\nUsage: ",
            ),
            (
                "sessions --user alice kill 3f",
                "kill cannot be given with --user <NAME>\nUsage: ",
            ),
        ];
        for (line, begins) in table {
            let (said, code) = parse_console(line).unwrap_err();
            assert_eq!(code, USAGE);
            assert!(said.starts_with(begins), "{line}: {said}");
            assert!(!said.contains("error:"), "{said}");
            let has_usage = said.contains("\nUsage: ");
            assert_eq!(said.contains(" --help`.\n"), has_usage, "{said}");
        }
    }
}
