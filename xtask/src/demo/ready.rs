//! The line by which a relay says that it serves.

use std::net::SocketAddr;

use anyhow::{Context, Result};

/// The line `ready ssh=IP:PORT tunnel=IP:PORT`.
#[derive(Debug, PartialEq)]
pub(super) struct Ready {
    pub(super) ssh: SocketAddr,
    pub(super) tunnel: SocketAddr,
}

impl Ready {
    pub(super) fn parse(line: &str) -> Result<Self> {
        let fields = line
            .trim()
            .strip_prefix("ready ")
            .context("it does not begin with \"ready\"")?;
        let field = |name: &str| {
            fields
                .split(' ')
                .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
                .with_context(|| format!("it names no {name} address"))?
                .parse()
                .with_context(|| format!("its {name} address is no address"))
        };
        Ok(Self {
            ssh: field("ssh")?,
            tunnel: field("tunnel")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_is_read_in_any_order_of_fields() -> Result<()> {
        let ready = Ready::parse("ready ssh=127.0.0.1:22 tunnel=[::1]:4433\n")?;
        assert_eq!(
            ready,
            Ready {
                ssh: "127.0.0.1:22".parse()?,
                tunnel: "[::1]:4433".parse()?
            }
        );
        assert_eq!(
            ready,
            Ready::parse("ready tunnel=[::1]:4433 ssh=127.0.0.1:22 web=x")?
        );
        Ok(())
    }

    #[test]
    fn a_line_that_is_not_ready_says_what_it_lacks() {
        let lacks = |line: &str| Ready::parse(line).unwrap_err().to_string();
        assert_eq!(lacks("listening"), "it does not begin with \"ready\"");
        assert_eq!(lacks("ready ssh=127.0.0.1:1"), "it names no tunnel address");
    }
}
