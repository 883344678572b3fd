use super::*;
use crate::store::Policy;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti alice@laptop";

fn problem(text: &str) -> String {
    read("FILE", text.as_bytes()).unwrap_err().to_string()
}

fn policy(text: &str) -> Policy {
    read("FILE", text.as_bytes()).unwrap()
}

#[test]
fn a_user_says_what_it_says_and_no_more() {
    let policy = policy(&format!(
        "[users.alice]\nemail = \"alice@example.com\"\nroles = [\"a\", \"a\", \"b\"]\nkeys = [\"{KEY}\"]\nprincipals = [\"alice\"]\n[users.bob]\n[users.carol]\nemail = \"\"\nkeys = []\ndisabled = true\n"
    ));
    let [alice, bob, carol] = policy.users.as_slice() else {
        panic!("{policy:?}")
    };
    assert_eq!(alice.email, Some(Some("alice@example.com".to_owned())));
    assert_eq!(alice.roles.as_ref().unwrap().len(), 2);
    assert_eq!(alice.keys.as_ref().unwrap()[0].comment, "alice@laptop");
    assert_eq!(alice.principals.as_deref(), Some(&["alice".to_owned()][..]));
    assert_eq!(
        (&bob.email, &bob.roles, &bob.keys, bob.disabled),
        (&None, &None, &None, None)
    );
    assert_eq!((&carol.email, carol.disabled), (&Some(None), Some(true)));
    assert_eq!(carol.keys.as_ref().map(Vec::len), Some(0));
}

#[test]
fn a_mistake_is_one_sentence_with_file_and_place() {
    let table = [
        (
            "[role.x]",
            "FILE: line 1: unknown field `role`, expected `roles` or `users`",
        ),
        (
            "[roles.x]\nidle = 1",
            "FILE: line 2: unknown field `idle`, expected one of",
        ),
        (
            "[roles.x.allow]\nlogin = []",
            "FILE: line 2: unknown field `login`, expected one of `labels`",
        ),
        (
            "[users.alice]\nrole = []",
            "FILE: line 2: unknown field `role`, expected one of `email`",
        ),
        (
            "[roles.\"a b\"]",
            "FILE: line 1: \"a b\": a role's name has",
        ),
        (
            "[users.\"a b\"]",
            "FILE: line 1: \"a b\": a user name may hold only",
        ),
        (
            "[users.a]\nroles = [\"x y\"]",
            "FILE: line 2: \"x y\": a role's name",
        ),
        (
            "[roles.admin]",
            "FILE: role \"admin\" is a preset and cannot be changed",
        ),
        ("[roles.a.deny]", "FILE: roles.a.deny names nothing"),
        (
            "[roles]\na = [\"20m\"]",
            "FILE: line 2: invalid type: sequence, expected a table of a role",
        ),
        (
            "[users]\na = []",
            "FILE: line 2: invalid type: sequence, expected a table of a user",
        ),
        ("[roles.a]\n[roles.a]", "FILE: line 2: duplicate key"),
        (
            "[users.a]\nemail = \"absent\"",
            "FILE: users.a: expected an e-mail address",
        ),
        (
            "[users.a]\nprincipals = [\"x y\"]",
            "FILE: users.a: expected a principal",
        ),
        (
            "[users.a]\nkeys = [\"ssh-rsa\"]",
            "FILE: users.a.keys[0] line 1: expected a public key",
        ),
        (
            "[users.a]\nkeys = [\"\"]",
            "FILE: users.a.keys[0] holds no key",
        ),
        ("nonsense", "FILE: line 1: "),
    ];
    for (text, expected) in table {
        let said = problem(text);
        assert!(said.starts_with(expected), "{text}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let many = format!("[users.a]\nroles = [{}]", vec!["'r'"; 33].join(","));
    assert!(problem(&many).contains("users.a.roles: 33 are given; the maximum is 32"));
    assert!(
        read("FILE", b"\xff")
            .unwrap_err()
            .to_string()
            .contains("UTF-8")
    );
}

#[test]
fn file_contents_are_escaped_in_errors() {
    let said = problem("[roles.x]\nrecording = \"\\u001b[2J\"");
    assert!(!said.contains('\u{1b}'), "{said:?}");
    let said = problem("[users.\"\\u001b\"]");
    assert!(!said.contains('\u{1b}'), "{said:?}");
    let said = problem("\u{9b}2J = 1");
    assert!(!said.contains('\u{9b}'), "{said:?}");
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic_the_reader(bytes: Vec<u8>) {
        let _ = read("FILE", &bytes);
    }
}
