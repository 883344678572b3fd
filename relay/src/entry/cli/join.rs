//! `relay cluster join`: a state folder for a new member, with the keys that all members have.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use holdfast_protocol::escape::Escaped;
use holdfast_protocol::identity::token::Token;

use crate::commands::JoinArgs;
use crate::hex::hex;
use crate::state::{Database, JoiningFolder, State};
use crate::store::MemberId;
use crate::store::Store;
use crate::tunnel::enroll::join;

/// Joins, and returns the answer.
///
/// # Errors
/// The sentence to fail with.
pub(super) fn run(dir: &Path, args: &JoinArgs) -> anyhow::Result<String> {
    let token: Token = args.token.trim().parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let name = runtime.block_on(join_in(dir, args, &token))?;
    Ok(format!(
        "joined as {}; now start `relay serve --state {} --config FILE`. The file is the others', but for `public`, \
         `state` and the addresses to listen on; the database and --public {} are remembered\n",
        Escaped(&name),
        dir.display(),
        args.public
    ))
}

async fn join_in(dir: &Path, args: &JoinArgs, token: &Token) -> anyhow::Result<String> {
    let folder = JoiningFolder::begin(dir)?;
    // Before the token is used: a database that cannot be reached, or is another cluster's, uses nothing.
    let store = Store::open_existing(&Database::Server(args.database.clone())).await?;
    ensure!(
        store.is_of_cluster(&token.fingerprint).await?,
        "{} is not the database of the cluster that the token names",
        args.database
    );
    let public = args.public.to_string();
    let granted = join::join(token, folder.tunnel_key(), &public).await?;
    let member = MemberId(granted.member);
    if store.member(member).await?.is_none() {
        bail!(
            "the relay at {} made this one a member {} of another database than {}",
            token.address,
            hex(&granted.member),
            args.database
        );
    }
    store.close().await;
    folder.finish(member, &granted.keys, &args.database)?;
    // Of the cluster, down to its key.
    let state = State::open(dir)?;
    ensure!(
        state.cluster_fingerprint() == token.fingerprint,
        "the relay at {} gave another cluster's key than the token names: remove {} and ask for a new token",
        token.address,
        dir.display()
    );
    Ok(granted.name)
}
