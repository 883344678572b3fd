//! The work that needs a program of the device, recognized by its command.

use crate::model::request::ProcessRequest;

/// Returns whether this is what `scp -O` asks for, whose other half is a program of the device.
#[must_use]
pub(crate) fn runs_scp(work: &ProcessRequest) -> bool {
    let ProcessRequest::Exec(command) = work else {
        return false;
    };
    let mut words = command.split(|byte| *byte == b' ');
    words.next() == Some(b"scp") && words.any(|word| matches!(word, b"-t" | b"-f"))
}

/// Returns whether this starts the other half of `mosh`, which would wait for packets that no NAT lets through.
#[must_use]
pub(crate) fn runs_mosh(work: &ProcessRequest) -> bool {
    let ProcessRequest::Exec(command) = work else {
        return false;
    };
    let mut words = command.split(|byte| *byte == b' ');
    let program = words
        .next()
        .and_then(|path| path.rsplit(|byte| *byte == b'/').next());
    program == Some(b"mosh-server") && matches!(words.next(), Some(b"new" | b"'new'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_mosh_runs_is_taken_for_mosh() {
        let runs = |line: &str| runs_mosh(&ProcessRequest::Exec(line.into()));
        assert!(runs("mosh-server new -s") && runs("/opt/bin/mosh-server 'new' '-c' '8'"));
        for no in [
            "mosh-server",
            "mosh-server --version",
            "echo mosh-server new",
            "mosh new",
            "",
        ] {
            assert!(!runs(no), "{no}");
        }
    }

    #[test]
    fn only_what_scp_runs_is_taken_for_scp() {
        let runs = |line: &str| runs_scp(&ProcessRequest::Exec(line.into()));
        for yes in ["scp -t /tmp/x", "scp -r -p -d -t -- a b", "scp -v -f ~/x"] {
            assert!(runs(yes), "{yes}");
        }
        for no in [
            "scp a b",
            "scpx -t a",
            "scp",
            "",
            "echo scp -t a",
            "scp-t a",
        ] {
            assert!(!runs(no), "{no}");
        }
        assert!(!runs_scp(&ProcessRequest::Shell));
        assert!(!runs_scp(&ProcessRequest::Subsystem("scp -t".into())));
    }
}
