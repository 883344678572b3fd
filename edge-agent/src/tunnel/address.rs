//! The kernel's word that links, addresses or routes changed (rtnetlink(7)).

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use smol::{Async, Timer};

use crate::tunnel::limits::ADDRESS_SETTLE;

/// `RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// Waits for changes.
#[derive(Debug)]
pub(crate) struct Watcher {
    socket: Async<OwnedFd>,
}

impl Watcher {
    /// Subscribes to the kernel's announcements.
    ///
    /// # Errors
    /// What the system says: netlink may be forbidden in a sandbox.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            flags,
            // NETLINK_ROUTE is 0, which is how "the default protocol" is spelt.
            None,
        )?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Self {
            socket: Async::new_nonblocking(socket)?,
        })
    }

    /// Waits until something changed, and then until it has settled.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) async fn changed(&mut self) -> io::Result<()> {
        self.socket.readable().await?;
        Timer::after(ADDRESS_SETTLE).await;
        let mut buffer = [0_u8; 4096];
        loop {
            // What changed does not matter: the reader compares the address that it would use now.
            match rustix::net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                // The queue ran over: changes there were, and many.
                Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
