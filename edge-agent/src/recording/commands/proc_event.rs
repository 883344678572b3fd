//! The messages of the kernel's process-event connector, as bytes: netlink's header, the connector's, the event; all in
//! the machine's own byte order (`linux/netlink.h`, `linux/connector.h`, `linux/cn_proc.h`). No length is trusted
//! before it was compared with what there is.

/// Netlink's header.
const NETLINK: usize = 16;
/// The connector's header.
const CONNECTOR: usize = 20;
/// An event's fields before what is its own: kind, processor, time.
const EVENT: usize = 16;
/// Netlink's own messages have lower types.
const FIRST_TYPE: u16 = 0x10;
/// The connector itself says that it is done: `NLMSG_DONE`.
const DONE: u16 = 3;
/// `CN_IDX_PROC` and `CN_VAL_PROC`: also the multicast group.
pub(super) const PROC: u32 = 1;

const KIND_ACK: u32 = 0;
const KIND_FORK: u32 = 1;
const KIND_EXEC: u32 = 2;
const KIND_EXIT: u32 = 0x8000_0000;

/// An event of a process. Threads are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessEvent {
    /// The kernel's answer to [`request`]: an error's number, or 0.
    Answer(u32),
    /// A process made another.
    Fork {
        /// The parent process.
        parent: u32,
        /// The new one.
        child: u32,
    },
    /// A process has become another program.
    Exec(u32),
    /// A process has ended.
    Exit {
        /// The process.
        pid: u32,
        /// The status, in the form of `wait`.
        status: u32,
    },
}

/// Asks for events, or for no more of them.
pub(super) fn request(listen: bool) -> [u8; NETLINK + CONNECTOR + 4] {
    /// Of all of it.
    const LENGTH: u32 = 40;
    let operation: u32 = if listen { 1 } else { 2 };
    let words: [u32; 10] = [
        LENGTH,
        u32::from_ne_bytes(pair(DONE, 0)),
        0,
        0,
        PROC,
        PROC,
        0,
        0,
        u32::from_ne_bytes(pair(4, 0)),
        operation,
    ];
    let mut bytes = [0; NETLINK + CONNECTOR + 4];
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// Returns the events in a datagram, in their order. What is none, or is cut, is left out.
pub(super) fn events(datagram: &[u8]) -> impl Iterator<Item = ProcessEvent> + '_ {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(word(rest, 0)?).ok()?;
        let message = rest.get(..length).filter(|_| length >= NETLINK)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
    .filter_map(event)
}

fn event(message: &[u8]) -> Option<ProcessEvent> {
    let kind = half(message, 4)?;
    if kind != DONE && kind < FIRST_TYPE {
        return None;
    }
    let connector = message.get(NETLINK..)?;
    if word(connector, 0)? != PROC || word(connector, 4)? != PROC {
        return None;
    }
    let length = usize::from(half(connector, 16)?);
    let event = connector.get(CONNECTOR..)?.get(..length)?;
    let own = |field: usize| word(event, EVENT + 4 * field);
    match word(event, 0)? {
        KIND_ACK => Some(ProcessEvent::Answer(own(0)?)),
        KIND_FORK => {
            let (parent, thread, child) = (own(1)?, own(2)?, own(3)?);
            (thread == child).then_some(ProcessEvent::Fork { parent, child })
        }
        KIND_EXEC => Some(ProcessEvent::Exec(own(1)?)),
        KIND_EXIT => {
            let (thread, pid, status) = (own(0)?, own(1)?, own(2)?);
            (thread == pid).then_some(ProcessEvent::Exit { pid, status })
        }
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

fn pair(first: u16, second: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    [a, b, c, d]
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns a datagram with one event, as the kernel makes it.
    pub(in super::super) fn datagram(kind: u32, own: &[u32]) -> Vec<u8> {
        let length = u16::try_from(EVENT + own.len() * 4).unwrap();
        let whole = u32::try_from(NETLINK + CONNECTOR).unwrap() + u32::from(length);
        let head = [whole, u32::from_ne_bytes(pair(DONE, 0)), 7, 0];
        let connector = [PROC, PROC, 7, 0, u32::from_ne_bytes(pair(length, 0))];
        let event = [kind, 1, 0xdead, 0xbeef];
        let words = head.iter().chain(&connector).chain(&event).chain(own);
        words.flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn read(bytes: &[u8]) -> Vec<ProcessEvent> {
        events(bytes).collect()
    }

    #[test]
    fn events_are_read_as_the_kernel_writes_them() {
        let fork = ProcessEvent::Fork {
            parent: 10,
            child: 12,
        };
        assert_eq!(read(&datagram(KIND_FORK, &[11, 10, 12, 12])), [fork]);
        assert_eq!(
            read(&datagram(KIND_EXEC, &[12, 12])),
            [ProcessEvent::Exec(12)]
        );
        let exit = ProcessEvent::Exit {
            pid: 12,
            status: 0x0300,
        };
        assert_eq!(
            read(&datagram(KIND_EXIT, &[12, 12, 0x0300, 17, 10, 10])),
            [exit]
        );
        assert_eq!(read(&datagram(KIND_ACK, &[1])), [ProcessEvent::Answer(1)]);
        let two = [datagram(KIND_EXEC, &[1, 1]), datagram(KIND_EXEC, &[2, 2])].concat();
        assert_eq!(read(&two), [ProcessEvent::Exec(1), ProcessEvent::Exec(2)]);
    }

    #[test]
    fn threads_and_unrequested_events_are_left_out() {
        for none in [
            datagram(KIND_FORK, &[10, 10, 13, 12]),
            datagram(KIND_EXIT, &[13, 12, 0, 0, 1, 1]),
            datagram(0x200, &[1, 1, 1, 1]),
            datagram(KIND_EXEC, &[12]),
        ] {
            assert_eq!(read(&none), []);
        }
        let mut other = datagram(KIND_EXEC, &[1, 1]);
        other[16] ^= 2;
        assert_eq!(read(&other), []);
    }

    #[test]
    fn a_request_is_a_message_of_its_own_length() {
        let bytes = request(true);
        assert_eq!(word(&bytes, 0), Some(40));
        assert_eq!((half(&bytes, 4), half(&bytes, 32)), (Some(DONE), Some(4)));
        assert_eq!(word(&bytes, 36), Some(1));
        assert_eq!(word(&request(false), 36), Some(2));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_their_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            // At least a header is taken of them for each.
            prop_assert!(read(&bytes).len() <= bytes.len() / NETLINK);
        }

        #[test]
        fn a_cut_datagram_gives_nothing_else_than_a_whole_one(
            pid: u32, status: u32, cut in 0usize..76, changed in 0usize..76, by: u8,
        ) {
            let whole = datagram(KIND_EXIT, &[pid, pid, status, 17, 1, 1]);
            let exit = ProcessEvent::Exit { pid, status };
            prop_assert_eq!(read(&whole), [exit]);
            prop_assert_eq!(read(&whole[..cut.min(whole.len() - 1)]), []);
            let mut other = whole.clone();
            let at = changed.min(whole.len() - 1);
            other[at] ^= by;
            prop_assert!(read(&other).len() <= 1);
        }
    }
}
