//! Quotas over several relays.

use crate::control::role;
use crate::harness::{Cluster, Device, Running, SOON, Way, own_login, wait_until};

/// The logins that come at once.
const LOGINS: usize = 50;
const LIMIT: usize = 3;

#[test]
fn fifty_logins_over_three_relays_at_a_limit_of_three() {
    let Some(cluster) = Cluster::start(3) else {
        return;
    };
    let first = &cluster.relays[0];
    let device = Device::online(first, "kitchen-cam");
    role(first, "tech", "limits = { max_sessions = 3 }");
    let bob = first.user("bob", &["tech"]);
    // All relays have the same host key. Its certificate is for each relay's own name, of which ssh warns.
    let known = format!("HostKeyAlias=[{}]:{}", first.ssh().ip(), first.ssh().port());
    let login = |number: usize| {
        let relay = cluster.relays[number % cluster.relays.len()].ssh();
        let mut ssh = bob.ssh(Way::Direct, &own_login(), device.name());
        ssh.args(["-o", &known, "-o", &format!("HostName={}", relay.ip())]);
        ssh.args(["-p", &relay.port().to_string(), "echo in; exec cat"]);
        Running::start(&mut ssh)
    };
    let mut logins: Vec<Running> = (0..LOGINS).map(login).collect();
    wait_until(6 * SOON, "all but those that may are refused", || {
        let living = logins
            .iter_mut()
            .filter_map(|it| it.is_alive().then_some(()));
        let living = living.count();
        assert!(living >= LIMIT, "{living} of {LOGINS} are left");
        living == LIMIT
    });
    let says = "too many concurrent sessions for user \"bob\" (max 3)";
    let (refused, inside): (Vec<_>, Vec<_>) = logins
        .into_iter()
        .partition(|login| login.err().contains(says));
    assert_eq!(inside.len(), LIMIT);
    for login in &inside {
        login.wait_out("in\n");
    }
    for login in refused {
        login.wait(SOON).exits(255);
    }
    let sessions = first.json(&["sessions", "--json"]);
    assert_eq!(sessions.as_array().unwrap().len(), LIMIT, "{sessions}");
    // A slot that one relay gives back is free at the others.
    for login in inside {
        login.signal(rustix::process::Signal::KILL);
    }
    for number in 0..cluster.relays.len() {
        let mut next = login(number);
        next.end_input();
        assert_eq!(next.wait(SOON).ok().out(), "in\n");
    }
}
