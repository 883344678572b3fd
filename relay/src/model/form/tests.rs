use super::*;
use crate::model::presets;

fn name(text: &str) -> RoleName {
    RoleName::new(text).unwrap()
}

/// Returns what is wrong with a role of this body.
#[track_caller]
fn wrong(body: &str) -> String {
    match ::toml::from_str::<RoleForm>(body) {
        Err(error) => error.message().to_owned(),
        Ok(form) => form.role(name("tech")).unwrap_err().to_string(),
    }
}

fn written(role: &Role) -> String {
    let mut text = TomlText::default();
    text.role(&role.name, &RoleForm::of(role));
    text.finish()
}

const WHOLE: &str = r#"[roles.field-tech]
idle_timeout = "15m"
max_session = "8h"
on_disconnect = "leave"
recording = "strict"
record_stdin = "redact"
record_content = "16 MiB"
source = ["203.0.113.0/24"]

[roles.field-tech.limits]
max_connections = 3
max_sessions = 5
max_channels = 10

[roles.field-tech.forward]
connect = ["10.0.0.0/8:80", "localhost:5432", "[::1]:*", "*.local:8000-8100"]
listen = ["127.0.0.1:8000-8100"]
deny = ["10.9.0.0/16:*"]
connect_paths = ["/run/app.sock", "/srv/app/*"]
listen_paths = []

[roles.field-tech.sftp]
read_only = true
root = "/srv/data"

[roles.field-tech.allow]
labels = { env = "!=lab", role = "camera", site = ["berlin", "paris"] }
logins = ["pi", "{user}"]
abilities = ["shell", "exec", "sftp", "forward"]

[roles.field-tech.deny]
logins = ["root"]
"#;

#[derive(serde::Deserialize)]
struct Doc {
    roles: std::collections::BTreeMap<String, RoleForm>,
}

#[test]
fn a_role_is_given_back_as_it_was_written() {
    let mut doc: Doc = ::toml::from_str(WHOLE).unwrap();
    let form = doc.roles.remove("field-tech").unwrap();
    let role = form.role(name("field-tech")).unwrap();
    assert_eq!(written(&role), WHOLE);
    let json = serde_json::to_string(&RoleForm::of(&role)).unwrap();
    let again: RoleForm = serde_json::from_str(&json).unwrap();
    assert_eq!(again.role(name("field-tech")).unwrap(), role);
}

#[test]
fn size_is_written_in_its_greatest_whole_unit() {
    for (given, written) in [
        ("16MiB", "16 MiB"),
        ("1024 KiB", "1 MiB"),
        ("1500 B", "1500 B"),
        ("0 B", "0 B"),
        ("unlimited", "unlimited"),
    ] {
        let body = format!("record_content = \"{given}\"");
        let form: RoleForm = ::toml::from_str(&body).unwrap();
        let bound = inline(&form.record_content);
        assert_eq!(bound, format!("\"{written}\""), "{given}");
    }
}

#[test]
fn rules_may_be_one_table_or_a_list_of_them() {
    let one = "allow = { labels = { '*' = '*' }, logins = ['*'], abilities = ['shell'] }";
    let two = format!("allow = [{0}, {0}]", &one["allow = ".len()..]);
    let read = |text: &str| {
        ::toml::from_str::<RoleForm>(text)
            .unwrap()
            .role(name("a.b"))
            .unwrap()
    };
    assert_eq!(read(one).allow.len(), 1);
    assert_eq!(read(&two).allow.len(), 2);
    let shown = written(&read(&two));
    assert_eq!(
        shown
            .matches("[[roles.\"a.b\".allow]]\nlabels = { \"*\" = \"*\" }\n")
            .count(),
        2,
        "{shown}"
    );
    for preset in presets::presets() {
        let text = written(&preset);
        let mut doc: Doc = ::toml::from_str(&text).unwrap();
        let form = doc.roles.remove(preset.name.as_str()).unwrap();
        assert_eq!(form.role(preset.name.clone()).unwrap(), preset);
    }
}

#[test]
fn each_mistake_is_named_with_what_was_expected() {
    let table = [
        (
            "idle_timeuot = \"15m\"",
            "unknown field `idle_timeuot`, expected one of `idle_timeout`, `max_session`",
        ),
        (
            "limits = { max_session = 1 }",
            "unknown field `max_session`, expected one of `max_connections`, `max_sessions`",
        ),
        (
            "allow = { label = {} }",
            "unknown field `label`, expected one of `labels`, `logins`, `abilities`",
        ),
        ("idle_timeout = 15", "expected a span, as in \"15m\""),
        (
            "idle_timeout = \"soon\"",
            "\"soon\": expected a span like \"15m\", or \"never\"",
        ),
        ("idle_timeout = \"0s\"", "from 1s to 366d"),
        (
            "max_session = \"never\"",
            "expected a span like \"8h\"; leave it out for no limit",
        ),
        ("max_session = \"0s\"", "from 1s to 366d"),
        ("on_disconnect = \"stay\"", "expected hup, leave, kill"),
        (
            "recording = \"on\"",
            "\"on\": expected strict, best-effort, off",
        ),
        (
            "forward = { connect_paths = [\"/run/../x\"] }",
            "\"/run/../x\": expected an absolute path",
        ),
        (
            "forward = { listen_paths = [\"*\"] }",
            "roles.tech.forward.listen_paths changes nothing",
        ),
        (
            "sftp = { root = \"srv\" }",
            "\"srv\": a root is an absolute path",
        ),
        (
            "record_stdin = \"none\"",
            "\"none\": expected redact, full, off",
        ),
        (
            "record_content = \"much\"",
            "\"much\": expected a size like \"16 MiB\", or \"unlimited\"",
        ),
        (
            "record_content = 5",
            "expected a size, as in \"16 MiB\", or \"unlimited\"",
        ),
        (
            "source = [\"berlin\"]",
            "\"berlin\": expected a network like 203.0.113.0/24",
        ),
        (
            "source = [\"203.0.113.7/24\"]",
            "has bits beyond its prefix: write 203.0.113.0/24",
        ),
        (
            "limits = { max_sessions = -1 }",
            "-1: expected a whole number",
        ),
        (
            "allow = { abilities = [\"shel\"] }",
            "\"shel\": expected shell, exec, sftp, forward, agent-forward, recover, review",
        ),
        (
            "forward = { conect = [] }",
            "unknown field `conect`, expected one of `connect`, `listen`, `deny`",
        ),
        (
            "forward = { connect = [\"10.0.0.1\"] }",
            "\"10.0.0.1\": expected HOST:PORT, as in 10.0.0.0/8:80",
        ),
        (
            "forward = { connect = [\"10.1:80\"] }",
            "\"10.1:80\": expected an address, a network, a name",
        ),
        (
            "forward = { connect = [\"10.0.0.1/8:80\"] }",
            "the network has bits beyond its prefix",
        ),
        (
            "forward = { connect = [\"*:*\"] }",
            "roles.tech.forward.connect changes nothing: no allow rule of the role names the ability forward",
        ),
        (
            "forward = { deny = [\"db.local:*\"] }",
            "roles.tech.forward.deny: db.local:* is a name, and a user can bypass it by its address",
        ),
        (
            "deny = { logins = [\"a b\"] }",
            "\"a b\": expected a login, \"{user}\" or \"*\"",
        ),
        (
            "deny = { logins = [\"{host}\"] }",
            "expected a login, \"{user}\" or \"*\"",
        ),
        (
            "deny = { labels = { role = \"a b\" } }",
            "\"a b\": expected a label's value",
        ),
        (
            "deny = { labels = { \"a b\" = \"c\" } }",
            "a label key may hold only",
        ),
        (
            "deny = { labels = { \"*\" = \"camera\" } }",
            "takes the value \"*\" alone",
        ),
        (
            "deny = { labels = {} }",
            "for any device write { \"*\" = \"*\" }",
        ),
        ("deny = {}", "roles.tech.deny names nothing"),
        (
            "source = []",
            "source is empty: name a network, or leave it out (then from anywhere)",
        ),
        (
            "limits = { max_sessions = -1 }",
            "-1: expected a whole number from 0 (no limit) to 4294967295",
        ),
        (
            "limits = { max_channels = 4294967296 }",
            "4294967296: expected a whole number from 0 (no limit)",
        ),
        (
            "limits = { max_connections = \"5\" }",
            "expected a whole number from 0 (no limit)",
        ),
        ("sftp = 1", "expected a table of constraints"),
        // Not the fields in the order of the code, nor a form without any.
        ("sftp = [true]", "expected a table of constraints"),
        ("forward = []", "expected a table of destinations"),
        ("limits = [3]", "expected a table of limits"),
        ("allow = [[]]", "expected a table of labels"),
        ("deny = { logins = [] }", "roles.tech.deny.logins is empty"),
        (
            "deny = [{ logins = [\"a\"] }, { abilities = [] }]",
            "roles.tech.deny[1].abilities is empty",
        ),
        ("allow = { logins = [\"pi\"] }", "names no abilities"),
        (
            "allow = { logins = [\"pi\"], abilities = [\"shell\"] }",
            "names no labels, so it would allow nothing of shell",
        ),
        (
            "allow = { labels = { a = \"b\" }, abilities = [\"exec\"] }",
            "names no logins, so it would allow nothing of exec",
        ),
        (
            "allow = { labels = { a = \"b\" }, logins = [\"*\"], abilities = [\"review\"] }",
            "review is about the whole fleet",
        ),
        (
            "deny = { logins = [\"root\"], abilities = [\"admin\"] }",
            "admin is about the whole fleet",
        ),
    ];
    for (body, expected) in table {
        let said = wrong(body);
        assert!(said.contains(expected), "{body}: {said}");
        assert!(!said.contains('\n'), "{said}");
    }
}

#[test]
fn a_role_has_bounds() {
    let rule = "{ logins = ['a'] }";
    let rules = |count| format!("deny = [{}]", vec![rule; count].join(","));
    assert!(
        ::toml::from_str::<RoleForm>(&rules(64))
            .unwrap()
            .role(name("r"))
            .is_ok()
    );
    assert!(wrong(&rules(65)).contains("roles.tech.deny has 65 rules; the maximum is 64"));
    let labels: Vec<String> = (0..17).map(|n| format!("k{n} = 'v'")).collect();
    assert!(
        wrong(&format!("deny = {{ labels = {{ {} }} }}", labels.join(",")))
            .contains("the maximum is 16")
    );
    assert!(
        wrong(&format!(
            "deny = {{ logins = [{}] }}",
            vec!["'a'"; 257].join(",")
        ))
        .contains("257 logins")
    );
    assert!(
        wrong(&format!(
            "deny = {{ labels = {{ a = [{}] }} }}",
            vec!["'a'"; 65].join(",")
        ))
        .contains("1 to 64 values")
    );
    assert!(
        wrong(&format!(
            "source = [{}]",
            vec!["'192.0.2.1'"; 257].join(",")
        ))
        .contains("257 source networks")
    );
    assert!(RoleName::new(&"r".repeat(64)).is_ok() && RoleName::new(&"r".repeat(65)).is_err());
    for bad in ["", "-a", "a b", "a/b", "ä", "*"] {
        assert!(RoleName::new(bad).is_err(), "{bad}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics_the_reader(text: String, word in "(allow|deny|labels|logins|limits|source|=|\\{|\\}|\\[|\\]|,|'|\\*|!=|a| |\n){0,24}") {
        for text in [text, word] {
            if let Ok(form) = ::toml::from_str::<RoleForm>(&text) {
                let _ = form.role(name("r"));
            }
        }
    }
}
