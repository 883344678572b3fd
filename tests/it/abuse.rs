//! Issue 6, point 5: who keeps no rule of SSH gets an answer, costs little, and disturbs nobody.

mod channels;
mod login;
mod raw;
mod sessions;
mod sftp;

use crate::harness::{Relay, Site, Way, memory, own_login};
use raw::{CHANNEL_OPEN, CHANNEL_REQUEST, Message, Raw};

/// What one of them may cost, in bytes of the relay's memory: some queues and their packets, and what an allocator
/// keeps of it.
const BEARABLE: u64 = 48 << 20;

/// A site, and the memory that its relay had before.
struct Bed {
    site: Site,
    before: u64,
}

impl Bed {
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
        Raw::login(self.site.relay.ssh(), &self.site.alice, &name)
    }

    /// Logged in at the console.
    #[track_caller]
    fn at_console(&self) -> Raw {
        Raw::login(self.site.relay.ssh(), &self.site.alice, "alice")
    }

    /// Nobody else notices, and it costs no more than it may.
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

/// A session channel that is opened as number `ours`.
fn open(ours: u32, window: u32, packet: u32) -> Message {
    let open = Message::new(CHANNEL_OPEN).string("session");
    open.number(ours).number(window).number(packet)
}

/// A request on a channel.
fn request(theirs: u32, kind: &str, wants_reply: bool) -> Message {
    let request = Message::new(CHANNEL_REQUEST).number(theirs);
    request.string(kind).byte(wants_reply.into())
}
