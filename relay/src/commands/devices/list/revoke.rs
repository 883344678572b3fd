//! `devices revoke`: the end of a device, and of what is left of the token that it enrolled with. Who has the device
//! may have the token as well (an image, a provisioning script), and would enrol again with it under a new key.

use std::collections::HashMap;

use holdfast_protocol::ids::DeviceName;
use serde::Serialize;

use super::Row;
use crate::commands::answer::leftover::{LeftoverToken, about_token};
use crate::commands::{Caller, Context, Failure, json};
use crate::store::TokenLeft;

/// The answer, for machines.
#[derive(Serialize)]
struct RevokeAnswer {
    #[serde(flatten)]
    device: Row,
    /// The token that it enrolled with, if uses of it were left.
    leftover_token: Option<LeftoverToken>,
}

pub(crate) async fn run(
    caller: &Caller,
    context: &Context,
    name: &DeviceName,
    end_token: bool,
    as_json: bool,
) -> Result<String, Failure> {
    let (sentence, token) = revoke(context, name, end_token).await?;
    if as_json {
        return json(&RevokeAnswer {
            device: Row::of(&super::find(caller, context, name).await?, &HashMap::new()),
            leftover_token: token.map(|token| LeftoverToken::of(token, end_token)),
        });
    }
    let token = token.map(|token| about_token(&token, context.now, end_token));
    Ok(sentence + &token.unwrap_or_default())
}

async fn revoke(
    context: &Context,
    name: &DeviceName,
    end_token: bool,
) -> Result<(String, Option<TokenLeft>), Failure> {
    let store = &context.store;
    // Asked for twice, the answer to the second is that it is so.
    if let Some(device) = store.device_named(name).await?
        && let Some(when) = device.revoked
    {
        let token = store.token_left_of(device.id, context.now).await?;
        if let Some(token) = &token
            && end_token
        {
            let mut tx = context.begin().await?;
            tx.remove_token(&token.id).await?;
            tx.commit().await?;
        }
        let (name, id) = (&device.name, device.id);
        let sentence = format!("device {name} ({id}) was revoked already, {when}\n");
        return Ok((sentence, token));
    }
    let mut tx = context.begin().await?;
    let revoked = tx.revoke_device(name, context.now, end_token).await?;
    tx.commit().await?;
    let (name, id) = (revoked.name, revoked.id);
    let sentence =
        format!("device {name} ({id}) revoked: its key is refused from now on, its name is free\n");
    Ok((sentence, revoked.token))
}
