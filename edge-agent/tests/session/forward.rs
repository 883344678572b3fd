//! Connections that the device dials: what goes through them, and how each of their ends is carried.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::forward::AddressPolicy;
use holdfast_protocol::ids::Login;
use holdfast_protocol::wire::{
    Connect, Exit, ForwardRequest, Listen, Open, ProcessRequest, SessionRefusal, Signal, Take,
};
use rustix::net::sockopt::set_socket_linger;

use crate::harness::device::resident;
use crate::harness::{Client, Heard, Pair, open, run};

/// A peer on the device's network that does `then` with the one connection that comes.
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
pub(crate) fn own_login() -> Login {
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
        ..open(ForwardRequest::Connect(connect))
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
fn broken_connection_differs_from_one_that_ends() {
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
        assert_eq!(early, None, "it is not read");
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
        assert!(listener.accept().is_err(), "a refused address was dialled");
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

fn listen(host: &str, port: u16, allow: &[&str]) -> Open {
    let listen = Listen {
        host: host.to_owned(),
        port,
        policy: AddressPolicy {
            allow: Some(allow.iter().map(|text| text.parse().unwrap()).collect()),
            deny: vec![],
        },
    };
    Open {
        login: own_login(),
        ..open(ForwardRequest::Listen(listen))
    }
}

async fn bound(client: &mut Client) -> SocketAddr {
    assert_eq!(client.hear().await, Heard::Accepted);
    match client.hear().await {
        Heard::Address(address) => address,
        other => panic!("{other:?}"),
    }
}

async fn incoming(client: &mut Client) -> u32 {
    match client.hear().await {
        Heard::Incoming(incoming) => incoming.number,
        other => panic!("{other:?}"),
    }
}

fn take(number: u32) -> Open {
    let listener = open(ProcessRequest::Shell).session;
    open(ForwardRequest::Take(Take { listener, number }))
}

#[test]
fn what_comes_to_a_port_waits_until_it_is_taken_once() {
    run(async {
        let pair = Pair::new().await;
        let mut port = pair.open(listen("localhost", 0, &["localhost:*"])).await;
        let at = bound(&mut port).await;
        let mut first = TcpStream::connect(at).unwrap();
        first.write_all(b"first").unwrap();
        let mut second = TcpStream::connect(at).unwrap();
        let (one, two) = (incoming(&mut port).await, incoming(&mut port).await);
        // In whichever order they are taken.
        let mut taken = pair.open(take(two)).await;
        assert_eq!(taken.hear().await, Heard::Accepted);
        assert_eq!(
            taken.hear().await,
            Heard::Address(second.local_addr().unwrap())
        );
        taken.write(b"hello").await;
        taken.say(SessionMessage::Eof).await;
        let reply = smol::unblock(move || {
            let mut text = String::new();
            second.read_to_string(&mut text).map(|_| text)
        });
        assert_eq!(reply.await.unwrap(), "hello");
        let again = pair.to_end(take(two)).await.refused;
        assert!(
            matches!(again, Some(SessionRefusal::Unreachable(_))),
            "{again:?}"
        );
        let mut other = pair.open(take(one)).await;
        assert_eq!(other.hear().await, Heard::Accepted);
        assert!(matches!(other.hear().await, Heard::Address(_)));
        other.until("first").await;
        other.vanish();
        assert_eq!(
            smol::unblock(move || first.read(&mut [0; 1]).map_err(|error| error.kind())).await,
            Err(ErrorKind::ConnectionReset)
        );
        // With the port goes what was not taken.
        let mut third = TcpStream::connect(at).unwrap();
        let three = incoming(&mut port).await;
        port.vanish();
        let end = smol::unblock(move || third.read(&mut [0; 1]).unwrap_or(0));
        assert_eq!(end.await, 0);
        let late = pair.to_end(take(three)).await.refused;
        assert!(
            matches!(late, Some(SessionRefusal::Unreachable(_))),
            "{late:?}"
        );
        assert!(TcpStream::connect(at).is_err());
    });
}

#[test]
fn frames_that_a_forward_does_not_have_end_it() {
    run(async {
        let pair = Pair::new().await;
        let mut port = pair.open(listen("127.0.0.1", 0, &["localhost:*"])).await;
        bound(&mut port).await;
        assert_eq!(pair.sessions.forwards(), 1);
        port.write(b"a port carries no data").await;
        pair.no_forwards().await;
        let (address, serving) = target(|mut stream| {
            let read = stream.read(&mut [0; 1]);
            read.map_err(|error| error.kind())
        });
        let mut connection = connected(&pair, address).await;
        connection.say(SessionMessage::Signal(Signal::Int)).await;
        assert_eq!(joined(serving).await, Err(ErrorKind::ConnectionReset));
        pair.no_forwards().await;
    });
}

#[test]
fn only_so_many_connections_wait_for_the_relay() {
    run(async {
        let pair = Pair::new().await;
        let mut port = pair.open(listen("127.0.0.1", 0, &["localhost:*"])).await;
        let at = bound(&mut port).await;
        let _all: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(at).unwrap()).collect();
        for expected in 0..16 {
            assert_eq!(incoming(&mut port).await, expected);
        }
        let more = async { Some(incoming(&mut port).await) };
        let nothing = async {
            smol::Timer::after(Duration::from_millis(700)).await;
            None
        };
        assert_eq!(futures_lite::FutureExt::or(more, nothing).await, None);
        let taken = pair.open(take(3)).await;
        assert_eq!(incoming(&mut port).await, 16);
        taken.vanish();
        port.vanish();
    });
}

#[test]
fn a_port_that_the_rules_do_not_name_is_not_opened() {
    run(async {
        let pair = Pair::new().await;
        for (host, allow) in [
            ("0.0.0.0", "localhost:*"),
            ("", "localhost:*"),
            ("*", "0.0.0.0/0:*"),
            ("::", "[::1]:*"),
            ("127.0.0.1", "10.0.0.0/8:*"),
            ("::ffff:127.0.0.1", "[::1]:*"),
            ("localhost", "*:1-1023"),
        ] {
            let refused = pair.to_end(listen(host, 0, &[allow])).await.refused;
            assert!(
                matches!(refused, Some(SessionRefusal::NotPermitted(_))),
                "{host} {allow}: {refused:?}"
            );
        }
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let refused = pair
            .to_end(listen("127.0.0.1", port, &["*:*"]))
            .await
            .refused;
        let why = "something listens there already".to_owned();
        assert_eq!(refused, Some(SessionRefusal::Unreachable(why)));
        pair.no_forwards().await;
    });
}
