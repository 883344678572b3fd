//! Three relays and two devices: a session across two relays, and one after a relay was killed.

use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::operator::Operator;
use super::{Demo, DeviceRow, ONLINE_WITHIN, succeed_quietly};
use crate::process;

const DEVICES: [&str; 2] = ["demo-device-1", "demo-device-2"];
/// A device whose relay died notices within 35 s, and the machine may be loaded.
const BACK_WITHIN: Duration = Duration::from_secs(60);

impl Demo {
    /// From an empty folder to the end of the session that follows a relay's death; gives ssh's exit status.
    pub(super) fn play_cluster(&mut self, s3: &Path, once: Option<&str>) -> Result<ExitStatus> {
        eprintln!("starting PostgreSQL and an S3 server");
        let database = self.start_postgres()?;
        let config = self.start_s3(s3)?;
        let config = config.to_str().context("the folder's name is not UTF-8")?;
        let shared = ["--database", &database, "--config", config];
        let mut relays = Vec::new();
        for number in 1..=3 {
            // Addresses of this machine's own, so that each relay has a name.
            let host = format!("127.0.0.{number}");
            let relay = format!("relay-{number}");
            if number == 1 {
                eprintln!("{relay} begins a cluster");
            } else {
                let token =
                    process::capture(&mut self.relay("relay-1", &["token", "create", "--relay"]))?;
                let join = ["cluster", "join", token.trim(), "--public", &host];
                let mut join = self.relay(&relay, &join);
                succeed_quietly(join.args(["--database", &database]), "relay cluster join")?;
            }
            let listen = format!("{host}:0");
            let mut flags = vec!["--ssh", &listen, "--tunnel", &listen];
            flags.extend(shared);
            let ready = self.serve(&relay, &flags)?;
            eprintln!(
                "{relay} serves ssh on {}, tunnels on {}",
                ready.ssh, ready.tunnel
            );
            relays.push((relay, host, ready));
        }
        self.add_operator("relay-1")?;
        for device in DEVICES {
            self.start_device("relay-1", device)?;
        }
        for device in DEVICES {
            let row = self.wait_online("relay-1", ONLINE_WITHIN, |row| row.name == device)?;
            eprintln!("{device} is online at {}", holder(&row)?);
        }
        let [device, _] = DEVICES;
        let row = self.wait_online("relay-1", ONLINE_WITHIN, |row| row.name == device)?;
        let holder = holder(&row)?.to_owned();
        // The operator is at a relay that does not have the device.
        let Some((relay, host, ready)) = relays.iter().find(|(_, host, _)| *host != holder) else {
            bail!("all relays are called {holder}");
        };
        let operator = Operator::prepare(&self.folder, &self.key(), ready.ssh)?;
        eprintln!("\na session across: ssh to {host}, and {device} has its tunnel at {holder}");
        let said = process::capture(&mut operator.session(device, Some("echo it works")))?;
        eprintln!("  {device} says: {}", said.trim().escape_debug());

        let Some((victim, ..)) = relays.iter().find(|(_, host, _)| *host == holder) else {
            bail!("no relay is called {holder}");
        };
        self.kill(victim)?;
        let killed = Instant::now();
        eprintln!("killed {victim} ({holder}) without a farewell; {device} notices within 35 s");
        let is_back = |row: &DeviceRow| row.name == device && row.relay.as_deref() != Some(&holder);
        let row = self.wait_online(relay, BACK_WITHIN, is_back)?;
        eprintln!(
            "{device} is back at {} after {:.1} s",
            self::holder(&row)?,
            killed.elapsed().as_secs_f64()
        );
        let listing = process::capture(&mut self.relay(relay, &["cluster", "ls"]))?;
        eprintln!("\n{listing}");
        self.last_session(&operator, device, once)
    }

    fn kill(&mut self, name: &str) -> Result<()> {
        let position = self.daemons.iter().position(|daemon| daemon.name() == name);
        let position = position.with_context(|| format!("{name} does not run"))?;
        self.daemons.remove(position).kill()
    }
}

fn holder(row: &DeviceRow) -> Result<&str> {
    let holder = row.relay.as_deref();
    holder.with_context(|| format!("{} is online and at no relay", row.name))
}
