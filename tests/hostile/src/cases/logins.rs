//! Operators who do before login what they may not.

use anyhow::Result;
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;

use crate::Outcome;
use crate::operator::raw::{self, Raw};
use crate::operator::{OperatorCase, OperatorTarget};

/// The table.
pub const CASES: &[OperatorCase] = &[
    OperatorCase {
        name: "offer-flood",
        what: "Offers the key COUNT times without a proof.",
        run: offers,
    },
    OperatorCase {
        name: "false-proof",
        what: "Sends COUNT proofs that another key signed, each on a connection of its own.",
        run: false_proofs,
    },
    OperatorCase {
        name: "untrusted-certificate",
        what: "Logs in COUNT times with a certificate of an authority that the relay does not know.",
        run: certificates,
    },
    OperatorCase {
        name: "no-version",
        what: "Opens COUNT connections that send an empty first line and nothing more.",
        run: silent,
    },
];

fn offers(target: &OperatorTarget) -> Result<Outcome> {
    let mut raw = Raw::connect(target.relay);
    raw.begin_login();
    for number in 0..target.count {
        let offer = raw.proof(&target.key, &target.user, false);
        if raw.try_say(&offer).is_err() {
            return Ok(Outcome::Refused(format!("after {number} offers")));
        }
        match raw.next() {
            Some(answer) if answer[0] == raw::USERAUTH_PK_OK => {}
            _ => return Ok(Outcome::Refused(format!("after {number} offers"))),
        }
    }
    Ok(Outcome::Done(format!(
        "{} offers were answered",
        target.count
    )))
}

fn false_proofs(target: &OperatorTarget) -> Result<Outcome> {
    let mut refused = 0;
    for _ in 0..target.count {
        let Some(mut raw) = Raw::try_connect(target.relay) else {
            refused += 1;
            continue;
        };
        raw.begin_login();
        let false_key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let false_key = Ed25519KeyPair::from_pkcs8(false_key.as_ref()).unwrap();
        let proof = raw.proof_by(&target.key, &target.user, &false_key);
        match raw.try_say(&proof).is_ok().then(|| raw.next()).flatten() {
            Some(answer) if answer[0] == raw::USERAUTH_SUCCESS => {
                return Ok(Outcome::Done("the relay took a false proof".to_owned()));
            }
            _ => refused += 1,
        }
    }
    Ok(Outcome::Refused(format!("{refused} proofs")))
}

fn certificates(target: &OperatorTarget) -> Result<Outcome> {
    let mut refused = 0;
    for number in 0..target.count {
        let Some(mut raw) = Raw::try_connect(target.relay) else {
            refused += 1;
            continue;
        };
        raw.begin_login();
        let proof = raw.certificate_proof(&target.key, &target.user, u64::from(number));
        match raw.try_say(&proof).is_ok().then(|| raw.next()).flatten() {
            Some(answer) if answer[0] == raw::USERAUTH_SUCCESS => {
                return Ok(Outcome::Done("the relay took the certificate".to_owned()));
            }
            _ => refused += 1,
        }
    }
    Ok(Outcome::Refused(format!("{refused} certificates")))
}

fn silent(target: &OperatorTarget) -> Result<Outcome> {
    use std::io::{Read as _, Write as _};
    let mut held = vec![];
    for _ in 0..target.count {
        let mut stream = std::net::TcpStream::connect(target.relay)?;
        let _ = stream.write_all(b"\r\n");
        stream.set_read_timeout(Some(target.within))?;
        held.push(stream);
    }
    let mut ended = 0;
    for stream in &mut held {
        let mut text = vec![];
        if stream.read_to_end(&mut text).is_ok() {
            ended += 1;
        }
    }
    Ok(match ended {
        0 => Outcome::Done(format!("{} connections still stand", held.len())),
        ended => Outcome::Refused(format!("{ended} connections were closed")),
    })
}
