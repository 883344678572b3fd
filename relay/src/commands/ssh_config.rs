//! `ssh-config`: what makes `ssh pi@kitchen-cam.fleet` work with a stock OpenSSH.

use super::{Context, Failure};
use crate::ssh::target::FLEET_DOMAIN;
use crate::store::meta::PUBLIC_SSH;

/// The fast one first: a jump encrypts everything twice.
const CIPHERS: &str = "aes256-gcm@openssh.com,aes128-gcm@openssh.com,chacha20-poly1305@openssh.com";

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  relay ssh-config >> ~/.ssh/config
  relay ssh-config --known-hosts >> ~/.ssh/known_hosts

Then: ssh pi@kitchen-cam.fleet, scp FILE pi@kitchen-cam.fleet:, rsync, ansible.")]
pub struct Args {
    /// Print only the lines for known_hosts
    #[arg(long)]
    known_hosts: bool,
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<String, Failure> {
    let address = context.store.meta_get(PUBLIC_SSH).await?;
    let address = address.ok_or_else(|| {
        Failure::new(
            "no relay has served yet, so there is no address to name: start `relay serve` once",
        )
    })?;
    let (host, port) = address.rsplit_once(':').unwrap_or((&address, "22"));
    let bare = host.trim_matches(['[', ']']);
    // known_hosts names the standard port by the bare host, and any other in brackets.
    let relay = match port {
        "22" => bare.to_owned(),
        _ => format!("[{bare}]:{port}"),
    };
    let device_line = format!("@cert-authority *.{FLEET_DOMAIN} {}", context.facts.ssh_ca);
    // The relay's own key is certified as well: who has this line need not hear of another key.
    let authority_line = format!("@cert-authority {relay} {}", context.facts.ssh_ca);
    let line = |key: &String| format!("{relay} {key}");
    let next = context.facts.ssh_host_next.as_ref();
    let lines = [line(&context.facts.ssh_host)].into_iter();
    let lines: Vec<String> = lines.chain(next.map(line)).collect();
    if args.known_hosts {
        let lines = lines.join("\n");
        return Ok(format!("{device_line}\n{authority_line}\n{lines}\n"));
    }
    let relay_lines = lines.join("\n#   ");
    // KnownHostsCommand (OpenSSH 8.5) tells ssh the keys without a second file to edit. An older ssh
    // looks at each word even where the host does not match, so it is told to skip this one for all.
    Ok(format!(
        "# Holdfast: the fleet behind {address}. Then: ssh pi@kitchen-cam.{FLEET_DOMAIN}
# For an ssh older than 8.5, or on Windows, put these lines into ~/.ssh/known_hosts as well:
#   {device_line}
#   {authority_line}
#   {relay_lines}
Host *
    IgnoreUnknown KnownHostsCommand

Host *.{FLEET_DOMAIN}
    ProxyJump {address}
    Ciphers {CIPHERS}
    KnownHostsCommand /bin/echo {device_line}

Host {bare}
    Ciphers {CIPHERS}
    KnownHostsCommand /bin/echo {authority_line}
"
    ))
}
