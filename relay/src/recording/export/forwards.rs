//! Forwards, as a recording tells them: where each leads, what has passed, how it ended.

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::recording::record::{
    ForwardClosed, ForwardDirection, ForwardEnd, ForwardOpened,
};
use serde_json::{Value, json};

use crate::recording::export::snake;

/// What an export says of a forward that begins. These names are relied upon.
pub(crate) fn opened_facts(forward: &ForwardOpened<'_>) -> Value {
    json!({
        "id": forward.id,
        "direction": snake(&format!("{:?}", forward.direction)),
        "to": forward.to,
        "from": Some(forward.from).filter(|from| !from.is_empty()),
        "address": forward.address.map(|address| address.to_string()),
    })
}

/// What it says of one that ends.
pub(crate) fn closed_facts(forward: &ForwardClosed) -> Value {
    json!({
        "id": forward.id,
        "sent": forward.sent,
        "received": forward.received,
        "reason": snake(&format!("{:?}", forward.why)),
    })
}

/// The beginning in a line.
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

/// The end in a line.
pub(crate) fn closed_line(forward: &ForwardClosed) -> String {
    let ForwardClosed {
        id,
        sent,
        received,
        why,
    } = forward;
    let why = match why {
        ForwardEnd::Closed => "",
        ForwardEnd::BrokenOff => ": its target broke it off",
        ForwardEnd::ClientGone => ": the operator's side ended it",
        ForwardEnd::TunnelLost => ": the tunnel was lost",
        ForwardEnd::StillOpen => ": it was still open",
    };
    format!("forward {id} closed, {sent} bytes sent, {received} received{why}")
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_forward_is_told_in_a_line_that_drives_no_terminal() {
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
            closed_line(&closed(ForwardEnd::Closed)),
            "forward 3 closed, 1 bytes sent, 2 received"
        );
        assert_eq!(
            closed_facts(&closed(ForwardEnd::StillOpen))["reason"],
            "still_open"
        );
        assert_eq!(opened_facts(&listens)["from"], Value::Null);
    }
}
