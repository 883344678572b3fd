//! Cuts what an older agent does not take before it is sent, and says to the operator what was cut.

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::ids::DeviceName;
use holdfast_protocol::limits::{
    LONG_ENV_MINOR, OLD_MAX_ENV_BYTES, OLD_MAX_ENV_VALUE, OLD_MAX_TERM,
};
use holdfast_protocol::wire::Pty;

/// Leaves what an agent of this minor version takes of an environment and a terminal's name; gives a sentence for each
/// that it does not.
pub(crate) fn fit(
    minor: u16,
    device: &DeviceName,
    env: &mut Vec<(String, String)>,
    pty: &mut Option<Pty>,
) -> Vec<String> {
    let mut sentences = Vec::new();
    if minor >= LONG_ENV_MINOR {
        return sentences;
    }
    let older = format!("the agent on {device} is older than this relay");
    if let Some(pty) = pty
        && pty.term.len() > OLD_MAX_TERM
    {
        let length = pty.term.len();
        sentences.push(format!(
            "TERM is not passed on: it has {length} bytes; the maximum is {OLD_MAX_TERM}, because {older}"
        ));
        pty.term.clear();
    }
    let mut bytes = 0;
    env.retain(|(name, value)| {
        let fits = value.len() <= OLD_MAX_ENV_VALUE
            && bytes + name.len() + value.len() <= OLD_MAX_ENV_BYTES;
        if fits {
            bytes += name.len() + value.len();
        } else {
            sentences.push(format!(
                "{} is not passed on: a value has at most {OLD_MAX_ENV_VALUE} bytes, and all together {OLD_MAX_ENV_BYTES}, because {older}",
                Escaped(name)
            ));
        }
        fits
    });
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_protocol::limits::{MAX_ENV_VALUE, MAX_TERM, MINOR_VERSION};
    use holdfast_protocol::wire::WindowSize;

    #[test]
    fn older_agent_is_served_within_its_version() {
        let device = DeviceName::new("cam").unwrap();
        let asked = || {
            let env = vec![
                ("LC_ALL".to_owned(), "C".to_owned()),
                ("LC_LONG".to_owned(), "x".repeat(MAX_ENV_VALUE)),
            ];
            let pty = Pty {
                term: "x".repeat(MAX_TERM),
                size: WindowSize::default(),
                modes: Vec::new(),
            };
            (env, Some(pty))
        };
        let (mut env, mut pty) = asked();
        assert!(fit(MINOR_VERSION, &device, &mut env, &mut pty).is_empty());
        assert_eq!((env, pty), asked());

        let (mut env, mut pty) = asked();
        let said = fit(LONG_ENV_MINOR - 1, &device, &mut env, &mut pty);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("TERM is not passed on"), "{said:?}");
        assert!(said[1].starts_with("LC_LONG is not passed on"), "{said:?}");
        assert_eq!(env, [("LC_ALL".to_owned(), "C".to_owned())]);
        assert_eq!(pty.unwrap().term, "");
    }
}
