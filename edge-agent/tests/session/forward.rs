//! Connections that the device dials: what goes through them, and how each of their ends is carried.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::forward::AddressPolicy;
use holdfast_protocol::ids::Login;
use holdfast_protocol::wire::{Connect, Exit, Open, SessionRefusal, Work};
use rustix::net::sockopt::set_socket_linger;

use crate::harness::device::resident;
use crate::harness::{Client, Heard, Pair, open, run};

/// Somebody on the device's network, who does `then` with the one connection that comes.
fn target<T: Send + 'static>(
    then: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = thread::spawn(move || then(listener.accept().unwrap().0));
    (address, serving)
}

/// Waits without holding up the executor, which has other things to do.
async fn joined<T: Send + 'static>(serving: JoinHandle<T>) -> T {
    smol::unblock(|| serving.join().unwrap()).await
}

/// The account is looked up by the agent itself, and so where the test runs.
fn own_login() -> Login {
    let name = Command::new("id").arg("-un").output().unwrap().stdout;
    Login::new(String::from_utf8(name).unwrap().trim()).unwrap()
}

fn to(address: SocketAddr, policy: AddressPolicy) -> Open {
    let connect = Connect {
        host: address.ip().to_string(),
        port: address.port(),
        policy,
    };
    Open {
        login: own_login(),
        ..open(Work::Connect(connect))
    }
}

async fn connected(pair: &Pair, address: SocketAddr) -> Client {
    let mut client = pair.open(to(address, AddressPolicy::default())).await;
    assert_eq!(client.hear().await, Heard::Accepted);
    assert_eq!(client.hear().await, Heard::Address(address));
    client
}

#[test]
fn a_target_answers_after_the_end_of_its_input() {
    run(async {
        let pair = Pair::new().await;
        let (address, serving) = target(|mut stream| {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream
                .write_all(format!("{} bytes", all.len()).as_bytes())
                .unwrap();
        });
        let mut client = connected(&pair, address).await;
        assert_eq!((pair.sessions.live(), pair.sessions.forwards()), (0, 1));
        client.write(&vec![b'x'; 1_000_000]).await;
        client.say(SessionMessage::Eof).await;
        let outcome = client.outcome().await;
        assert_eq!(outcome.stdout(), "1000000 bytes");
        assert_eq!(outcome.exit, Some(Exit::Status(0)));
        joined(serving).await;
        pair.no_forwards().await;
    });
}

#[test]
fn a_target_that_has_said_all_still_listens() {
    run(async {
        let pair = Pair::new().await;
        let (address, serving) = target(|mut stream| {
            stream.write_all(b"bye").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut all = String::new();
            stream.read_to_string(&mut all).unwrap();
            all
        });
        let mut client = connected(&pair, address).await;
        client.until("bye").await;
        assert_eq!(client.hear().await, Heard::OutputEnded);
        client.write(b"and one more thing").await;
        client.say(SessionMessage::Eof).await;
        assert_eq!(client.hear().await, Heard::Exited(Exit::Status(0)));
        assert_eq!(client.hear().await, Heard::Finished);
        assert_eq!(joined(serving).await, "and one more thing");
    });
}

#[test]
fn a_connection_that_is_broken_off_is_told_from_one_that_ends() {
    run(async {
        let pair = Pair::new().await;
        let (address, serving) = target(|mut stream| {
            stream.write_all(b"half a sen").unwrap();
            set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
            // What has come is read, so that it is the reset alone that tells.
            stream.read_exact(&mut [0; 2]).unwrap();
        });
        let mut client = connected(&pair, address).await;
        client.until("half a sen").await;
        client.write(b"ok").await;
        let outcome = client.outcome().await;
        assert_eq!(outcome.exit, Some(Exit::Status(1)));
        joined(serving).await;
        // And the other way.
        let (address, serving) = target(|mut stream| {
            stream.write_all(b"hello").unwrap();
            stream.read(&mut [0; 1]).map_err(|error| error.kind())
        });
        let mut client = connected(&pair, address).await;
        client.until("hello").await;
        client.vanish();
        let seen = joined(serving).await;
        assert_eq!(seen, Err(ErrorKind::ConnectionReset));
        pair.no_forwards().await;
    });
}

#[test]
fn a_slow_target_holds_its_operator_back_and_costs_little() {
    run(async {
        let pair = Pair::new().await;
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (address, serving) = target(move |mut stream| {
            wait.recv().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all.len()
        });
        let mut client = connected(&pair, address).await;
        let before = resident();
        let total = 32 * 1024 * 1024;
        let mut sent = 0;
        let mut writing = Box::pin(async {
            let data = vec![0; 64 * 1024];
            while sent < total {
                client.write(&data).await;
                sent += data.len();
            }
            client.say(SessionMessage::Eof).await;
            client.outcome().await
        });
        let stalled = async {
            smol::Timer::after(Duration::from_millis(500)).await;
            None
        };
        let early =
            futures_lite::FutureExt::or(async { Some((&mut writing).await) }, stalled).await;
        assert_eq!(early, None, "nobody reads it");
        let grown = resident().saturating_sub(before);
        assert!(
            grown < 12 * 1024 * 1024,
            "{grown} bytes for a stalled forward"
        );
        go.send(()).unwrap();
        assert_eq!(writing.await.exit, Some(Exit::Status(0)));
        assert_eq!(joined(serving).await, total);
    });
}

#[test]
fn what_the_rules_do_not_name_is_not_dialled() {
    run(async {
        let pair = Pair::new().await;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let policy = AddressPolicy {
            allow: Some(vec!["10.0.0.0/8:*".parse().unwrap()]),
            deny: vec![],
        };
        let refused = pair.to_end(to(address, policy)).await.refused;
        assert_eq!(refused, Some(SessionRefusal::NotPermitted(address)));
        assert!(listener.accept().is_err(), "somebody was dialled");
        drop(listener);
        let refused = pair
            .to_end(to(address, AddressPolicy::default()))
            .await
            .refused;
        let why = "connection refused".to_owned();
        assert_eq!(refused, Some(SessionRefusal::Unreachable(why)));
        pair.no_forwards().await;
    });
}
