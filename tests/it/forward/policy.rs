//! Forwards reach what the policy allows, and end when it changes.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use super::{Target, Tunnel, forwards, listed};
use crate::harness::{Relay, SOON, Site, User, Way, own_login, run_with_input, wait_until};

/// Puts the role `tech`, which may forward everywhere, into force with these lists.
#[track_caller]
pub(super) fn role(relay: &Relay, lists: &str, more: &str) {
    let text = format!(
        "[roles.tech]\n{more}\nforward = {{ {lists} }}\n\
         [roles.tech.allow]\nlabels = {{ '*' = '*' }}\nlogins = ['*']\nabilities = ['forward']\n"
    );
    run_with_input(&mut relay.command(&["apply", "-f", "-"]), text.as_bytes()).ok();
}

fn reach(user: &User, way: Way, to: &str) -> crate::harness::Output {
    let mut ssh = user.ssh(way, &own_login(), "kitchen-cam");
    run_with_input(ssh.args(["-W", to]), b"abc")
}

#[test]
fn no_spelling_of_an_address_gets_past_the_rules() {
    let site = Site::new();
    let target = Target::counting();
    let port = target.port();
    role(
        &site.relay,
        &format!("connect = ['192.0.2.0/24:*', 'localhost:{port}'], deny = ['localhost:1-1023']"),
        "",
    );
    let bob = site.relay.user("bob", &["tech"]);
    let itself = [
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "2130706433",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
        "localhost",
    ];
    for (host, way) in itself.into_iter().zip(Way::BOTH.into_iter().cycle()) {
        let answer = reach(&bob, way, &format!("{host}:{port}")).ok();
        assert_eq!(answer.out(), "3 bytes", "{host}");
    }
    assert_eq!(target.connections(), itself.len() as u64);
    // The same device, and the rules name other addresses alone.
    role(
        &site.relay,
        "connect = ['192.0.2.0/24:*', '*.local:*', 'localhost.localdomain:*', '[2001:db8::/32]:*']",
        "",
    );
    for (host, way) in itself.into_iter().zip(Way::BOTH.into_iter().cycle()) {
        let refused = reach(&bob, way, &format!("{host}:{port}")).exits(255);
        assert_eq!(refused.out(), "", "{host}");
        refused
            .says("administratively prohibited: user \"bob\" may not forward to ")
            .says(&format!("on kitchen-cam, which is 127.0.0.1:{port} there"));
    }
    role(&site.relay, "deny = ['127.0.0.0/8:*']", "");
    for (host, way) in itself[..6].iter().zip(Way::BOTH.into_iter().cycle()) {
        reach(&bob, way, &format!("{host}:{port}")).exits(255);
    }
    assert_eq!(
        target.connections(),
        itself.len() as u64,
        "the target was dialled"
    );
    // Rows reach the log a moment later.
    wait_until(SOON, "all refusals in the log", || {
        let rows = forwards(&site.relay);
        let refused = rows.iter().filter(|row| row["outcome"] == "refused");
        refused.count() == 13
    });
}

#[test]
fn own_address_of_the_device_is_localhost_to_a_denial() {
    let route = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    if route.connect("198.51.100.1:9").is_err() {
        eprintln!("skipped: it needs an address beside loopback");
        return;
    }
    let own = route.local_addr().unwrap().ip();
    let site = Site::new();
    // A service that listens on all addresses, and is denied as `localhost`.
    let target = Target::counting_on("0.0.0.0");
    let to = format!("{own}:{}", target.port());
    role(&site.relay, "connect = ['*:*'], deny = ['localhost:*']", "");
    let bob = site.relay.user("bob", &["tech"]);
    for way in Way::BOTH {
        let refused = reach(&bob, way, &to).exits(255);
        refused.says(&format!("may not forward to {to}"));
    }
    assert_eq!(target.connections(), 0);
    role(&site.relay, &format!("connect = ['{own}:*']"), "");
    for way in Way::BOTH {
        assert_eq!(reach(&bob, way, &to).ok().out(), "3 bytes", "{way:?}");
    }
}

#[test]
fn who_may_not_forward_does_not() {
    let site = Site::new();
    let target = Target::counting();
    let text = "[roles.shell.allow]\nlabels = { '*' = '*' }\nlogins = ['*']\nabilities = ['shell', 'exec']\n";
    run_with_input(
        &mut site.relay.command(&["apply", "-f", "-"]),
        text.as_bytes(),
    )
    .ok();
    let bob = site.relay.user("bob", &["shell"]);
    let to = format!("127.0.0.1:{}", target.port());
    for way in Way::BOTH {
        let refused = reach(&bob, way, &to).exits(255);
        refused.says(&format!(
            "user \"bob\" may not use port forwarding as {} on kitchen-cam",
            own_login()
        ));
    }
    assert_eq!(target.connections(), 0);
}

#[test]
fn what_ends_a_session_ends_a_forward() {
    let site = Site::new();
    let target = Target::echo();
    role(&site.relay, "connect = ['localhost:*']", "");
    let bob = site.relay.user("bob", &["tech"]);
    let open = |way| {
        let ssh = bob.ssh(way, &own_login(), "kitchen-cam");
        let to = format!("127.0.0.1:{}", target.port());
        let tunnel = Tunnel::start(ssh, bob.folder(), &to);
        let mut stream = tunnel.connect();
        stream.write_all(b"hello").unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        wait_until(SOON, "the forward in the live sessions", || {
            listed(&site.relay).len() == 1
        });
        (tunnel, stream)
    };
    let ended = |(_tunnel, mut stream): (Tunnel, std::os::unix::net::UnixStream), reason: &str| {
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0, "{reason}");
        wait_until(SOON, "the end in the log", || {
            let rows = forwards(&site.relay);
            rows.last()
                .is_some_and(|row| row["state"] == "closed" && row["reason"] == reason)
        });
        wait_until(SOON, "an empty board", || listed(&site.relay).is_empty());
    };
    // A lock on the login: the connection itself stays.
    let forward = open(Way::Direct);
    site.relay.admin(&["lock", "login", &own_login()]).ok();
    ended(forward, "locked");
    site.relay.admin(&["unlock", "1"]).ok();
    let forward = open(Way::Jump);
    let id = listed(&site.relay)[0]["id"].as_str().unwrap().to_owned();
    site.relay.admin(&["sessions", "kill", &id]).ok();
    ended(forward, "killed");
    // The rules are changed under it: only what they still name goes on.
    let forward = open(Way::Direct);
    role(
        &site.relay,
        "connect = ['127.0.0.0/8:*', '192.0.2.1:1']",
        "",
    );
    let (tunnel, mut stream) = forward;
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    role(&site.relay, "connect = ['192.0.2.1:1']", "");
    ended((tunnel, stream), "access-changed");
    // Nothing is said, either way.
    role(
        &site.relay,
        "connect = ['localhost:*']",
        "idle_timeout = '2s'",
    );
    let (tunnel, mut stream) = open(Way::Direct);
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(700));
        stream.write_all(b"hello").unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
    }
    ended((tunnel, stream), "idle");
}
