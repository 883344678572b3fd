//! Ports that the device listens on for an operator.

use std::io;
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _,
};
use std::task::{Context, Poll};

use holdfast_protocol::forward::canonical_to_listen;
use holdfast_protocol::ids::Login;
use holdfast_protocol::limits::MAX_FORWARD_HOST;
use holdfast_protocol::wire::{Listen, SessionRefusal};
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with};
use smol::Async;

use crate::os::accounts::{self, Account};
use crate::session::limits::{LISTEN_BACKLOG, MAX_FORWARD_ADDRESSES};

/// Below it, ports are root's.
const FIRST_FREE_PORT: u16 = 1024;

/// Sockets that listen on one port.
pub(crate) struct BoundPort {
    sockets: Vec<Async<TcpListener>>,
    /// The first one's address.
    pub(crate) address: SocketAddr,
}

/// Listens where `at` says, for an operator who may use `login` here and whose roles deny the logins `denied`.
///
/// # Errors
/// Why not, for the operator.
pub(crate) async fn open(
    login: Login,
    denied: Vec<Login>,
    at: Listen,
) -> Result<BoundPort, SessionRefusal> {
    if at.host.len() > MAX_FORWARD_HOST || !at.policy.is_bounded() {
        return Err(unreachable("the request exceeds a limit of the protocol"));
    }
    // Names and accounts are read from files and servers.
    smol::unblock(move || {
        let account = accounts::admit(&login, &denied)?;
        let addresses = addresses(&at)?;
        bind_all(&account, &at, &addresses)
    })
    .await
}

/// Returns what an operator's bind address means (RFC 4254 section 7.1).
fn addresses(at: &Listen) -> Result<Vec<SocketAddr>, SessionRefusal> {
    let both = |v4: Ipv4Addr, v6: Ipv6Addr| {
        let ips = [IpAddr::V4(v4), IpAddr::V6(v6)];
        Ok(ips.map(|ip| SocketAddr::new(ip, at.port)).into())
    };
    match at.host.as_str() {
        "" | "*" => both(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED),
        "localhost" => both(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
        host => {
            let found = (host, at.port).to_socket_addrs();
            let found = found.map_err(|_| unreachable("its address is not known there"))?;
            let mut all: Vec<_> = found.map(canonical_to_listen).collect();
            all.dedup();
            all.truncate(MAX_FORWARD_ADDRESSES);
            Ok(all)
        }
    }
}

fn bind_all(
    account: &Account,
    at: &Listen,
    addresses: &[SocketAddr],
) -> Result<BoundPort, SessionRefusal> {
    if account.uid != 0 && (1..FIRST_FREE_PORT).contains(&at.port) {
        return Err(unreachable("ports below 1024 are root's"));
    }
    let (mut sockets, mut first, mut refused) = (Vec::new(), None, None);
    for address in addresses {
        let mut address = *address;
        if let Some(port) = first.map(|first: SocketAddr| first.port()) {
            // The second family listens on the port that the first one got.
            address.set_port(port);
        }
        if address.port() != 0 && !at.policy.permits_listening(&at.host, address) {
            refused.get_or_insert(SessionRefusal::NotPermitted(address));
            continue;
        }
        match bind_one(address) {
            // Which port it became is known only now.
            Ok((_, bound)) if !at.policy.permits_listening(&at.host, bound) => {
                refused.get_or_insert(SessionRefusal::NotPermitted(bound));
            }
            Ok((socket, bound)) => {
                first.get_or_insert(bound);
                sockets.push(socket);
            }
            // A device without IPv6 listens on IPv4.
            Err(error) => {
                refused.get_or_insert(unreachable(&reason(&error)));
            }
        }
    }
    match first {
        Some(address) => Ok(BoundPort { sockets, address }),
        None => Err(refused.unwrap_or_else(|| unreachable("its name has no address"))),
    }
}

fn bind_one(address: SocketAddr) -> io::Result<(Async<TcpListener>, SocketAddr)> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    listen(&socket, LISTEN_BACKLOG)?;
    let listener = TcpListener::from(socket);
    let bound = listener.local_addr()?;
    Ok((Async::new_nonblocking(listener)?, bound))
}

impl BoundPort {
    /// Returns the next connection that comes.
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<(TcpStream, SocketAddr)> {
        for socket in &self.sockets {
            loop {
                match socket.get_ref().accept() {
                    Ok((stream, peer)) => return Poll::Ready((stream, canonical_to_listen(peer))),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        match socket.poll_readable(cx) {
                            Poll::Ready(Ok(())) => {}
                            Poll::Ready(Err(_)) | Poll::Pending => break,
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // One that is gone already, or no descriptor is left: the next look is soon enough.
                    Err(_) => break,
                }
            }
        }
        Poll::Pending
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "something listens there already".to_owned(),
        io::ErrorKind::AddrNotAvailable => "the device has no such address".to_owned(),
        io::ErrorKind::PermissionDenied => "the system forbids it".to_owned(),
        _ => error.to_string(),
    }
}

fn unreachable(why: &str) -> SessionRefusal {
    SessionRefusal::Unreachable(accounts::bounded(why.to_owned()))
}
