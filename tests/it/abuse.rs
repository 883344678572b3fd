//! A client that keeps no rule of SSH gets an answer, costs little, and disturbs no other.

mod channels;
mod login;
mod sessions;
mod sftp;

use crate::harness::{Relay, Site, Way, memory, own_login};
use hostile::operator::raw::Raw;
use hostile::operator::{open, request};

/// The most that one of them may cost, in bytes of the relay's memory: some queues and their packets, and what an
/// allocator keeps of it.
const BEARABLE: u64 = 48 << 20;

/// A site, and the memory that its relay had before.
struct Fixture {
    site: Site,
    before: u64,
}

impl Fixture {
    #[track_caller]
    fn new() -> Self {
        let site = Site::new();
        // What the first session needs for good.
        site.exec(Way::Direct, "true").ok();
        let before = memory(site.relay.id());
        Self { site, before }
    }

    /// Logged in, with sessions on the device.
    #[track_caller]
    fn on_device(&self) -> Raw {
        let name = format!("{}+{}", own_login(), self.site.device.name());
        Raw::login(self.site.relay.ssh(), &self.site.alice.key(), &name)
    }

    /// Logged in at the console.
    #[track_caller]
    fn at_console(&self) -> Raw {
        Raw::login(self.site.relay.ssh(), &self.site.alice.key(), "alice")
    }

    /// No other client notices, and it costs no more than it may.
    #[track_caller]
    fn is_undisturbed(&self) {
        let output = self.site.exec(Way::Jump, "echo well").ok();
        assert_eq!(output.out(), "well\n");
        assert!(output.took < crate::harness::SOON / 2, "{:?}", output.took);
        is_bearable(&self.site.relay, self.before);
    }
}

/// A relay has not grown by more than one of them may cost.
#[track_caller]
fn is_bearable(relay: &Relay, before: u64) {
    let grown = memory(relay.id()).saturating_sub(before);
    eprintln!("the relay has grown by {} KiB", grown / 1024);
    assert!(grown < BEARABLE, "{} MiB", grown >> 20);
}
