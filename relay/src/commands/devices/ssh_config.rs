//! `ssh-config`: what makes `ssh pi@kitchen-cam.fleet` work with a stock OpenSSH.

use russh::keys::{HashAlg, PublicKey};

use crate::audit::Event;
use crate::commands::Done;
use crate::commands::call::{Call, Command, Right};
use crate::commands::{Context, Failure};
use crate::session::client::target::FLEET_DOMAIN;

/// The fast one first: a jump encrypts everything twice.
const CIPHERS: &str = "aes256-gcm@openssh.com,aes128-gcm@openssh.com,chacha20-poly1305@openssh.com";

/// The interval that finds a dead network in the time that a session survives: after [`KEEPALIVES`] of them without an
/// answer.
const KEEPALIVE_SECONDS: u32 = 30;

/// See [`KEEPALIVE_SECONDS`].
const KEEPALIVES: u32 = 4;

/// Print the lines for ~/.ssh/config and known_hosts that reach devices by name
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  relay ssh-config >> ~/.ssh/config
  relay ssh-config --known-hosts >> ~/.ssh/known_hosts
  relay ssh-config --for ansible > inventory.ini

Then: ssh pi@kitchen-cam.fleet, scp FILE pi@kitchen-cam.fleet:, rsync, ansible.")]
pub(crate) struct Args {
    /// Print only the lines for known_hosts
    #[arg(long)]
    known_hosts: bool,
    /// The client: openssh, windows (OpenSSH there), putty, winscp or ansible
    #[arg(long = "for", value_name = "CLIENT", value_parser = client, default_value = "openssh", conflicts_with = "known_hosts")]
    client: ClientKind,
}

impl Command for Args {
    fn need(&self) -> Right {
        Right::AnyRole
    }

    fn event(&self) -> Option<Event> {
        None
    }

    async fn run(self, call: Call<'_, '_>) -> Result<Done, Failure> {
        run(&self, call.context).await.map(Done::from)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientKind {
    Openssh,
    Windows,
    Putty,
    Winscp,
    Ansible,
}

fn client(text: &str) -> Result<ClientKind, &'static str> {
    match text {
        "openssh" => Ok(ClientKind::Openssh),
        "windows" => Ok(ClientKind::Windows),
        "putty" => Ok(ClientKind::Putty),
        "winscp" => Ok(ClientKind::Winscp),
        "ansible" => Ok(ClientKind::Ansible),
        _ => Err("the clients are openssh, windows, putty, winscp and ansible"),
    }
}

/// The address that operators connect to, and the keys that they know it by.
struct ConfigFront {
    /// `HOST:PORT`.
    address: String,
    host: String,
    port: String,
    /// The line for known_hosts: the certificate authority of all devices.
    device_line: String,
    /// The line for known_hosts: the relay's own key is certified as well, so who has this line need not hear of
    /// another key.
    authority_line: String,
    /// The lines for known_hosts: the relay's own key, the one that it serves with until its next start, if that is
    /// another, and the next one, if there is one.
    relay_lines: Vec<String>,
    /// Their fingerprints, as `SHA256:…`.
    fingerprints: Vec<String>,
}

async fn run(args: &Args, context: &Context) -> Result<String, Failure> {
    let front = ConfigFront::of(context).await?;
    if args.known_hosts {
        return Ok(front.known_hosts("") + "\n");
    }
    Ok(match args.client {
        ClientKind::Openssh => front.openssh(),
        ClientKind::Windows => front.windows(),
        ClientKind::Putty => front.putty(),
        ClientKind::Winscp => front.winscp(),
        ClientKind::Ansible => front.ansible(),
    })
}

impl ConfigFront {
    async fn of(context: &Context) -> Result<Self, Failure> {
        let address = context.store.ssh_address(context.facts.member).await?;
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
        let facts = &context.facts;
        let keys: Vec<&String> = [&facts.ssh_host]
            .into_iter()
            .chain(&facts.ssh_host_served)
            .chain(&facts.ssh_host_next)
            .collect();
        let print = |key: &&String| {
            let key = PublicKey::from_openssh(key);
            let key = key.map_err(|error| Failure(format!("the relay's own host key: {error}")))?;
            Ok(key.fingerprint(HashAlg::Sha256).to_string())
        };
        Ok(Self {
            host: bare.to_owned(),
            port: port.to_owned(),
            device_line: format!("@cert-authority *.{FLEET_DOMAIN} {}", facts.ssh_ca),
            authority_line: format!("@cert-authority {relay} {}", facts.ssh_ca),
            relay_lines: keys.iter().map(|key| format!("{relay} {key}")).collect(),
            fingerprints: keys.iter().map(print).collect::<Result<_, Failure>>()?,
            address,
        })
    }

    /// Returns the lines for known_hosts, each behind `before`.
    fn known_hosts(&self, before: &str) -> String {
        let lines = [&self.device_line, &self.authority_line].into_iter();
        let lines = lines.chain(&self.relay_lines);
        let lines: Vec<String> = lines.map(|line| format!("{before}{line}")).collect();
        lines.join("\n")
    }

    /// Returns what both blocks of a configuration have: the agent's keys are not offered one by one until the relay
    /// has had enough, and a network that is dead is noticed.
    fn common() -> String {
        format!(
            "    IdentitiesOnly yes
    # IdentityFile ~/.ssh/id_ed25519    (where the relay knows another key than your default ones; of a key in an
    #                                    agent or a token, its .pub file)
    ServerAliveInterval {KEEPALIVE_SECONDS}
    ServerAliveCountMax {KEEPALIVES}
    Ciphers {CIPHERS}
"
        )
    }

    fn openssh(&self) -> String {
        let Self {
            address,
            host,
            device_line,
            authority_line,
            ..
        } = self;
        let (common, known) = (Self::common(), self.known_hosts("#   "));
        // KnownHostsCommand (OpenSSH 8.5) tells ssh the keys without a second file to edit. An older ssh
        // looks at each word even where the host does not match, so it gets an option to skip this one for all.
        format!(
            "# Holdfast: the fleet behind {address}. Then: ssh pi@kitchen-cam.{FLEET_DOMAIN}
# For an ssh older than 8.5 put these lines into ~/.ssh/known_hosts as well:
{known}
Host *
    IgnoreUnknown KnownHostsCommand

Host *.{FLEET_DOMAIN}
    ProxyJump {address}
{common}    KnownHostsCommand /bin/echo {device_line}

Host {host}
{common}    KnownHostsCommand /bin/echo {authority_line}
"
        )
    }

    fn windows(&self) -> String {
        let Self { address, host, .. } = self;
        let (common, known) = (Self::common(), self.known_hosts("#   "));
        format!(
            "# Holdfast: the fleet behind {address}, for OpenSSH on Windows. Then: ssh pi@kitchen-cam.{FLEET_DOMAIN}
# This text belongs into %USERPROFILE%\\.ssh\\config, and these lines, without the #, into
# %USERPROFILE%\\.ssh\\known_hosts:
{known}
Host *.{FLEET_DOMAIN}
    ProxyJump {address}
{common}
Host {host}
{common}"
        )
    }

    /// Returns the lines for PuTTY, which reads no configuration of OpenSSH and knows no host certificates: it takes
    /// the direct way.
    fn putty(&self) -> String {
        let Self {
            host,
            port,
            fingerprints,
            ..
        } = self;
        let (option, listed) = (fingerprints.join(" -hostkey "), fingerprints.join(","));
        let hex = port.parse::<u16>().unwrap_or(22);
        let hex = format!("{hex:08x}");
        format!(
            "; Holdfast: the fleet behind {host}, for PuTTY. The device is part of the user name.
; On a command line, here for the login pi on kitchen-cam:
;   putty -ssh -P {port} -hostkey {option} pi+kitchen-cam@{host}
;   plink -P {port} -hostkey {option} pi+kitchen-cam@{host} uptime
;   pscp -P {port} -hostkey {option} FILE pi+kitchen-cam@{host}:
; As a saved session: put what follows into holdfast.reg, and open that.
Windows Registry Editor Version 5.00

[HKEY_CURRENT_USER\\Software\\SimonTatham\\PuTTY\\Sessions\\holdfast]
\"Protocol\"=\"ssh\"
\"HostName\"=\"{host}\"
\"PortNumber\"=dword:{hex}
\"UserName\"=\"pi+kitchen-cam\"
\"PingInterval\"=dword:00000000
\"PingIntervalSecs\"=dword:{KEEPALIVE_SECONDS:08x}
\"SSHManualHostKeys\"=\"{listed}\"
"
        )
    }

    fn winscp(&self) -> String {
        let Self {
            host,
            port,
            fingerprints,
            ..
        } = self;
        let key = |print: &String| {
            let digest = print.trim_start_matches("SHA256:");
            format!("ssh-ed25519 255 {digest}")
        };
        let keys: Vec<String> = fingerprints.iter().map(key).collect();
        let keys = keys.join(";");
        let host = match host.contains(':') {
            true => format!("[{host}]"),
            false => host.clone(),
        };
        // A plus sign in a URL is a space to some.
        format!(
            "; Holdfast: the fleet behind {host}, for WinSCP. The device is part of the user name, here pi on kitchen-cam.
; In the login window: protocol SFTP, host {host}, port {port}, user pi+kitchen-cam.
; In a script:
open sftp://pi%2Bkitchen-cam@{host}:{port}/ -hostkey=\"{keys}\" -rawsettings PingType=1 PingIntervalSecs={KEEPALIVE_SECONDS}
"
        )
    }

    fn ansible(&self) -> String {
        let Self { host, port, .. } = self;
        format!(
            "# Holdfast: an inventory for Ansible. The first group goes by the jump: it needs what `ssh-config` prints in
# ~/.ssh/config, and logs in as usual. The second goes the direct way and needs no configuration of ssh; there the
# user name is LOGIN+DEVICE, which is no account on the device, so `~` of it leads nowhere: $HOME, which the device
# sets, names the folder for Ansible's own files. In both groups is an example, the login pi on kitchen-cam: put a line
# for each of your devices in its place, without the #; `devices` lists them.
[fleet]
# kitchen-cam ansible_host=kitchen-cam.{FLEET_DOMAIN} ansible_user=pi

[fleet_direct]
# kitchen-cam-direct ansible_host={host} ansible_port={port} ansible_user=pi+kitchen-cam ansible_remote_tmp=$HOME/.ansible/tmp

[all:vars]
ansible_ssh_common_args=-o IdentitiesOnly=yes -o ServerAliveInterval={KEEPALIVE_SECONDS}
ansible_ssh_pipelining=true
"
        )
    }
}
