//! The place of the state of a relay: a file or a server, and never what it was before.

use super::*;
use crate::harness::{command, relay_program};

/// Counts what is in a database.
const RELATIONS: &str =
    "SELECT COUNT(*) FROM pg_class WHERE relnamespace = CAST('public' AS regnamespace)";

fn serve(relay: &Relay, more: &[&str]) -> Output {
    let mut serve = relay.serve_command();
    run(serve.args(more))
}

#[test]
fn database_of_something_else_is_not_written_to() {
    let server = OwnServer::start();
    let url = database(&server, "shop");
    block_on(async {
        let mut store = PgConnection::connect(&url).await.unwrap();
        let made = "CREATE TABLE customers (name TEXT)";
        sqlx::query(made).execute(&mut store).await.unwrap();
        store.close().await.unwrap();
    });
    let mut relay = Relay::start();
    relay.terminate(SOON);
    let new = Relay::new(&["--database", &url]);
    for refused in [migrate(&relay, &url), serve(&new, &[])] {
        let refused = refused.exits(1).says("/shop");
        let refused =
            refused.says("is not empty, and holds no state of a relay (it has \"customers\")");
        refused.says("createdb --encoding=UTF8 --template=template0 NAME");
        assert_eq!(count(&url, RELATIONS), 1);
    }
    assert!(!new.state().join("database").exists());
    relay.start_again();
}

#[test]
fn folder_without_its_note_does_not_serve_on_the_old_file() {
    let server = OwnServer::start();
    let (url, other) = (database(&server, "relay"), database(&server, "other"));
    let mut moved = Relay::start();
    User::add(&moved, "alice", KeyKind::Ed25519, &["admin"]);
    moved.terminate(SOON);
    migrate(&moved, &url).ok();
    let begun = database(&server, "begun");
    let mut on_server = Relay::start_with(&["--database", &begun]);
    User::add(&on_server, "alice", KeyKind::Ed25519, &["admin"]);
    on_server.terminate(SOON);
    on_server.clear_flags();
    for (relay, url) in [(&mut moved, &url), (&mut on_server, &begun)] {
        let note = relay.state().join("database");
        std::fs::remove_file(&note).unwrap();
        for refused in [
            serve(relay, &[]),
            relay.admin(&["user", "ls"]),
            migrate(relay, &other),
        ] {
            let refused = refused
                .exits(1)
                .says("the state of this relay is in PostgreSQL by now");
            refused.says("`relay serve --database`");
        }
        // Nor on another one.
        let refused = serve(relay, &["--database", &other]).exits(1);
        refused.says("has no state of this cluster");
        assert!(!note.exists());
        assert_eq!(count(&other, RELATIONS), 0);
        relay.add_flags(&["--database", url]);
        relay.start_again();
        assert!(relay.admin(&["user", "ls"]).ok().out().contains("alice"));
        assert!(note.exists());
    }
}

#[test]
fn database_moves_to_another_server_by_a_dump() {
    let server = OwnServer::start();
    let (old, new) = (database(&server, "relay"), database(&server, "new"));
    let mut relay = Relay::start_with(&["--database", &old]);
    User::add(&relay, "alice", KeyKind::Ed25519, &["admin"]);
    relay.clear_flags();
    // The same database by another name is no other one, even while relays serve from it.
    let renamed = old.replacen("localhost", "localhost.localdomain", 1);
    relay.restart();
    server.get().dump_into("relay", "new");
    // Other folders of the cluster, which have served with the rest.
    let copy = |relay: &Relay, name: &str| {
        let to = relay.folder().join(name);
        let mut copy = command("cp");
        run(copy.arg("-a").arg(relay.state()).arg(&to)).ok();
        to
    };
    let second = copy(&relay, "second");
    let mut begun = command(relay_program());
    begun
        .arg("--state")
        .arg(&second)
        .args(["serve", "--database", &new]);
    let refused = run(begun.args(["--ssh", "127.0.0.1:0", "--tunnel", "127.0.0.1:0"])).exits(1);
    refused
        .says("relays still serve from")
        .says("stop all relays of the cluster");
    relay.user("bob", &["operator"]);
    relay.terminate(SOON);
    let empty = database(&server, "empty");
    serve(&relay, &["--database", &empty])
        .exits(1)
        .says("has no state of this cluster");
    assert_eq!(count(&empty, RELATIONS), 0);
    let refused = serve(&relay, &["--database", &new]).exits(1);
    refused
        .says("is an older copy of")
        .says("bring a new dump there");
    server.get().psql("DROP DATABASE new").unwrap();
    let new = database(&server, "new");
    server.get().dump_into("relay", "new");
    relay.add_flags(&["--database", &new]);
    relay.start_again();
    let users = relay.admin(&["user", "ls"]).ok().out();
    assert!(users.contains("alice") && users.contains("bob"), "{users}");
    relay.user("carol", &["operator"]);
    // And it stays there.
    relay.clear_flags();
    relay.restart();
    assert!(relay.admin(&["user", "ls"]).ok().out().contains("carol"));
    relay.terminate(SOON);
    let back = serve(&relay, &["--database", &renamed]).exits(1);
    back.says("is an older copy of");
}

#[test]
fn same_database_by_another_address_is_taken() {
    let server = OwnServer::start();
    let url = database(&server, "relay");
    let mut relay = Relay::start_with(&["--database", &url]);
    relay.restart();
    // Not a word of it was said to the one before, which is killed: it looks alive for 10 s.
    relay.kill();
    relay.clear_flags();
    relay.add_flags(&[
        "--database",
        &url.replacen("localhost", "localhost.localdomain", 1),
    ]);
    relay.start_again();
    let remembered = std::fs::read_to_string(relay.state().join("database")).unwrap();
    assert!(remembered.contains("localhost.localdomain"), "{remembered}");
}
