use super::*;
use crate::access::tests::fixture::{device, labels, login, role, subject, with_preset};
use crate::model::role::IdleTimeout;
use crate::store::UserId;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9));

fn facts<'a>(subject: &'a Subject, device: Option<&'a Device>) -> Facts<'a> {
    Facts {
        subject,
        client: HERE,
        name: "kitchen-cam",
        device,
    }
}

fn said(subject: &Subject, device: Option<&Device>) -> Result<(), String> {
    reach(facts(subject, device))
        .map(drop)
        .map_err(|denied| denied.to_string())
}

fn technician() -> Subject {
    subject(vec![role(
        "tech",
        r#"allow = { labels = { role = "camera" }, logins = ["pi"], abilities = ["shell"] }"#,
    )])
}

#[test]
fn an_admin_reaches_what_there_is() {
    let admin = with_preset("admin");
    assert_eq!(said(&admin, Some(&device(labels(&[]), None))), Ok(()));
    let unknown = Err("no device \"kitchen-cam\" that you may reach".to_owned());
    assert_eq!(said(&admin, None), unknown);
    let revoked = device(labels(&[]), Some(Timestamp(0)));
    let revoked = said(&admin, Some(&revoked)).unwrap_err();
    assert!(
        revoked.starts_with("kitchen-cam was revoked on 1970-01-01"),
        "{revoked}"
    );
}

#[test]
fn what_one_may_not_see_looks_the_same_as_nothing() {
    let mut disabled = with_preset("admin");
    disabled.user.disabled = true;
    let elsewhere = subject(vec![role(
        "home",
        r#"source = "198.51.100.0/24"
        allow = { labels = { "*" = "*" }, logins = ["*"], abilities = ["shell"] }"#,
    )]);
    for refused in [subject(vec![]), disabled, elsewhere, technician()] {
        let absent = said(&refused, None);
        for revoked in [None, Some(Timestamp(0))] {
            let there = device(labels(&[("role", "door")]), revoked);
            assert!(absent.is_err());
            assert_eq!(said(&refused, Some(&there)), absent);
        }
    }
    // Who may see it hears what is the matter.
    let cam = device(labels(&[("role", "camera")]), Some(Timestamp(0)));
    assert!(
        said(&technician(), Some(&cam))
            .unwrap_err()
            .contains("was revoked")
    );
}

#[test]
fn an_auditor_sees_every_device_and_does_nothing_there() {
    let auditor = with_preset("auditor");
    let cam = device(labels(&[]), None);
    let reach = reach(facts(&auditor, Some(&cam))).unwrap();
    for ability in Ability::ALL {
        let denied = reach.authorize(&login("pi"), ability).unwrap_err();
        assert!(
            denied
                .to_string()
                .starts_with("user \"alice\" may not use "),
            "{denied}"
        );
    }
}

#[test]
fn a_login_and_an_ability_are_allowed_or_named_in_the_refusal() {
    let (tech, cam) = (technician(), device(labels(&[("role", "camera")]), None));
    let reach = reach(facts(&tech, Some(&cam))).unwrap();
    let authorized = reach.authorize(&login("pi"), Ability::Shell).unwrap();
    assert_eq!(authorized.login().as_str(), "pi");
    assert!(authorized.check_also(Ability::Exec).is_err());
    let refused = |who: &str, what| reach.authorize(&login(who), what).unwrap_err().to_string();
    assert_eq!(
        refused("root", Ability::Shell),
        "user \"alice\" may not use a shell as root on kitchen-cam"
    );
    assert_eq!(
        refused("pi", Ability::Sftp),
        "user \"alice\" may not use sftp as pi on kitchen-cam"
    );
}

fn still_allowed(authorized: &Authorized, facts: Facts<'_>) -> Result<Terms, Denied> {
    authorized.reauthorize(facts).map(|now| now.terms().clone())
}

#[test]
fn live_session_remains_while_still_allowed() {
    let (tech, cam) = (technician(), device(labels(&[("role", "camera")]), None));
    let reach = reach(facts(&tech, Some(&cam))).unwrap();
    let authorized = reach.authorize(&login("pi"), Ability::Shell).unwrap();
    assert_eq!(
        still_allowed(&authorized, facts(&tech, Some(&cam))),
        Ok(tech.terms())
    );
    // On other terms, which it hears of.
    let mut patient = technician();
    patient.roles[0].idle_timeout = Some(IdleTimeout::Never);
    assert_ne!(patient.terms(), tech.terms());
    for subject in [patient, with_preset("admin")] {
        let now = still_allowed(&authorized, facts(&subject, Some(&cam)));
        assert_eq!(now, Ok(subject.terms()));
    }

    let mut disabled = tech.clone();
    disabled.user.disabled = true;
    let mut successor = tech.clone();
    successor.user.id = UserId(tech.user.id.0 + 1);
    let mut denied = tech.clone();
    denied
        .roles
        .push(role("no-shell", r#"deny = { abilities = ["shell"] }"#));
    for subject in [disabled, successor, denied, subject(vec![])] {
        assert!(
            still_allowed(&authorized, facts(&subject, Some(&cam))).is_err(),
            "{subject:?}"
        );
    }
    let mut other = cam.clone();
    other.id = holdfast_protocol::ids::DeviceId([2; 16]);
    let door = device(labels(&[("role", "door")]), None);
    let revoked = device(cam.labels.clone(), Some(Timestamp(0)));
    for device in [Some(&other), Some(&door), Some(&revoked), None] {
        assert!(
            still_allowed(&authorized, facts(&tech, device)).is_err(),
            "{device:?}"
        );
    }
    let mut from_afar = technician();
    from_afar.roles[0].source = vec!["198.51.100.0/24".parse().unwrap()];
    assert!(still_allowed(&authorized, facts(&from_afar, Some(&cam))).is_err());
}

#[test]
fn a_name_from_outside_cannot_drive_a_terminal() {
    let admin = with_preset("admin");
    let denied = reach(Facts {
        name: "a\u{1b}[2J\r\n",
        ..facts(&admin, None)
    });
    let said = denied.unwrap_err().to_string();
    assert!(!said.contains(['\u{1b}', '\r', '\n']), "{said}");
}
