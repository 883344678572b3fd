//! `devices show`: one device in full, for a person. It begins with a sentence that says how it is.

use super::{address, agent, marked_state, seen};
use crate::clock::{Coarse, Timestamp};
use crate::commands::answer::table::{card, labels, or_dash};
use crate::store::{ClonePair, Device, PresenceState};

pub(super) fn show(device: &Device, now: Timestamp) -> String {
    let mut lines = vec![
        ("name", device.name.to_string()),
        ("id", device.id.to_string()),
        ("state", marked_state(device, now)),
        ("seen", seen(device, now)),
        ("address", or_dash(&address(device).unwrap_or_default())),
        ("labels", labels(&device.labels)),
        ("agent", or_dash(&device.agent_version)),
        ("target", or_dash(&device.target)),
        ("joined", device.enrolled.to_string()),
        (
            "token",
            or_dash(device.token.as_deref().unwrap_or_default()),
        ),
        ("key", device.key.to_string()),
    ];
    if let Some(since) = device.presence.since {
        lines.insert(3, ("since", since.to_string()));
    }
    if let Some(cloned) = device.cloned {
        let ClonePair { first, second } = cloned.pair;
        let seen = cloned.seen;
        lines.push((
            "cloned",
            format!("{first} and {second} used its key, last at {seen}"),
        ));
    }
    if let Some(revoked) = device.revoked {
        lines.push(("revoked", revoked.to_string()));
    }
    format!("{}\n\n{}", sentence(device, now), card(&lines))
}

/// Returns how the device is, and what can be done about it, without an end of line.
fn sentence(device: &Device, now: Timestamp) -> String {
    let name = &device.name;
    if let Some(revoked) = device.revoked {
        let ago = Coarse(now.since(revoked)).words();
        return format!(
            "{name} was revoked on {revoked} ({ago} ago): its key is refused for good."
        );
    }
    let cloned = device.cloned.filter(|cloned| cloned.is_current(now));
    let cloned = cloned.map_or_else(String::new, |cloned| {
        let ClonePair { first, second } = cloned.pair;
        format!(" Two machines use its key, at {first} and {second}: see `relay doctor`.")
    });
    format!("{name} {}{cloned}", state(device, now))
}

/// Returns how it can be reached.
fn state(device: &Device, now: Timestamp) -> String {
    let presence = &device.presence;
    let place = address(device).map_or_else(String::new, |address| format!(" at {address}"));
    match (presence.state, presence.since.or(presence.last_seen)) {
        (PresenceState::Online, _) => {
            format!("is online{place}, with agent {}.", agent(device))
        }
        (PresenceState::Stale, last) => {
            let heard = last.map_or_else(String::new, |last| {
                format!(
                    ", and was last heard {} ago",
                    Coarse(now.since(last)).words()
                )
            });
            format!("does not answer{place}{heard}. If it stays silent, its tunnel is closed.")
        }
        (PresenceState::Offline, Some(since)) => {
            let ago = Coarse(now.since(since)).words();
            format!(
                "is offline since {since} ({ago} ago). `relay wait {}` waits for it.",
                device.name
            )
        }
        (PresenceState::Offline, None) => {
            "has not been online yet: is `edge-agent run` running there?".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::access::tests::fixture;
    use crate::model::device::ClonedDevice;
    use crate::store::Labels;

    #[test]
    fn a_sentence_says_how_a_device_is() {
        let then = Timestamp(1_795_323_960_000_000);
        let now = then.after(Duration::from_secs(3 * 3_600));
        let mut device = fixture::device(Labels::new(), None);
        assert_eq!(
            sentence(&device, now),
            "kitchen-cam has not been online yet: is `edge-agent run` running there?"
        );
        device.agent_version = "0.1.0".to_owned();
        device.target = "armv7-unknown-linux-musleabihf".to_owned();
        device.presence.since = Some(then);
        assert_eq!(
            sentence(&device, now),
            "kitchen-cam is offline since 2026-11-22 05:06 UTC (3 hours ago). `relay wait kitchen-cam` waits for it."
        );
        device.presence.since = None;
        device.presence.state = PresenceState::Stale;
        device.presence.last_seen = Some(now.before(Duration::from_secs(70)));
        device.presence.address = Some("198.51.100.7:41822".parse().unwrap());
        assert_eq!(
            sentence(&device, now),
            "kitchen-cam does not answer at 198.51.100.7:41822, and was last heard 1 minute ago. If it stays silent, its tunnel is closed."
        );
        device.presence.state = PresenceState::Online;
        assert_eq!(
            sentence(&device, now),
            "kitchen-cam is online at 198.51.100.7:41822, with agent 0.1.0 armv7."
        );
        let [first, second] = ["192.0.2.1:1", "192.0.2.2:2"].map(|at| at.parse().unwrap());
        device.cloned = Some(ClonedDevice {
            seen: now,
            pair: ClonePair { first, second },
        });
        assert!(sentence(&device, now).ends_with(
            " Two machines use its key, at 192.0.2.1:1 and 192.0.2.2:2: see `relay doctor`."
        ));
        device.revoked = Some(then);
        assert_eq!(
            sentence(&device, now),
            "kitchen-cam was revoked on 2026-11-22 05:06 UTC (3 hours ago): its key is refused for good."
        );
    }
}
