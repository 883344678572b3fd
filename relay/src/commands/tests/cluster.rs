//! Commands about the relays of a cluster, and those that a cluster of several forbids.

use super::*;
use crate::store::{ServingMember, StoreError};

const SECOND: MemberId = MemberId([2; 16]);

impl Fixture {
    /// Notes that a member serves, at addresses of its own. One that is not known is added.
    async fn member(&self, id: MemberId, host: &str) -> Result<(), StoreError> {
        let tunnel_key = PublicKey([id.0[0]; 32]);
        let serving = ServingMember {
            id,
            tunnel_key,
            tunnel_address: format!("{host}:4433"),
            ssh_address: format!("{host}:2222"),
            bound_ssh: "127.0.0.1:2222".parse().unwrap(),
        };
        let store = &self.context.store;
        if id != MemberId::FIRST && store.member(id).await?.is_none() {
            store
                .change(async |tx| tx.add_member(id, tunnel_key, host, Some(host), T0).await)
                .await?;
        }
        store
            .change(async |tx| tx.member_serves(&serving, T0).await)
            .await
            .map(drop)
    }
}

#[tokio::test]
async fn the_last_relay_that_runs_leaves_by_force_only() {
    let fixture = Fixture::new().await;
    fixture.member(MemberId::FIRST, "a").await.unwrap();
    fixture.member(SECOND, "b").await.unwrap();
    let refused = fixture.fails("cluster leave b").await;
    let says = "no other relay of the cluster runs, and the devices of b know no other";
    assert!(refused.contains(says), "{refused}");
    assert!(refused.contains("--force"), "{refused}");
    fixture.ok("cluster leave b --force").await;
    let only = fixture.fails("cluster leave a --force").await;
    assert!(only.contains("is the only relay"), "{only}");
}

#[tokio::test]
async fn the_host_key_of_several_relays_is_not_replaced() {
    let fixture = Fixture::new().await;
    fixture.member(MemberId::FIRST, "a").await.unwrap();
    fixture.member(SECOND, "b").await.unwrap();
    for step in ["ca host-key rotate", "ca host-key rotate --finish"] {
        let refused = fixture.fails(step).await;
        assert!(
            refused.contains("only while there is one relay"),
            "{refused}"
        );
    }
    assert!(fixture.json("ca host-key --json").await["next_public_key"].is_null());
    fixture.ok("cluster leave b --force").await;
    fixture.ok("ca host-key rotate").await;
}
