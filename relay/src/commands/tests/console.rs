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
fn what_was_typed_cannot_drive_the_terminal_that_shows_the_mistake() {
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
