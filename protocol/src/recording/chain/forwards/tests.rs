use alloc::borrow::ToOwned as _;
use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::recording::record::{Gap, GapReason, RecordingEnd};

const ECHO: &str = "localhost:7";

fn seen(sent: u64, received: u64) -> SeenForward {
    SeenForward {
        direction: ForwardDirection::Out,
        to: Some(ECHO.to_owned()),
        from: None,
        address: Some(SocketAddr::from(([127, 0, 0, 1], 7))),
        sent,
        received,
        opened: true,
        orderly: true,
    }
}

fn opened(id: u32) -> Event<'static> {
    Event::ForwardOpened(ForwardOpened {
        id,
        to: ECHO,
        from: "",
        direction: ForwardDirection::Out,
        address: Some(SocketAddr::from(([127, 0, 0, 1], 7))),
    })
}

fn closed_as(id: u32, sent: u64, received: u64, why: ForwardEnding) -> Event<'static> {
    Event::ForwardClosed(ForwardClosed {
        id,
        sent,
        received,
        why,
    })
}

fn closed(id: u32, sent: u64, received: u64) -> Event<'static> {
    closed_as(id, sent, received, ForwardEnding::Closed)
}

fn end(why: EndReason) -> Event<'static> {
    let streams = Default::default();
    Event::End(RecordingEnd { why, streams })
}

fn lost(records: u64) -> Event<'static> {
    Event::Gap(Gap {
        micros: 0,
        bytes: [0; 3],
        after: Default::default(),
        records,
        why: GapReason::SpoolFull,
    })
}

/// Returns what the relay knows of the forwards 1 and 2.
fn expected(first: SeenForward, second: SeenForward) -> SeenForwards {
    SeenForwards {
        given: Some(2),
        ended: BTreeMap::from([(1, first), (2, second)]),
    }
}

/// Returns what comes of these records, in a recording that ends in good order.
fn check(
    expected: &SeenForwards,
    strict: bool,
    records: Vec<Event<'static>>,
) -> (Option<Contradiction>, Option<Unproved>) {
    let mut check = ForwardCheck::new(Some(expected), strict);
    let mut found = None;
    for event in &records {
        found = found.or(check.handle(event));
    }
    let (at_the_end, lack) = check.finish(true);
    (found.or(at_the_end), lack)
}

fn both() -> SeenForwards {
    expected(seen(3, 30), seen(4, 40))
}

#[test]
fn true_counts_are_proved() {
    let records = vec![
        opened(1),
        opened(2),
        closed(2, 4, 40),
        closed(1, 3, 30),
        end(EndReason::ClientGone),
    ];
    assert_eq!(check(&both(), true, records), (None, None));
}

#[test]
fn counts_of_an_orderly_end_are_the_relays() {
    let of = |sent, received| {
        let ended = closed(1, sent, received);
        let records = vec![opened(1), ended, opened(2), closed(2, 4, 40)];
        check(&both(), true, records).0
    };
    assert_eq!(of(3, 30), None);
    // Its target may have closed before all had reached it.
    assert_eq!(of(0, 30), None);
    let (id, passed) = (1, 3);
    let recorded = 4;
    let sent = Contradiction::ForwardSent {
        id,
        recorded,
        passed,
    };
    assert_eq!(of(4, 30), Some(sent));
    for recorded in [29, 31] {
        let received = Contradiction::ForwardReceived {
            id,
            recorded,
            passed: 30,
        };
        assert_eq!(of(3, recorded), Some(received));
    }
}

#[test]
fn forward_that_was_cut_off_has_at_least_what_the_operator_took() {
    let cut = SeenForward {
        orderly: false,
        ..seen(3, 30)
    };
    let expected = expected(cut, seen(4, 40));
    let of = |received| {
        let ended = closed_as(1, 3, received, ForwardEnding::ClientGone);
        check(
            &expected,
            true,
            vec![opened(1), ended, opened(2), closed(2, 4, 40)],
        )
        .0
    };
    assert_eq!(of(30), None);
    assert_eq!(of(1_000), None);
    assert!(matches!(
        of(29),
        Some(Contradiction::ForwardReceived { id: 1, .. })
    ));
}

#[test]
fn recording_that_ends_first_proves_less() {
    let records = vec![
        opened(1),
        closed_as(1, 1, 10, ForwardEnding::StillOpen),
        opened(2),
        closed(2, 4, 40),
        end(EndReason::AgentStopped),
    ];
    let cut_short = Some(Unproved::CutShort);
    assert_eq!(check(&both(), true, records), (None, cut_short));
}

#[test]
fn number_is_opened_and_closed_once() {
    let rest = || [opened(2), closed(2, 4, 40)];
    let of = |records: &[Event<'static>]| {
        let records = records.iter().cloned().chain(rest());
        check(&both(), true, records.collect()).0
    };
    let repeated = Some(Contradiction::ForwardRepeated(1));
    assert_eq!(of(&[opened(1), opened(1), closed(1, 3, 30)]), repeated);
    assert_eq!(of(&[opened(1), closed(1, 3, 30), opened(1)]), repeated);
    assert_eq!(
        of(&[opened(1), closed(1, 3, 30), closed(1, 3, 30)]),
        repeated
    );
    let not_opened = Some(Contradiction::ForwardNotOpened(1));
    assert_eq!(of(&[closed(1, 3, 30), opened(1)]), not_opened);
    let not_closed = Some(Contradiction::ForwardNotClosed(1));
    assert_eq!(of(&[opened(1)]), not_closed);
    for id in [0, 3, u32::MAX] {
        let added = Some(Contradiction::ForwardAdded(id));
        assert_eq!(of(&[opened(id)]), added);
        assert_eq!(of(&[closed(id, 0, 0)]), added);
    }
}

#[test]
fn forward_that_stood_is_not_left_out() {
    let one = || vec![opened(2), closed(2, 4, 40)];
    let ends_with = |why, strict| {
        let mut records = one();
        records.push(end(why));
        check(&both(), strict, records)
    };
    let dropped = (Some(Contradiction::ForwardDropped(1)), None);
    assert_eq!(ends_with(EndReason::ClientGone, true), dropped);
    assert_eq!(ends_with(EndReason::ClientGone, false), dropped);
    assert_eq!(ends_with(EndReason::AgentStopped, true), dropped);
    // Under best effort a forward goes on where its recording was ended by the device.
    let unproved = (None, Some(Unproved::CutShort));
    assert_eq!(ends_with(EndReason::AgentStopped, false), unproved);

    let mut records = one();
    records.push(lost(2));
    let gaps = (None, Some(Unproved::Gaps));
    assert_eq!(check(&both(), false, records), gaps);

    let never = SeenForward {
        opened: false,
        ..seen(0, 0)
    };
    assert_eq!(
        check(&expected(never, seen(4, 40)), true, one()),
        (None, None)
    );
}

#[test]
fn forward_leads_where_the_relay_asked_for() {
    let changes: [fn(&mut ForwardOpened<'static>); 3] = [
        |opened| opened.to = "localhost:8",
        |opened| opened.direction = ForwardDirection::Listen,
        |opened| opened.address = None,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let Event::ForwardOpened(mut lying) = opened(1) else {
            unreachable!()
        };
        change(&mut lying);
        let records = vec![Event::ForwardOpened(lying), closed(1, 3, 30)];
        let found = check(&both(), true, records).0;
        assert_eq!(found, Some(Contradiction::ForwardLeads(1)), "{number}");
    }
    let come = SeenForward {
        direction: ForwardDirection::In,
        to: None,
        from: Some(SocketAddr::from(([203, 0, 113, 9], 5))),
        address: None,
        ..seen(3, 30)
    };
    let of = |from| {
        let opened = Event::ForwardOpened(ForwardOpened {
            id: 1,
            to: "192.0.2.1:80",
            from,
            direction: ForwardDirection::In,
            address: Some(SocketAddr::from(([192, 0, 2, 1], 80))),
        });
        let records = vec![
            opened,
            closed(1, 3, 30),
            super::tests::opened(2),
            closed(2, 4, 40),
        ];
        check(&expected(come.clone(), seen(4, 40)), true, records)
    };
    assert_eq!(of("203.0.113.9:5"), (None, None));
    let elsewhere = Some(Contradiction::ForwardLeads(1));
    for other in ["203.0.113.9:6", "203.0.113.8:5", "", "elsewhere"] {
        assert_eq!(of(other).0, elsewhere, "{other}");
    }
}

/// Covers the scope of an address, which a record's text has and the wire lacks.
#[test]
fn peer_on_a_link_local_address_is_the_one_that_came() {
    let come = SeenForward {
        direction: ForwardDirection::In,
        to: None,
        from: Some("[fe80::5]:40000".parse().unwrap()),
        address: None,
        ..seen(3, 30)
    };
    let of = |from| {
        let records = vec![
            Event::ForwardOpened(ForwardOpened {
                id: 1,
                to: "[fe80::1%2]:80",
                from,
                direction: ForwardDirection::In,
                address: Some("[fe80::1]:80".parse().unwrap()),
            }),
            closed(1, 3, 30),
            opened(2),
            closed(2, 4, 40),
        ];
        check(&expected(come.clone(), seen(4, 40)), true, records)
    };
    assert_eq!(of("[fe80::5%2]:40000"), (None, None));
    let elsewhere = Some(Contradiction::ForwardLeads(1));
    assert_eq!(of("[fe80::6%2]:40000").0, elsewhere);
}

#[test]
fn peer_or_address_that_there_was_not_is_not_invented() {
    let path = SeenForward {
        to: Some("/run/socket".to_owned()),
        address: None,
        ..seen(3, 30)
    };
    let of = |path: &SeenForward, from, address| {
        let records = vec![
            Event::ForwardOpened(ForwardOpened {
                id: 1,
                to: "/run/socket",
                from,
                direction: ForwardDirection::Out,
                address,
            }),
            closed(1, 3, 30),
            opened(2),
            closed(2, 4, 40),
        ];
        check(&expected(path.clone(), seen(4, 40)), true, records).0
    };
    let invented = Some(SocketAddr::from(([203, 0, 113, 9], 5)));
    let elsewhere = Some(Contradiction::ForwardLeads(1));
    assert_eq!(of(&path, "", None), None);
    assert_eq!(of(&path, "203.0.113.9:5", None), elsewhere);
    assert_eq!(of(&path, "", invented), elsewhere);
    let agent = SeenForward {
        direction: ForwardDirection::Out,
        to: Some("/run/socket".to_owned()),
        opened: false,
        orderly: false,
        ..path
    };
    assert_eq!(of(&agent, "", invented), elsewhere);
}

#[test]
fn what_a_killed_relay_did_not_keep_is_not_proved() {
    let killed = SeenForwards {
        given: None,
        ended: BTreeMap::from([(1, seen(3, 30))]),
    };
    let not_kept = Some(Unproved::NotKept);
    let records = vec![opened(1), closed(1, 3, 30), opened(2), closed(2, 9, 9)];
    assert_eq!(check(&killed, true, records), (None, not_kept));
    let lie = vec![opened(1), closed(1, 3, 3)];
    assert!(check(&killed, true, lie).0.is_some());
    // However many there are, no more are looked at than a recording can have.
    let most = MAX_FORWARDS_OF_RECORDING;
    let added = Some(Contradiction::ForwardAdded(most + 1));
    assert_eq!(check(&killed, true, vec![opened(most + 1)]).0, added);
}

/// Covers a forward whose counters the relay has not stored, or not yet: the recording may lack it.
#[test]
fn forward_of_which_nothing_is_kept_is_not_proved() {
    let expected = SeenForwards {
        given: Some(2),
        ended: BTreeMap::from([(1, seen(3, 30))]),
    };
    let not_kept = (None, Some(Unproved::NotKept));
    let mut records = vec![opened(1), closed(1, 3, 30)];
    assert_eq!(check(&expected, true, records.clone()), not_kept);
    records.extend([opened(2), closed(2, 9, 9)]);
    assert_eq!(check(&expected, true, records), not_kept);
}

/// Records an end for which there is room while a gap is open, and the gap when it is over.
#[test]
fn forward_may_end_before_the_gap_of_its_beginning_is_recorded() {
    let end_of_log = || end(EndReason::ClientGone);
    let records = vec![
        opened(2),
        closed(1, 3, 30),
        lost(2),
        closed(2, 4, 40),
        end_of_log(),
    ];
    let gaps = (None, Some(Unproved::Gaps));
    assert_eq!(check(&both(), false, records), gaps);
    let records = vec![opened(2), closed(1, 3, 30), closed(2, 4, 40), end_of_log()];
    let not_opened = Some(Contradiction::ForwardNotOpened(1));
    assert_eq!(check(&both(), false, records).0, not_opened);
}
