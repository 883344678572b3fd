//! The grammar of the console.

use super::*;

#[test]
fn the_console_has_help_and_neither_serve_nor_state() {
    let says = |line: &str| parse_console(line).unwrap_err();
    let (help, code) = says("--help");
    assert_eq!(code, DONE);
    for word in ["devices", "token", "user", "ssh-config", "whoami"] {
        assert!(help.contains(word), "{help}");
    }
    assert!(
        !help.contains("serve") && !help.contains("--state"),
        "{help}"
    );
    let (help, code) = says("user add --help");
    assert!(
        code == DONE && help.contains("Examples:") && !help.contains("--state"),
        "{help}"
    );
    for bad in [
        "",
        "serve",
        "serve --state /x",
        "devices --state /x",
        "frob",
        "devices show",
        "user",
    ] {
        assert_eq!(says(bad).1, USAGE, "{bad}");
    }
    assert_eq!(says("devices 'open").1, USAGE);
    assert_eq!(says(&"x".repeat(MAX_CONSOLE_LINE + 1)).1, USAGE);
    assert!(parse_console("devices label cam a=b\\ c").is_err());
    assert!(parse_console("devices 'show' \"cam\"").is_ok());
}

#[test]
fn a_mistake_is_answered_with_what_was_expected() {
    let says = |line: &str| parse_console(line).unwrap_err().0;
    let unquoted = says("recordings hold 3f9a --reason case 17");
    assert!(
        unquoted.contains("tip: over ssh, quote the whole command"),
        "{unquoted}"
    );
    assert!(!says("devices show").contains("tip: over ssh"));
    let named = says("unlock bob");
    assert!(
        named.contains("expected a lock's number, as `lock ls` prints it"),
        "{named}"
    );
}

#[test]
fn echoed_input_is_escaped_in_errors() {
    for bad in [
        "\u{1b}[2J",
        "devices show 'a\u{1b}\u{202e}'",
        "devices show \"\u{9b}2J\"",
        "token rm\r",
    ] {
        if let Err((text, _)) = parse_console(bad) {
            let odd = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!text.contains(odd), "{text:?}");
        }
    }
}

#[test]
fn only_a_key_or_a_policy_from_stdin_waits_for_stdin() {
    let wants = |line| parse_console(line).unwrap().wants_stdin();
    assert!(wants("user add a --key -") && wants("user key add a --key x --key -"));
    assert!(wants("apply -f -") && !wants("apply -f x"));
    assert!(!wants("user add a --key x") && !wants("user ls") && !wants("devices"));
}

proptest::proptest! {
    #[test]
    fn no_line_panics_the_console(line: String, words in "(devices|user|token|ssh-config|whoami|add|ls|--json|--key|-|=|'|\"| |\\\\|a){0,12}") {
        let _ = parse_console(&line);
        if let Err((text, _)) = parse_console(&words) {
            proptest::prop_assert!(!text.is_empty());
        }
    }
}

#[test]
fn what_the_other_door_asks_is_read_as_it_was_meant() {
    // As it is typed at the console, and as it is asked there.
    let table = [
        ("exec --on 'role=camera' -- uptime", None),
        (
            "exec --json --wait 90s --parallel 20 --on 'site=ab' --login root -- echo  'a  b' \"$HOME\" -- x",
            Some(
                "exec --on 'site=ab' --login root --wait 1m30s --json -- echo  'a  b' \"$HOME\" -- x",
            ),
        ),
        ("exec --on '*' -- it's", None),
        ("exec --on '*' -- one\ntwo", None),
        ("cp - --on '*:c d' --mode 644 --json", None),
        (
            "cp - --login root --timeout 5s --on \"a=b:it's\"",
            Some("cp - --on 'a=b:it'\\''s' --login root --timeout 5s"),
        ),
    ];
    for (typed, asked) in table {
        let line = |typed: &str| match parse_console(typed).unwrap() {
            AnyCommand::Exec(args) => args.at_console(),
            AnyCommand::Cp(args) => args.at_console(),
            other => panic!("{other:?}"),
        };
        let asked = asked.unwrap_or(typed);
        assert_eq!(line(typed), asked, "{typed}");
        assert_eq!(line(asked), asked, "{typed}");
    }
    for only_here in ["exec -i x --on '*' -- y", "cp - --on '*:x' -o A=b"] {
        assert_eq!(parse_console(only_here).unwrap_err().1, USAGE);
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    let grammar = <Console as clap::CommandFactory>::command();
    let commands: Vec<_> = grammar
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
        .collect();
    assert!(commands.len() >= 20, "{}", commands.len());
    for command in commands {
        let name = command.get_name();
        assert!(command.get_about().is_some(), "{name} has no summary");
        let after = command.get_after_help().map(ToString::to_string);
        let after = after.unwrap_or_default();
        assert!(after.contains(name), "the help of {name} has no example");
    }
}
