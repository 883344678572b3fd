//! The site that most tests need: a relay, an administrator, and a device that is online.

use super::{Cluster, Device, Output, Relay, Running, SshClient, Terminal, Way, own_login, run};

/// Set to run across relays: the device is at one relay of a cluster, and the operators are at another. What a test looks
/// for in the log or the folder of *the* relay is then the operators'.
const ACROSS: &str = "HOLDFAST_IT_ACROSS";

pub(crate) struct Site {
    pub(crate) alice: super::User,
    pub(crate) device: Device,
    pub(crate) relay: Relay,
    // Last, so that it ends last: the other relay, the database and the bucket.
    _cluster: Option<Cluster>,
}

impl Site {
    #[track_caller]
    pub(crate) fn new() -> Self {
        Self::with(Device::new("kitchen-cam"))
    }

    /// The same with a device that has not joined yet.
    #[track_caller]
    pub(crate) fn with(device: Device) -> Self {
        if std::env::var_os(ACROSS).is_some()
            && let Some(cluster) = Cluster::start(2)
        {
            return Self::across(cluster, device);
        }
        Self::on(Relay::start(), device)
    }

    /// The same with the operators on the relay of a cluster that has not the device.
    #[track_caller]
    fn across(mut cluster: Cluster, mut device: Device) -> Self {
        device.join(&cluster.relays[0].token(&[]), &[]).ok();
        device.run_online(&cluster.relays[0]);
        let operators = 1 - cluster.with_the_device();
        let relay = cluster.relays.remove(operators);
        Self {
            alice: relay.admin_user(),
            device,
            relay,
            _cluster: Some(cluster),
        }
    }

    /// The same on a relay that serves already.
    #[track_caller]
    pub(crate) fn on(relay: Relay, mut device: Device) -> Self {
        let alice = relay.admin_user();
        device.join(&relay.token(&[]), &[]).ok();
        device.run_online(&relay);
        Self {
            alice,
            device,
            relay,
            _cluster: None,
        }
    }

    /// `ssh` to the device, as the account that runs the tests. Options and a command may follow.
    pub(crate) fn ssh(&self, way: Way) -> std::process::Command {
        self.alice.ssh(way, &own_login(), self.device.name())
    }

    /// Runs a command on the device.
    #[track_caller]
    pub(crate) fn exec(&self, way: Way, line: &str) -> Output {
        run(self.ssh(way).arg(line))
    }

    /// Starts a command on the device.
    #[track_caller]
    pub(crate) fn start(&self, way: Way, line: &str) -> Running {
        Running::start(self.ssh(way).arg(line))
    }

    /// Opens a shell on a terminal of 80 by 24.
    #[track_caller]
    pub(crate) fn shell(&self, way: Way) -> Terminal {
        Terminal::start(&self.ssh(way), 80, 24)
    }

    /// A client that can do what OpenSSH's can't.
    pub(crate) async fn client(&self, way: Way) -> SshClient {
        SshClient::connect(&self.relay, &self.alice, way, self.device.name()).await
    }
}
