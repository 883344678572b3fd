//! Connections that the device dials for an operator: names are resolved here, and each address is judged by
//! the rules that came along right before it is dialled.

mod own;

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::OwnedFd;

use futures_lite::FutureExt as _;
use holdfast_protocol::escape::Escaped;
use holdfast_protocol::forward::canonical;
use holdfast_protocol::ids::Login;
use holdfast_protocol::limits::{FORWARD_DIAL_TIMEOUT, MAX_FORWARD_HOST};
use holdfast_protocol::wire::{Connect, SessionRefusal};
use smol::lock::Semaphore;
use smol::{Async, Timer};

use crate::os::accounts;
use crate::session::limits::{MAX_FORWARD_ADDRESSES, MAX_LOOKUPS};

/// Looking up a name takes a thread, and a name server that does not answer keeps it.
static LOOKUPS: Semaphore = Semaphore::new(MAX_LOOKUPS);

/// An established connection.
pub(crate) struct DialledTarget {
    /// It.
    pub(crate) socket: Async<OwnedFd>,
    /// The address that it leads to.
    pub(crate) address: SocketAddr,
}

/// Dials `to`, for an operator who may use `login` here and whose roles deny the logins `denied`.
///
/// # Errors
/// Why there is no connection, for the operator.
pub(crate) async fn dial(
    login: Login,
    denied: Vec<Login>,
    to: Connect,
) -> Result<DialledTarget, SessionRefusal> {
    let late = async {
        Timer::after(FORWARD_DIAL_TIMEOUT).await;
        Err(unreachable("no answer"))
    };
    try_dial(login, denied, to).or(late).await
}

async fn try_dial(
    login: Login,
    denied: Vec<Login>,
    to: Connect,
) -> Result<DialledTarget, SessionRefusal> {
    if to.host.len() > MAX_FORWARD_HOST || !to.policy.is_bounded() {
        return Err(unreachable("the request exceeds a limit of the protocol"));
    }
    let (host, port) = (to.host.clone(), to.port);
    let permit = LOOKUPS.acquire().await;
    let addresses = smol::unblock(move || {
        // Held until the thread is free again, even when the answer is not waited for any more.
        let _permit = permit;
        accounts::admit(&login, &denied)?;
        look_up(&host, port)
    });
    let mut outcome = None;
    for address in addresses.await? {
        let address = canonical(address);
        if !to.policy.permits(&to.host, address, own::is_own(address)) {
            outcome.get_or_insert(SessionRefusal::NotPermitted(address));
            continue;
        }
        match connect(address).await {
            Ok(socket) => return Ok(DialledTarget { socket, address }),
            Err(error) => outcome = Some(unreachable(&reason(&error))),
        }
    }
    Err(outcome.unwrap_or_else(|| unreachable("its name has no address")))
}

fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, SessionRefusal> {
    let found = (host, port).to_socket_addrs().map_err(|error| {
        let text = format!(
            "its name is not known there: {}",
            Escaped(&error.to_string())
        );
        unreachable(&text)
    })?;
    let mut addresses: Vec<SocketAddr> = found.take(MAX_FORWARD_ADDRESSES).collect();
    addresses.dedup();
    Ok(addresses)
}

async fn connect(address: SocketAddr) -> io::Result<Async<OwnedFd>> {
    let stream = Async::<TcpStream>::connect(address).await?;
    // As sshd has it: what is forwarded was cut into packets already.
    let _ = stream.get_ref().set_nodelay(true);
    Async::new(OwnedFd::from(stream.into_inner()?))
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to that host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "that network is out of reach".to_owned(),
        io::ErrorKind::TimedOut => "no answer".to_owned(),
        io::ErrorKind::PermissionDenied => "the system forbids it".to_owned(),
        _ => error.to_string(),
    }
}

fn unreachable(why: &str) -> SessionRefusal {
    SessionRefusal::Unreachable(accounts::bounded(why.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_protocol::forward::{AddressPolicy, AddressRule, HostRule, Ports};
    use std::net::TcpListener;

    fn own_login() -> Login {
        let uid = rustix::process::geteuid().as_raw();
        let files = accounts::AccountFiles::read(std::path::Path::new("/etc")).unwrap();
        Login::new(&files.name_of(uid).unwrap()).unwrap()
    }

    fn dial_to(host: &str, port: u16, policy: AddressPolicy) -> Result<SocketAddr, SessionRefusal> {
        let host = host.to_owned();
        let dialled = smol::block_on(dial(
            own_login(),
            Vec::new(),
            Connect { host, port, policy },
        ));
        dialled.map(|dialled| dialled.address)
    }

    fn rules(texts: &[&str]) -> Vec<AddressRule> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn every_spelling_of_the_device_itself_is_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let here = listener.local_addr().unwrap();
        let policy = || AddressPolicy {
            allow: None,
            deny: rules(&["localhost:*"]),
        };
        let spellings = [
            "127.0.0.1",
            "127.1",
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "0177.0.0.1",
            "0",
            "0.0.0.0",
            "::ffff:127.0.0.1",
            "::ffff:7f00:1",
            "::ffff:0.0.0.0",
            "::",
            "::1",
            "localhost",
            "LOCALHOST",
        ];
        for host in spellings {
            let refused = dial_to(host, here.port(), policy());
            assert!(
                matches!(refused, Err(SessionRefusal::NotPermitted(at)) if at.ip().is_loopback()),
                "{host}: {refused:?}"
            );
        }
        assert!(listener.accept().is_err(), "a refused address was dialled");
        for host in [
            "127.1",
            "2130706433",
            "0.0.0.0",
            "::ffff:127.0.0.1",
            "localhost",
        ] {
            let policy = AddressPolicy {
                allow: Some(rules(&["127.0.0.1:*"])),
                deny: vec![],
            };
            assert_eq!(dial_to(host, here.port(), policy), Ok(here), "{host}");
        }
    }

    #[test]
    fn own_address_in_the_network_is_the_device_itself() {
        let route = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        if route.connect("198.51.100.1:9").is_err() {
            // A machine that has no address beside loopback.
            return;
        }
        let own = route.local_addr().unwrap().ip();
        let listener = TcpListener::bind((own, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let here = listener.local_addr().unwrap();
        let by_name = AddressRule {
            host: HostRule::Name(own.to_string()),
            ports: Ports::ANY,
        };
        let policies = [
            (None, rules(&["localhost:*"])),
            (Some(rules(&["*:*"])), rules(&["localhost:*"])),
            (Some(vec![by_name]), vec![]),
            (Some(rules(&["localhost:*"])), vec![]),
        ];
        for (allow, deny) in policies {
            for host in [own.to_string(), format!("::ffff:{own}")] {
                let policy = AddressPolicy {
                    allow: allow.clone(),
                    deny: deny.clone(),
                };
                let refused = dial_to(&host, here.port(), policy);
                assert_eq!(refused, Err(SessionRefusal::NotPermitted(here)), "{host}");
            }
        }
        assert!(listener.accept().is_err(), "a refused address was dialled");
        let named = AddressPolicy {
            allow: Some(rules(&[&format!("{own}:*")])),
            deny: vec![],
        };
        assert_eq!(dial_to(&own.to_string(), here.port(), named), Ok(here));
    }

    #[test]
    fn unreachable_targets_have_distinct_reasons() {
        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let anywhere = AddressPolicy::default;
        let refused = dial_to("127.0.0.1", closed.port(), anywhere());
        let why = "connection refused".to_owned();
        assert_eq!(refused, Err(SessionRefusal::Unreachable(why)));
        for host in ["", "no such name", "a\0b", "name.invalid"] {
            let refused = dial_to(host, 1, anywhere());
            assert!(
                matches!(refused, Err(SessionRefusal::Unreachable(_))),
                "{host:?}: {refused:?}"
            );
        }
        let long = dial_to(&"x".repeat(MAX_FORWARD_HOST + 1), 1, anywhere());
        assert!(matches!(long, Err(SessionRefusal::Unreachable(_))));
    }

    #[test]
    fn an_account_that_is_not_there_dials_nothing() {
        let to = Connect {
            host: "127.0.0.1".to_owned(),
            port: 1,
            policy: AddressPolicy::default(),
        };
        let refused = smol::block_on(dial(Login::new("no-such-login").unwrap(), Vec::new(), to));
        assert!(matches!(
            refused.map(|dialled| dialled.address),
            Err(SessionRefusal::NoAccount | SessionRefusal::OnlyServes(_))
        ));
    }
}
