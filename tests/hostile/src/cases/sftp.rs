//! Operators who send in an sftp session what they may not.

use anyhow::Result;

use crate::Outcome;
use crate::operator::sftp::Sftp;
use crate::operator::{OperatorCase, OperatorTarget};

/// The table.
pub const CASES: &[OperatorCase] = &[
    OperatorCase {
        name: "sftp-long-packet",
        what: "Announces a packet of 4 GiB.",
        run: |target| after(target, |sftp| sftp.send(&[0xff; 16])),
    },
    OperatorCase {
        name: "sftp-same-id",
        what: "Asks for two paths under one id before either is answered, COUNT times.",
        run: |target| {
            let count = target.count;
            after(target, move |sftp| {
                for id in 0..count {
                    let paths: [&[u8]; 2] = [b"/etc/passwd", b"/etc/hostname"];
                    sftp.ask_both(crate::operator::sftp::STAT, id, &paths);
                }
            })
        },
    },
    OperatorCase {
        name: "sftp-open-flood",
        what: "Opens COUNT folders and closes none.",
        run: |target| {
            let count = target.count;
            after(target, move |sftp| {
                for id in 0..count {
                    sftp.ask(crate::operator::sftp::OPENDIR, id, b"/");
                }
            })
        },
    },
];

fn after(target: &OperatorTarget, lie: impl FnOnce(&mut Sftp)) -> Result<Outcome> {
    let Some(mut sftp) = Sftp::begin(target.login()?) else {
        return Ok(Outcome::Refused("the subsystem".to_owned()));
    };
    lie(&mut sftp);
    Ok(match sftp.raw.ends(target.within) {
        true => Outcome::Refused("the connection".to_owned()),
        false => Outcome::Done("the connection is still open".to_owned()),
    })
}
