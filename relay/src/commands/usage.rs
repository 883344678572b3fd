//! The text about a line that cannot be understood: what is wrong with it, and the remedy for a frequent slip.

use clap::error::{ContextKind, ErrorKind};
use holdfast_protocol::escape::OneLine;

use super::{DONE, USAGE, mistake};

/// The shell at the operator's takes one pair of quotes away.
const QUOTE_TIP: &str = "\ntip: over ssh, quote the whole command: \
    ssh RELAY \"recordings hold 3f9a --reason 'case 17'\"\n";

const SSH_TIP: &str = "\ntip: over ssh, the key and the options are those of your own ssh: \
    ssh -i KEY RELAY exec --on role=camera -- uptime\n";

const EXEC_TIP: &str =
    "\ntip: the command goes behind `--`: exec --on role=camera --login root -- uptime\n";

const LOGIN_TIP: &str = "\ntip: the account on the devices is named by --login: exec --on role=camera --login root -- uptime\n";

const CP_TIP: &str = "\ntip: the path on the devices goes behind the labels and a colon: cp FILE --on role=camera:/etc/motd\n";

const APPLY_TIP: &str = "\ntip: the file is named by -f: apply -f policy.toml\n";

const DEVICE_TIP: &str = "\ntip: this is the relay itself; a device is reached as LOGIN+DEVICE@RELAY: \
    ssh pi+kitchen-cam@RELAY\n";

/// Returns what to say of an error of the grammar `tree`, made safe for a terminal, and the exit status.
pub(crate) fn usage(error: &clap::Error, tree: &clap::Command) -> (String, u8) {
    let code = if error.use_stderr() { USAGE } else { DONE };
    let said = mistake::sentence(error, tree).unwrap_or_else(|| error.render().to_string());
    // What it quotes of what was typed is escaped where it is quoted.
    let mut text = String::new();
    for line in said.lines() {
        text.push_str(&OneLine(line).to_string());
        text.push('\n');
    }
    text.push_str(tip(error).unwrap_or_default());
    (text, code)
}

/// Returns the further advice for a line that came over ssh.
pub(super) fn console_tip(error: &clap::Error, tree: &clap::Command) -> &'static str {
    let is_fleet = is_about(error, "exec") || is_about(error, "cp");
    match (error.kind(), unknown(error).as_str()) {
        (ErrorKind::UnknownArgument, "--identity" | "-i" | "--ssh-option" | "-o") if is_fleet => {
            SSH_TIP
        }
        // What was to be one word came as several.
        (ErrorKind::UnknownArgument, word) if !word.starts_with('-') && tip(error).is_none() => {
            QUOTE_TIP
        }
        // Who forgot the device reaches the relay itself, with a command for the device.
        (ErrorKind::InvalidSubcommand, _) if mistake::is_strange(error, tree) => DEVICE_TIP,
        _ => "",
    }
}

/// Returns the remedy for the slips that people make with commands whose form is their own.
fn tip(error: &clap::Error) -> Option<&'static str> {
    let (unknown, is_unknown) = (unknown(error), error.kind() == ErrorKind::UnknownArgument);
    let is_missing = error.kind() == ErrorKind::MissingRequiredArgument;
    let is_flag = unknown.starts_with('-');
    match () {
        () if is_about(error, "exec") => match unknown.as_str() {
            "--user" | "-u" | "-l" => Some(LOGIN_TIP),
            _ if is_unknown && !is_flag => Some(EXEC_TIP),
            _ if is_missing && error.render().to_string().contains("  <COMMAND>") => Some(EXEC_TIP),
            _ => None,
        },
        () if is_about(error, "cp") && is_unknown && !is_flag => Some(CP_TIP),
        () if is_about(error, "apply") && is_unknown && !is_flag => Some(APPLY_TIP),
        () => None,
    }
}

/// Returns the argument that clap does not know.
fn unknown(error: &clap::Error) -> String {
    let unknown = error.get(ContextKind::InvalidArg);
    unknown.map(ToString::to_string).unwrap_or_default()
}

/// Returns whether it is the usage of this command that was not understood.
fn is_about(error: &clap::Error, command: &str) -> bool {
    let text = error.render().to_string();
    let usage = text.lines().find(|line| line.starts_with("Usage: "));
    usage.is_some_and(|usage| usage.split(' ').any(|word| word == command))
}

#[cfg(test)]
mod tests {
    use super::super::parse_console;
    use super::*;

    #[test]
    fn slips_are_answered_with_the_remedy() {
        for (line, remedy) in [
            ("exec --on role=camera uptime", EXEC_TIP),
            ("exec --on role=camera", EXEC_TIP),
            ("exec --on role=camera --user root -- uptime", LOGIN_TIP),
            ("exec --on role=camera --identity key -- uptime", SSH_TIP),
            ("cp - --on role=camera /etc/motd", CP_TIP),
            ("apply policy.toml", APPLY_TIP),
            ("recordings hold 3f9a --reason case 17", QUOTE_TIP),
            ("uptime", DEVICE_TIP),
        ] {
            let (said, code) = parse_console(line).unwrap_err();
            assert_eq!(code, USAGE);
            assert!(said.ends_with(remedy), "{line}: {said}");
            assert_eq!(said.matches("\ntip: ").count(), 1, "{line}: {said}");
        }
    }

    #[test]
    fn the_tip_about_devices_is_for_the_first_word_alone() {
        for line in ["recordings delete 3f9a", "devices reboot cam", "devcies"] {
            let (said, _) = parse_console(line).unwrap_err();
            assert!(
                said.contains("has no command") || said.contains("did you mean"),
                "{said}"
            );
            assert!(!said.contains("tip: "), "{line}: {said}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_all_that_would_do() {
        let (said, _) = parse_console("user add alice").unwrap_err();
        assert!(
            said.contains("--key") && said.contains("--principal"),
            "{said}"
        );
        let (said, _) = parse_console("recordings --state nosuch").unwrap_err();
        assert!(
            said.contains(
                "the states are recording, uploading, complete, truncated, tampered, lost"
            ),
            "{said}"
        );
    }
}
