//! The interface to the console, which serves the commands that a client gives to the relay itself.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use holdfast_protocol::wire::WindowSize;

use super::Front;
use super::channels::outlet::Outlet;
use super::connection::Connection;
use crate::identity::Principal;
use crate::model::request::ProcessRequest;
use crate::session::input::InputReceiver;

/// Serves console commands. The command line brings it: what a command is, this front end does not know.
pub(crate) trait ConsoleService: fmt::Debug + Send + Sync {
    /// Runs one command, and closes the channel with its exit status.
    fn run(&self, front: Arc<Front>, call: ConsoleCall) -> BoxFuture<'static, ()>;
}

/// A request on a channel that leads to the relay itself.
pub(crate) struct ConsoleCall {
    /// The connection of the channel.
    pub(crate) connection: Arc<Connection>,
    /// The user, as they are proved.
    pub(crate) principal: Principal,
    /// The request.
    pub(crate) work: ProcessRequest,
    /// The bytes that the client sends.
    pub(crate) input: InputReceiver,
    /// The way to the client.
    pub(crate) outlet: Outlet,
    /// The size of the client's terminal, if it has one.
    pub(crate) terminal: Option<WindowSize>,
}

/// Returns what an operator types before a console command, where `address` is the `HOST:PORT` that they dial:
/// `ssh -p 2222 relay.example.com`.
#[must_use]
pub(crate) fn prefix(address: &str) -> String {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "22"));
    let host = host.trim_matches(['[', ']']);
    match port {
        "22" => format!("ssh {host}"),
        _ => format!("ssh -p {port} {host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_command_begins_as_ssh_takes_it() {
        let table = [
            ("relay.example.com:2222", "ssh -p 2222 relay.example.com"),
            ("relay.example.com:22", "ssh relay.example.com"),
            ("[2001:db8::1]:2222", "ssh -p 2222 2001:db8::1"),
            ("[2001:db8::1]:22", "ssh 2001:db8::1"),
        ];
        for (address, begins) in table {
            assert_eq!(prefix(address), begins);
        }
    }
}
