//! Forwards, as a recording tells them: where each leads, what has passed, how it ended.

use holdfast_protocol::count::Count;
use holdfast_protocol::escape::Escaped;
use holdfast_protocol::recording::record::{
    Event, ForwardClosed, ForwardDirection, ForwardEnding, ForwardOpened, Record,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::text::{seconds, snake};
use crate::recording::limits::MAX_SHOWN_FORWARDS;
use crate::recording::verify::clock;

/// Returns what an export says of a forward that begins. These names are relied upon.
pub(crate) fn opened_facts(forward: &ForwardOpened<'_>) -> Value {
    json!({
        "id": forward.id,
        "direction": snake(&format!("{:?}", forward.direction)),
        "to": forward.to,
        "from": Some(forward.from).filter(|from| !from.is_empty()),
        "address": forward.address.map(|address| address.to_string()),
    })
}

/// Returns what it says of one that ends.
pub(crate) fn closed_facts(forward: &ForwardClosed) -> Value {
    json!({
        "id": forward.id,
        "sent": forward.sent,
        "received": forward.received,
        "reason": snake(&format!("{:?}", forward.why)),
    })
}

/// Returns the beginning in a line.
pub(crate) fn opened_line(forward: &ForwardOpened<'_>) -> String {
    let (id, to, from) = (forward.id, Escaped(forward.to), Escaped(forward.from));
    let address = forward.address.map(|address| address.to_string());
    let address = address.filter(|address| address != forward.to);
    let address = address.map_or_else(String::new, |address| format!(", which is {address} there"));
    match forward.direction {
        ForwardDirection::Out => format!("forward {id} to {to}{address}"),
        ForwardDirection::Listen => format!("forward {id} listens on {to}{address}"),
        ForwardDirection::In if forward.from.is_empty() => format!("forward {id} has come to {to}"),
        ForwardDirection::In => format!("forward {id} has come to {to} from {from}"),
    }
}

/// Returns the end in a line.
pub(crate) fn closed_line(forward: &ForwardClosed) -> String {
    let ForwardClosed {
        id,
        sent,
        received,
        why,
    } = forward;
    let why = match why {
        ForwardEnding::Closed => "",
        ForwardEnding::BrokenOff => ": its target broke it off",
        ForwardEnding::ClientGone => ": the operator's side ended it",
        ForwardEnding::TunnelLost => ": the tunnel was lost",
        ForwardEnding::StillOpen => ": it was still open",
    };
    let sent = Count(*sent, "byte");
    format!("forward {id} closed, {sent} sent, {received} received{why}")
}

/// The forwards that a recording has, for who looks at it. The names are relied upon.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ShownForwards {
    /// The forwards, in the order in which they began.
    pub(crate) forwards: Vec<ShownForward>,
    /// The number of forwards beyond those that are listed.
    pub(crate) forwards_more: u64,
}

/// One of them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ShownForward {
    /// Its number within the recording.
    pub(crate) id: u32,
    /// Seconds from the recording's start.
    pub(crate) time: f64,
    /// `out`, `listen` or `in`.
    pub(crate) direction: String,
    /// The target that was asked for.
    pub(crate) to: String,
    /// The peer that came; `null` where the device dials or listens.
    pub(crate) from: Option<String>,
    /// The address on the device.
    pub(crate) address: Option<String>,
    /// Bytes to the target; `null` while it is open.
    pub(crate) sent: Option<u64>,
    /// Bytes from the target; `null` while it is open.
    pub(crate) received: Option<u64>,
    /// The way it ended.
    pub(crate) reason: Option<String>,
    #[serde(skip)]
    micros: u64,
}

impl ShownForwards {
    /// Takes the next record.
    pub(crate) fn handle(&mut self, micros: u64, record: &Record<'_>) {
        match &record.event {
            Event::ForwardOpened(_) if self.forwards.len() >= MAX_SHOWN_FORWARDS => {
                self.forwards_more += 1;
            }
            Event::ForwardOpened(opened) => self.forwards.push(ShownForward {
                id: opened.id,
                time: seconds(micros),
                direction: snake(&format!("{:?}", opened.direction)),
                to: opened.to.to_owned(),
                from: Some(opened.from.to_owned()).filter(|from| !from.is_empty()),
                address: opened.address.map(|address| address.to_string()),
                sent: None,
                received: None,
                reason: None,
                micros,
            }),
            Event::ForwardClosed(closed) => {
                let of = |forward: &&mut ShownForward| forward.id == closed.id;
                if let Some(forward) = self.forwards.iter_mut().rev().find(of) {
                    forward.sent = Some(closed.sent);
                    forward.received = Some(closed.received);
                    forward.reason = Some(snake(&format!("{:?}", closed.why)));
                }
            }
            _ => {}
        }
    }

    /// Returns a row for each: when, direction, where to, its address there, from where, bytes sent and received, end.
    /// Escape them.
    #[must_use]
    pub(crate) fn rows(&self) -> Vec<[String; 8]> {
        let dash = || "-".to_owned();
        let number = |count: Option<u64>| count.map_or_else(dash, |count| count.to_string());
        let text = |text: &Option<String>| text.clone().unwrap_or_else(dash);
        let row = |forward: &ShownForward| {
            let address = forward.address.clone();
            [
                clock(forward.micros),
                forward.direction.clone(),
                forward.to.clone(),
                address.unwrap_or_else(dash),
                text(&forward.from),
                number(forward.sent),
                number(forward.received),
                text(&forward.reason),
            ]
        };
        self.forwards.iter().map(row).collect()
    }

    /// Returns a sentence about what is not shown; `None` if all are.
    #[must_use]
    pub(crate) fn lack(&self) -> Option<String> {
        let more = self.forwards_more;
        (more > 0).then(|| format!("{more} more are not shown: see `relay export --format json`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_shown_with_their_ends() {
        let mut shown = ShownForwards::default();
        let mut handle = |event| shown.handle(1_000_000, &Record { delta: 1, event });
        handle(Event::ForwardOpened(opened(ForwardDirection::Out, "db:80")));
        for _ in 0..MAX_SHOWN_FORWARDS {
            let open = ForwardOpened {
                id: 4,
                ..opened(ForwardDirection::Listen, "x:1")
            };
            handle(Event::ForwardOpened(open));
        }
        handle(Event::ForwardClosed(ForwardClosed {
            id: 3,
            sent: 1,
            received: 2,
            why: ForwardEnding::ClientGone,
        }));
        let rows = shown.rows();
        let expected = [
            "00:01",
            "out",
            "db:80",
            "127.0.0.1:80",
            "-",
            "1",
            "2",
            "client_gone",
        ];
        assert_eq!(rows[0], expected);
        assert_eq!(rows[1][5..], ["-", "-", "-"]);
        assert!(shown.lack().unwrap().starts_with("1 more are not shown"));
    }

    fn opened(direction: ForwardDirection, to: &'static str) -> ForwardOpened<'static> {
        ForwardOpened {
            id: 3,
            to,
            from: "",
            direction,
            address: Some("127.0.0.1:80".parse().unwrap()),
        }
    }

    #[test]
    fn forward_line_is_escaped() {
        let out = opened(ForwardDirection::Out, "db\u{1b}[31m:80");
        assert_eq!(
            opened_line(&out),
            "forward 3 to db\\u{1b}[31m:80, which is 127.0.0.1:80 there"
        );
        let listens = opened(ForwardDirection::Listen, "127.0.0.1:80");
        assert_eq!(opened_line(&listens), "forward 3 listens on 127.0.0.1:80");
        let come = ForwardOpened {
            from: "127.0.0.1:9",
            ..opened(ForwardDirection::In, "127.0.0.1:80")
        };
        assert_eq!(
            opened_line(&come),
            "forward 3 has come to 127.0.0.1:80 from 127.0.0.1:9"
        );
        let closed = |why| ForwardClosed {
            id: 3,
            sent: 1,
            received: 2,
            why,
        };
        assert_eq!(
            closed_line(&closed(ForwardEnding::Closed)),
            "forward 3 closed, 1 byte sent, 2 received"
        );
        assert_eq!(
            closed_facts(&closed(ForwardEnding::StillOpen))["reason"],
            "still_open"
        );
        assert_eq!(opened_facts(&listens)["from"], Value::Null);
    }
}
