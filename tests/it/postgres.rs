//! A relay whose database is on a PostgreSQL server.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use holdfast_tests::postgres::OwnServer;

use crate::harness::{Device, Relay, SOON, Terminal, User, Way, own_login, run, wait_until};

/// The time within which a login without a database has its answer.
const BOUND: Duration = Duration::from_secs(10);

/// Makes a database for a relay, and returns its address, with a password that the server does not ask for.
fn database(server: &OwnServer) -> String {
    let made = server
        .get()
        .psql("CREATE DATABASE relay TEMPLATE template0");
    made.unwrap();
    let url = server.get().url("relay");
    url.replacen("@", ":s3cret-password@", 1)
}

#[test]
fn relay_on_a_server_is_remembered_by_its_state_folder() {
    let server = OwnServer::start();
    let mut relay = Relay::start_with(&["--database", &database(&server)]);
    let alice = relay.admin_user();
    let device = Device::online(&relay, "kitchen-cam");
    for way in Way::BOTH {
        let output = alice.exec(way, device.name(), "echo hello; exit 7");
        assert_eq!(output.exits(7).out(), "hello\n", "{way:?}");
    }
    let listing = run(alice.console().arg("devices")).ok();
    assert!(listing.out().contains("kitchen-cam  online"), "{listing}");
    let doctor = relay.admin(&["doctor"]).out();
    assert!(doctor.contains("answers, tables of version"), "{doctor}");

    let remembered = relay.state().join("database");
    let mode = std::fs::metadata(&remembered).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Everything that is there without the flag was remembered.
    relay.clear_flags();
    relay.restart();
    relay.wait_state(device.name(), "online", SOON);
    relay.terminate(SOON);
    let other = "postgres://holdfast:0ther-s3cret@localhost/other";
    let refused = relay.admin(&["serve", "--database", other]).exits(1);
    let refused =
        refused.says("the database postgres://holdfast@localhost/other cannot be reached");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!said.contains("s3cret"), "{said}");
}

#[test]
fn folder_does_not_keep_the_database_of_another_relay() {
    let server = OwnServer::start();
    let mut first = Relay::start_with(&["--database", &database(&server)]);
    first.terminate(SOON);
    let second = Relay::new(&[]);
    let theirs = ["serve", "--database", &server.get().url("relay")];
    let refused = second.admin(&theirs).exits(1);
    refused.says("holds another key than this relay has used so far");
    assert!(!second.state().join("database").exists());
}

#[test]
fn folder_with_a_database_of_its_own_takes_no_server() {
    let mut relay = Relay::start();
    relay.terminate(SOON);
    let url = "postgres://holdfast@localhost/relay";
    let refused = relay.admin(&["serve", "--database", url]).exits(1);
    let refused = refused.says("relay.db, and --database is postgres://holdfast@localhost/relay");
    refused.says("moves to a server by `relay migrate --to`");
}

#[test]
fn configuration_with_a_password_is_closed_to_others() {
    let server = OwnServer::start();
    let mut relay = Relay::new(&[]);
    let file = relay.folder().join("relay.toml");
    let text = format!("database = \"{}\"\n", database(&server));
    std::fs::write(&file, text).unwrap();
    let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode));
    mode(0o644).unwrap();
    relay.add_flags(&["--config", file.to_str().unwrap()]);
    relay.start_again();
    let words = "has the database's password, and other accounts can read it";
    assert!(relay.log().contains(words), "{}", relay.log());
    let doctor = relay.admin(&["doctor"]).out();
    assert!(
        doctor.contains(words) && doctor.contains("chmod 600"),
        "{doctor}"
    );
    mode(0o640).unwrap();
    relay.restart();
    let doctor = relay.admin(&["doctor"]).out();
    assert!(!doctor.contains(words), "{doctor}");
}

#[test]
fn refused_login_is_not_an_outage_of_the_server() {
    let server = OwnServer::start();
    let url = database(&server);
    let relay = Relay::new(&[]);
    let serve = |url: &str| relay.admin(&["serve", "--database", url]).exits(1);
    let refused = serve(&url.replacen("holdfast:", "stranger:", 1));
    let refused = refused.says("does not admit this relay").says("PGPASSWORD");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!said.contains("s3cret"), "{said}");
    let missing = serve(&url.replacen("/relay", "/nowhere", 1));
    missing.says("does not admit this relay").says("createdb");
}

#[test]
fn sessions_survive_an_outage_of_the_database() {
    let mut server = OwnServer::start();
    let relay = Relay::start_with(&["--database", &database(&server)]);
    let alice = relay.admin_user();
    let device = Device::online(&relay, "kitchen-cam");
    let [way, _] = Way::BOTH;
    let ssh = alice.ssh(way, &own_login(), device.name());
    let mut terminal = Terminal::start(&ssh, 80, 24);
    terminal.send("echo be''fore\r");
    terminal.expect("before");

    // A crash, and a hang: nothing answers at all.
    server.crash();
    terminal.send("echo dur''ing\r");
    terminal.expect("during");
    fails_with_a_sentence(&alice, &device);
    let refused = relay.admin(&["devices"]).exits(1);
    let refused = refused.says("cannot be reached");
    assert!(!refused.to_string().contains("s3cret"), "{refused}");
    server.restart();
    let is_back = || alice.exec(way, device.name(), "true").status.success();
    wait_until(SOON, "logins work again", is_back);

    server.hang(true);
    fails_with_a_sentence(&alice, &device);
    // Longer than the relay's heartbeat may be late: the session is frozen, and goes on afterwards.
    std::thread::sleep(Duration::from_secs(15));
    terminal.expect("[holdfast] the relay has lost its store (");
    terminal.send("echo han''ging\r");
    std::thread::sleep(Duration::from_secs(2));
    let shown = terminal.shown();
    assert!(!shown.contains("hanging"), "{shown}");
    server.hang(false);
    terminal.expect("hanging");
    wait_until(SOON, "it says that it goes on", || {
        let again = "[holdfast] the relay has its store again";
        terminal.shown().contains(again)
    });
    wait_until(SOON, "logins work again", is_back);
    terminal.send("echo af''ter; exit 3\r");
    terminal.expect("after");
    assert_eq!(terminal.wait(SOON).code(), Some(3));
    // The log has a line when each outage begins, and not one for each attempt.
    let log = relay.log();
    let lines = || {
        log.lines()
            .filter(|line| line.contains("postgres://holdfast@localhost/relay"))
    };
    let failed = lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
    assert!((2..=6).contains(&failed.count()), "{log}");
    let over = lines().filter(|line| line.contains("answers again, after"));
    assert!((2..=6).contains(&over.count()), "{log}");
}

/// Checks that logins fail, each in time, and say why as soon as the relay has noticed it.
fn fails_with_a_sentence(user: &User, device: &Device) {
    let [way, _] = Way::BOTH;
    wait_until(BOUND, "a login says why it fails", || {
        let began = Instant::now();
        let refused = user.exec(way, device.name(), "true");
        assert!(!refused.status.success(), "{refused}");
        assert!(began.elapsed() < BOUND, "{:?}: {refused}", began.elapsed());
        refused
            .to_string()
            .contains("the relay's database does not answer")
    });
}
