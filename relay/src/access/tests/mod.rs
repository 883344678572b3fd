//! Tables of the rules, and a naive model of them.

pub(crate) mod fixture;
mod model;

use std::net::IpAddr;
use std::time::Duration;

use super::policy::{Ability, Longest, Subject};
use crate::model::role::{ContentBound, OnDisconnect, RecordingMode, Role, StdinMode};
use fixture::{labels, login, role, subject, with_preset};

/// The labels of a device.
type Device = &'static [(&'static str, &'static str)];

/// Returns what `alice` with one role of this body may do, as `LOGIN ABILITY` on a device with these labels.
#[track_caller]
fn may(body: &str, device: &[(&str, &str)], who: &str, ability: Ability) -> bool {
    subject(vec![role("r", body)]).may_on(&labels(device), &login(who), ability)
}

#[test]
fn labels_are_matched_by_value_list_star_and_not() {
    let table: [(&str, Device, bool); 24] = [
        (r#"{ role = "camera" }"#, &[("role", "camera")], true),
        (r#"{ role = "camera" }"#, &[("role", "door")], false),
        (r#"{ role = "camera" }"#, &[("site", "camera")], false),
        (r#"{ role = "camera" }"#, &[], false),
        (r#"{ role = "Camera" }"#, &[("role", "camera")], false),
        (
            r#"{ site = ["berlin", "paris"] }"#,
            &[("site", "paris")],
            true,
        ),
        (
            r#"{ site = ["berlin", "paris"] }"#,
            &[("site", "rome")],
            false,
        ),
        (r#"{ site = ["berlin", "paris"] }"#, &[], false),
        (r#"{ site = "*" }"#, &[("site", "rome")], true),
        (r#"{ site = "*" }"#, &[("role", "rome")], false),
        (r#"{ env = "!=lab" }"#, &[("env", "prod")], true),
        (r#"{ env = "!=lab" }"#, &[("env", "lab")], false),
        // As in Kubernetes: a device without the label is not in the lab.
        (r#"{ env = "!=lab" }"#, &[], true),
        (r#"{ env = ["!=lab", "!=test"] }"#, &[("env", "prod")], true),
        (
            r#"{ env = ["!=lab", "!=test"] }"#,
            &[("env", "test")],
            false,
        ),
        (r#"{ env = ["*", "!=lab"] }"#, &[("env", "prod")], true),
        (r#"{ env = ["*", "!=lab"] }"#, &[("env", "lab")], false),
        (r#"{ env = ["*", "!=lab"] }"#, &[], false),
        (
            r#"{ role = "camera", env = "!=lab" }"#,
            &[("role", "camera")],
            true,
        ),
        (
            r#"{ role = "camera", env = "!=lab" }"#,
            &[("env", "prod")],
            false,
        ),
        (r#"{ "*" = "*" }"#, &[], true),
        (r#"{ "*" = "*" }"#, &[("a", "b")], true),
        (
            r#"{ "*" = "*", role = "camera" }"#,
            &[("role", "door")],
            false,
        ),
        (
            r#"{ "*" = "*", role = "camera" }"#,
            &[("role", "camera")],
            true,
        ),
    ];
    for (rule, device, expected) in table {
        let allow =
            format!(r#"allow = {{ labels = {rule}, logins = ["pi"], abilities = ["shell"] }}"#);
        let found = may(&allow, device, "pi", Ability::Shell);
        assert_eq!(found, expected, "allow {rule} on {device:?}");
        let deny = format!(
            r#"allow = {{ labels = {{ "*" = "*" }}, logins = ["*"], abilities = ["shell"] }}
            deny = {{ labels = {rule} }}"#
        );
        let found = may(&deny, device, "pi", Ability::Shell);
        assert_eq!(found, !expected, "deny {rule} on {device:?}");
    }
}

#[test]
fn logins_are_matched_by_name_star_and_user() {
    let table = [
        (r#"["pi"]"#, "pi", true),
        (r#"["pi"]"#, "root", false),
        (r#"["pi", "root"]"#, "root", true),
        (r#"["*"]"#, "root", true),
        (r#"["{user}"]"#, "alice", true),
        (r#"["{user}"]"#, "bob", false),
        (r#"["pi", "{user}"]"#, "alice", true),
    ];
    for (logins, who, expected) in table {
        let allow = format!(
            r#"allow = {{ labels = {{ "*" = "*" }}, logins = {logins}, abilities = ["exec"] }}"#
        );
        assert_eq!(
            may(&allow, &[], who, Ability::Exec),
            expected,
            "{logins} {who}"
        );
        let deny = format!(
            r#"allow = {{ labels = {{ "*" = "*" }}, logins = ["*"], abilities = ["exec"] }}
            deny = {{ logins = {logins} }}"#
        );
        assert_eq!(
            may(&deny, &[], who, Ability::Exec),
            !expected,
            "deny {logins} {who}"
        );
    }
}

#[test]
fn a_deny_rule_denies_all_of_what_it_does_not_name() {
    let any =
        r#"allow = { labels = { "*" = "*" }, logins = ["*"], abilities = ["shell", "exec"] }"#;
    let table = [
        (r#"logins = ["root"]"#, "root", Ability::Shell, false),
        (r#"logins = ["root"]"#, "pi", Ability::Shell, true),
        (r#"abilities = ["exec"]"#, "pi", Ability::Exec, false),
        (r#"abilities = ["exec"]"#, "pi", Ability::Shell, true),
        (
            r#"logins = ["root"], abilities = ["exec"]"#,
            "root",
            Ability::Shell,
            true,
        ),
        (
            r#"logins = ["root"], abilities = ["exec"]"#,
            "root",
            Ability::Exec,
            false,
        ),
        (r#"labels = { "*" = "*" }"#, "pi", Ability::Shell, false),
    ];
    for (deny, who, ability, expected) in table {
        let body = format!("{any}\ndeny = {{ {deny} }}");
        assert_eq!(
            may(&body, &[], who, ability),
            expected,
            "{deny} {who} {ability:?}"
        );
    }
}

#[test]
fn deny_beats_allow_over_all_roles() {
    let allow = || {
        role(
            "a",
            r#"allow = { labels = { "*" = "*" }, logins = ["*"], abilities = ["shell"] }"#,
        )
    };
    let deny = || role("d", r#"deny = { logins = ["root"] }"#);
    for roles in [vec![allow(), deny()], vec![deny(), allow()]] {
        let both = subject(roles);
        assert!(!both.may_on(&labels(&[]), &login("root"), Ability::Shell));
        assert!(both.may_on(&labels(&[]), &login("pi"), Ability::Shell));
    }
    let mut admin = with_preset("admin");
    admin
        .roles
        .push(role("d", r#"deny = { abilities = ["admin"] }"#));
    assert!(!admin.may(Ability::Admin) && admin.may(Ability::Review));
}

#[test]
fn strictest_limits_and_recording_win() {
    let nothing = subject(vec![role("n", "")]).terms();
    assert_eq!(
        nothing.cutoffs.idle.after,
        Some(Duration::from_secs(15 * 60))
    );
    assert_eq!(nothing.cutoffs.idle.role, None);
    assert_eq!(nothing.cutoffs.longest, Longest::default());
    assert_eq!(nothing.on_disconnect, OnDisconnect::Hup);
    assert_eq!(nothing.limits, crate::model::role::Limits::default());
    assert_eq!(nothing.recording, RecordingMode::BestEffort);
    assert_eq!(nothing.record_stdin, StdinMode::Redact);
    assert_eq!(nothing.record_content, ContentBound::Bytes(16 << 20));

    let a = || {
        role(
            "a",
            "idle_timeout = \"1h\"\nmax_session = \"9h\"\non_disconnect = \"leave\"\nrecording = \"off\"\nrecord_stdin = \"full\"\nrecord_content = \"1 MiB\"\nlimits = { max_sessions = 5, max_channels = 0 }",
        )
    };
    let b = || {
        role(
            "b",
            "idle_timeout = \"never\"\nmax_session = \"8h\"\non_disconnect = \"kill\"\nrecording = \"strict\"\nrecord_stdin = \"off\"\nrecord_content = \"2 MiB\"\nlimits = { max_sessions = 3, max_connections = 9 }",
        )
    };
    for roles in [
        vec![a(), b()],
        vec![b(), a()],
        vec![b(), role("n", ""), a()],
    ] {
        let terms = subject(roles).terms();
        // A role that says nothing does not bring the default back.
        assert_eq!(terms.cutoffs.idle.after, Some(Duration::from_secs(3600)));
        assert_eq!(terms.cutoffs.idle.role.unwrap().as_str(), "a");
        let longest = terms.cutoffs.longest;
        assert_eq!(longest.after, Some(Duration::from_secs(8 * 3600)));
        assert_eq!(longest.role.unwrap().as_str(), "b");
        assert_eq!(terms.on_disconnect, OnDisconnect::Kill);
        assert_eq!(terms.limits.max_sessions.unwrap().get(), 3);
        assert_eq!(terms.limits.max_connections.unwrap().get(), 9);
        assert_eq!(terms.limits.max_channels, None);
        assert_eq!(terms.recording, RecordingMode::Strict);
        assert_eq!(terms.record_stdin, StdinMode::Full);
        assert_eq!(terms.record_content, ContentBound::Bytes(2 << 20));
    }
    let unlimited = role("u", "record_content = \"unlimited\"");
    let all = subject(vec![a(), unlimited, b()]).terms().record_content;
    assert_eq!(all, ContentBound::Unlimited);
    let never = subject(vec![b()]).terms().cutoffs.idle;
    assert_eq!((never.after, never.role.unwrap().as_str()), (None, "b"));
}

#[test]
fn a_role_counts_from_its_networks_alone() {
    let home = || {
        role(
            "home",
            r#"source = ["203.0.113.0/24", "2001:db8::/32", "192.0.2.7"]
        idle_timeout = "1m"
        allow = { labels = { "*" = "*" }, logins = ["*"], abilities = ["shell"] }"#,
        )
    };
    let table = [
        ("203.0.113.9", true),
        ("203.0.114.9", false),
        ("2001:db8::1", true),
        ("2001:db9::1", false),
        ("192.0.2.7", true),
        ("192.0.2.8", false),
        // How a socket for both families shows an IPv4 client.
        ("::ffff:203.0.113.9", true),
        ("::ffff:203.0.114.9", false),
    ];
    for (address, expected) in table {
        let address: IpAddr = address.parse().unwrap();
        let here = subject(vec![home()]).is_from(address);
        let found = here.may_on(&labels(&[]), &login("pi"), Ability::Shell);
        assert_eq!(found, expected, "{address}");
        assert_eq!(
            here.terms().cutoffs.idle.role.is_some(),
            expected,
            "{address}"
        );
        assert_eq!(here.may_see(&labels(&[])), expected, "{address}");
    }
}

#[test]
fn one_sees_the_devices_on_which_one_may_do_anything() {
    let sees = |body: &str, device: &[(&str, &str)]| {
        subject(vec![role("r", body)]).may_see(&labels(device))
    };
    let camera = [("role", "camera")];
    let allow = |logins: &str| {
        format!(
            r#"allow = {{ labels = {{ role = "camera" }}, logins = {logins}, abilities = ["exec"] }}"#
        )
    };
    assert!(sees(&allow(r#"["pi"]"#), &camera));
    assert!(!sees(&allow(r#"["pi"]"#), &[]));
    assert!(!sees(r#"allow = { abilities = ["review-own"] }"#, &camera));
    assert!(sees(r#"allow = { abilities = ["review"] }"#, &camera));
    assert!(sees(r#"allow = { abilities = ["admin"] }"#, &[]));
    let table = [
        (r#"["pi"]"#, r#"logins = ["pi"]"#, false),
        (r#"["pi"]"#, r#"logins = ["root"]"#, true),
        (r#"["pi"]"#, r#"logins = ["*"]"#, false),
        (r#"["*"]"#, r#"logins = ["pi", "root"]"#, true),
        (r#"["*"]"#, r#"logins = ["*"]"#, false),
        (r#"["{user}"]"#, r#"logins = ["alice"]"#, false),
        (r#"["alice"]"#, r#"logins = ["{user}"]"#, false),
        (r#"["pi"]"#, r#"labels = { role = "camera" }"#, false),
        (r#"["pi"]"#, r#"labels = { role = "door" }"#, true),
        (r#"["*"]"#, r#"abilities = ["exec"]"#, false),
        (r#"["*"]"#, r#"abilities = ["shell"]"#, true),
    ];
    for (logins, deny, expected) in table {
        let body = format!("{}\ndeny = {{ {deny} }}", allow(logins));
        assert_eq!(sees(&body, &camera), expected, "{logins} but {deny}");
    }
}

#[test]
fn a_disabled_user_may_nothing() {
    let mut admin = with_preset("admin");
    admin.user.disabled = true;
    let all = labels(&[]);
    assert!(!admin.may_see(&all));
    for ability in Ability::ALL {
        assert!(!admin.may(ability) && !admin.may_on(&all, &login("root"), ability));
    }
}

#[test]
fn presets_are_what_their_names_say() {
    let can = |subject: &Subject, ability: Ability| match ability.needs_device() {
        true => subject.may_on(&labels(&[("a", "b")]), &login("root"), ability),
        false => subject.may(ability),
    };
    use Ability::{AgentForward, Exec, Forward, Review, ReviewOwn, Sftp, Shell};
    let table: [(&str, &[Ability]); 3] = [
        ("admin", &Ability::OFFERED),
        (
            "operator",
            &[Shell, Exec, Sftp, Forward, AgentForward, ReviewOwn],
        ),
        ("auditor", &[Review, ReviewOwn]),
    ];
    for (name, allowed) in table {
        let subject = with_preset(name);
        for ability in Ability::ALL {
            assert_eq!(
                can(&subject, ability),
                allowed.contains(&ability),
                "{name} {ability:?}"
            );
        }
    }
}

/// Returns a role that may forward on cameras, with these lists.
fn forwards(name: &str, lists: &str) -> Role {
    role(
        name,
        &format!(
            "forward = {{ {lists} }}\n[allow]\nlabels = {{ role = 'camera' }}\nlogins = ['pi']\nabilities = ['forward']"
        ),
    )
}

#[test]
fn forward_targets_follow_allow_and_deny_rules() {
    let permits = |roles: Vec<Role>, to: &str| {
        let camera = labels(&[("role", "camera")]);
        let policy = subject(roles).may_connect(&camera, &login("pi"));
        policy.permits("", to.parse().unwrap(), false)
    };
    let (web, db) = (
        || forwards("web", "connect = ['10.0.0.0/8:80']"),
        || forwards("db", "connect = ['localhost:5432']"),
    );
    assert!(permits(vec![web()], "10.0.0.1:80"));
    assert!(!permits(vec![web()], "127.0.0.1:5432"));
    assert!(permits(vec![web(), db()], "127.0.0.1:5432"));
    assert!(permits(vec![web(), db()], "10.0.0.1:80"));
    assert!(!permits(vec![web(), db()], "10.0.0.1:5432"));
    // One that says nothing of addresses allows all of them, in whichever order.
    let anywhere = || forwards("anywhere", "");
    assert!(permits(vec![web(), anywhere()], "192.0.2.1:1"));
    assert!(permits(vec![anywhere(), web()], "192.0.2.1:1"));
    // One that does not allow forwards there contributes no list.
    let elsewhere = || {
        role(
            "elsewhere",
            "forward = { connect = ['*:*'] }\n[allow]\nlabels = { role = 'sensor' }\nlogins = ['pi']\nabilities = ['forward']",
        )
    };
    assert!(!permits(vec![web(), elsewhere()], "192.0.2.1:1"));
    let nowhere = || forwards("nowhere", "connect = []");
    assert!(!permits(vec![nowhere()], "192.0.2.1:1"));
    // But what any role denies is denied.
    let careful = || role("careful", "forward = { deny = ['10.9.0.0/16:*'] }");
    assert!(permits(vec![web(), careful()], "10.8.0.1:80"));
    assert!(!permits(vec![web(), careful()], "10.9.0.1:80"));
    assert!(!permits(vec![careful(), anywhere()], "10.9.0.1:80"));
    assert!(!permits(vec![], "10.9.0.1:80"), "no role, no forward");
}

#[test]
fn a_device_listens_on_loopback_where_no_role_says_more() {
    let permits = |roles: Vec<Role>, at: &str| {
        let camera = labels(&[("role", "camera")]);
        let policy = subject(roles).may_listen(&camera, &login("pi"));
        policy.permits_listening("", at.parse().unwrap())
    };
    let plain = || forwards("plain", "");
    assert!(permits(vec![plain()], "127.0.0.1:80"));
    assert!(permits(vec![plain()], "[::1]:80"));
    for wide in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80"] {
        assert!(!permits(vec![plain()], wide), "{wide}");
        assert!(
            permits(vec![plain(), forwards("w", "listen = ['*:*']")], wide),
            "{wide}"
        );
    }
    let narrow = || forwards("narrow", "listen = ['127.0.0.1:8000-8100']");
    assert!(permits(vec![narrow()], "127.0.0.1:8000"));
    assert!(!permits(vec![narrow()], "127.0.0.1:80"));
    assert!(!permits(
        vec![forwards("none", "listen = []")],
        "127.0.0.1:80"
    ));
    assert!(!permits(
        vec![plain(), forwards("d", "deny = ['localhost:80']")],
        "127.0.0.1:80"
    ));
    assert!(!permits(vec![], "127.0.0.1:80"), "no role, no port");
}

#[test]
fn a_role_that_speaks_of_forwards_means_the_paths_that_it_names() {
    let camera = labels(&[("role", "camera")]);
    let allow =
        "allow = { labels = { '*' = '*' }, logins = ['pi'], abilities = ['forward', 'exec'] }";
    let named = |name: &str, lists: &str| role(name, &format!("forward = {{ {lists} }}\n{allow}"));
    let reaches = |roles: &[Role]| {
        let policy = subject(roles.to_vec()).may_connect_paths(&camera, &login("pi"));
        ["/run/a", "/srv/b"].map(|path| policy.permits(path.as_bytes()))
    };
    let silent = || role("silent", allow);
    let one = || named("one", "connect_paths = ['/run/a']");
    for (roles, expected) in [
        (vec![silent()], [true, true]),
        (vec![one()], [true, false]),
        (vec![one(), silent()], [true, true]),
        (
            vec![one(), named("more", "connect_paths = ['/srv/*']")],
            [true, true],
        ),
        (vec![named("ports", "connect = ['*:*']")], [false, false]),
        (
            vec![named("ports", "listen = ['*:*']"), one()],
            [true, false],
        ),
        (
            vec![named("ports", "deny = ['10.0.0.0/8:*']")],
            [false, false],
        ),
        (
            vec![silent(), role("none", "forward = { deny = ['*:*'] }")],
            [false, false],
        ),
        (
            vec![silent(), role("some", "forward = { deny = ['*:80'] }")],
            [true, true],
        ),
    ] {
        let names: Vec<String> = roles.iter().map(|role| role.name.to_string()).collect();
        assert_eq!(reaches(&roles), expected, "{names:?}");
    }
    // Lists of what may be dialled are not of what may be made, and another login has neither.
    let listen = subject(vec![one()]).may_listen_paths(&camera, &login("pi"));
    let other = subject(vec![silent()]).may_connect_paths(&camera, &login("root"));
    assert!(!listen.permits(b"/run/a") && !other.permits(b"/run/a"));
}
