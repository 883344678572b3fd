//! The health checks: whether they are answered, and what they say.

use std::net::SocketAddr;

use hyper::client::conn::http1::handshake;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Finding;
use crate::commands::limits::HEALTH_ANSWER;
use crate::store::{MemberId, Store, StoreError, meta};

const CHECK: &str = "health";

/// Asks the serving relay as a load balancer would, if its configuration has health checks.
pub(crate) async fn check(store: &Store, member: MemberId) -> Result<Option<Finding>, StoreError> {
    let bound = meta::of_member(meta::BOUND_HEALTH, member);
    let address = store.meta_get(&bound).await?;
    let Some(address) = address.and_then(|text| text.parse::<SocketAddr>().ok()) else {
        return Ok(None);
    };
    let asked = timeout(HEALTH_ANSWER, ask(address)).await;
    let asked = asked.unwrap_or_else(|_| {
        let seconds = HEALTH_ANSWER.as_secs();
        Err(anyhow::anyhow!("no answer within {seconds} s"))
    });
    Ok(Some(match asked {
        Ok(StatusCode::OK) => {
            let message = format!("http://{address}/readyz says that the relay takes logins");
            Finding::ok(CHECK, message)
        }
        Ok(status) => {
            let message =
                format!("http://{address}/readyz answers {status}: balancers send no client here");
            let remedy = format!("`curl http://{address}/readyz` says why");
            Finding::warning(CHECK, message, remedy)
        }
        Err(error) => {
            let message = format!("http://{address}/readyz does not answer: {error}");
            let remedy = "see the relay's log, and run this on the relay's machine";
            Finding::problem(CHECK, message, remedy)
        }
    }))
}

async fn ask(address: SocketAddr) -> anyhow::Result<StatusCode> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/readyz").header(HOST, address.to_string());
    let request = request.body(String::new())?;
    let asked = async { anyhow::Ok(sender.send_request(request).await?.status()) };
    tokio::pin!(asked);
    tokio::select! {
        status = &mut asked => status,
        ended = connection => {
            ended?;
            asked.await
        }
    }
}
