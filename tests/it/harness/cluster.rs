//! A cluster: a PostgreSQL server, a bucket, and relays that have joined.

use std::time::Duration;

use holdfast_tests::postgres::OwnServer;
use serde_json::Value;

use super::bucket::BucketServer;
use super::{DatabaseLink, Relay, SOON, wait_until};

pub(crate) struct Cluster {
    /// The members, in the order in which they joined.
    pub(crate) relays: Vec<Relay>,
    pub(crate) bucket: BucketServer,
    pub(crate) database: String,
    // Last, so that it ends last.
    pub(crate) server: OwnServer,
}

impl Cluster {
    /// Starts a cluster of so many relays, all of which serve; `None`: what it needs is not installed.
    #[track_caller]
    pub(crate) fn start(count: usize) -> Option<Self> {
        let mut cluster = Self::start_first(|database, _| database.to_owned())?;
        for _ in 1..count {
            cluster.grow();
        }
        Some(cluster)
    }

    /// Starts a cluster of so many relays, each of which has a link to the database that can be cut; `None`: what it needs
    /// is not installed. Commands on a relay's folder use its link, too.
    #[track_caller]
    pub(crate) fn start_linked(count: usize) -> Option<(Self, Vec<DatabaseLink>)> {
        let mut links = Vec::new();
        let mut cluster = Self::start_first(|_, server| {
            let link = DatabaseLink::to(server.get());
            let url = link.url(server.get(), "relay");
            links.push(link);
            url
        })?;
        for _ in 1..count {
            let link = DatabaseLink::to(cluster.server.get());
            let url = link.url(cluster.server.get(), "relay");
            links.push(link);
            let mut relay = Relay::new(&["--config", &cluster.bucket.configuration()]);
            relay.join(&cluster.relays[0], &url).ok();
            relay.start_again();
            cluster.relays.push(relay);
        }
        Some((cluster, links))
    }

    /// Starts the first relay of a cluster, with the address of the database that `by` makes.
    #[track_caller]
    fn start_first(by: impl FnOnce(&str, &OwnServer) -> String) -> Option<Self> {
        let bucket = BucketServer::start()?;
        let server = OwnServer::start();
        let made = server
            .get()
            .psql("CREATE DATABASE relay TEMPLATE template0");
        made.unwrap();
        let database = server.get().url("relay");
        let url = by(&database, &server);
        let first = Relay::start_with(&["--database", &url, "--config", &bucket.configuration()]);
        Some(Self {
            relays: vec![first],
            bucket,
            database,
            server,
        })
    }

    /// Adds a relay that has joined and does not serve yet.
    #[track_caller]
    pub(crate) fn joined(&self) -> Relay {
        let relay = Relay::new(&["--config", &self.bucket.configuration()]);
        relay.join(&self.relays[0], &self.database).ok();
        relay
    }

    /// Adds a relay that serves.
    #[track_caller]
    pub(crate) fn grow(&mut self) -> &Relay {
        let mut relay = self.joined();
        relay.start_again();
        self.relays.push(relay);
        self.relays.last().unwrap()
    }

    /// Returns what `cluster ls --json` on the first relay's folder says.
    #[track_caller]
    pub(crate) fn members(&self) -> Vec<Value> {
        match self.relays[0].json(&["cluster", "ls", "--json"]) {
            Value::Array(members) => members,
            other => panic!("`cluster ls --json` is no list: {other}"),
        }
    }

    /// Returns the name of a relay among the members.
    #[track_caller]
    pub(crate) fn name(&self, relay: usize) -> String {
        let address = self.relays[relay].tunnel().to_string();
        let members = self.members();
        let mut members = members.iter();
        let found = members.find(|member| member["tunnel"] == address);
        let found = found.unwrap_or_else(|| panic!("no member at {address}"));
        found["name"].as_str().unwrap().to_owned()
    }

    /// Waits until a relay has this state.
    #[track_caller]
    pub(crate) fn wait_state(&self, name: &str, state: &str, within: Duration) {
        wait_until(within, &format!("{name} is {state}"), || {
            let mut members = self.members().into_iter();
            members.any(|member| member["name"] == name && member["state"] == state)
        });
    }

    /// Waits until the device has a tunnel at this relay.
    #[track_caller]
    pub(crate) fn wait_at(&self, relay: usize, within: Duration) {
        let name = self.name(relay);
        wait_until(within, &format!("a device is at {name}"), || {
            let mut members = self.members().into_iter();
            members.any(|member| member["name"] == name && member["devices"] == 1)
        });
    }

    /// Returns the relay that has the tunnel of the only device.
    #[track_caller]
    pub(crate) fn with_the_device(&self) -> usize {
        let mut found = None;
        wait_until(SOON, "a relay has the device", || {
            let members = self.members();
            let holder = members.iter().find(|member| member["devices"] == 1);
            found = holder.and_then(|holder| {
                let mut relays = self.relays.iter();
                relays.position(|relay| holder["tunnel"] == relay.tunnel().to_string())
            });
            found.is_some()
        });
        found.unwrap()
    }
}
