//! `/healthz` and `/readyz`, for load balancers and supervisors.
//!
//! The parser is hyper's, which the relay contains already, as the client of its buckets: of its server
//! only httpdate is new, and axum would add its router and tower for two fixed paths.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::limits::{
    HEALTH_TIMEOUT, MAX_HEALTH_CONNECTIONS, MAX_HEALTH_FIELDS, MAX_HEALTH_REQUEST,
};
use crate::audit::Audit;
use crate::fence::StoreFence;
use crate::limits::ACCEPT_PAUSE;
use crate::store::Store;

/// The readiness of the relay to take logins. Cloning it is cheap and shares it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness(Arc<ReadinessInner>);

#[derive(Debug, Default)]
struct ReadinessInner {
    is_stopping: AtomicBool,
    is_draining: AtomicBool,
    /// The store, its fence and the audit log, which a login needs, once the relay serves.
    needs: OnceLock<(Store, StoreFence, Audit)>,
}

/// The health checks of a relay that serves.
#[derive(Debug)]
pub(crate) struct HealthChecks {
    /// The state that they show.
    pub(crate) readiness: Readiness,
    /// The bound address, if the configuration has one.
    pub(crate) bound: Option<SocketAddr>,
}

impl Readiness {
    /// Notes that the relay takes logins from now on.
    pub(crate) fn serves(&self, store: Store, fence: StoreFence, audit: Audit) {
        let _ = self.0.needs.set((store, fence, audit));
    }

    /// Notes that the relay takes no more logins, because it ends.
    pub(crate) fn stops(&self) {
        self.0.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Notes that the relay takes no more logins, because it drains.
    pub(crate) fn drains(&self) {
        self.0.is_draining.store(true, Ordering::Relaxed);
    }

    /// Returns the reason why the relay takes no logins, in a sentence without anything of its own machine: all who reach the
    /// port may read it.
    fn fault(&self) -> Option<String> {
        let Some((store, fence, audit)) = self.0.needs.get() else {
            return Some("the relay is starting".to_owned());
        };
        if self.0.is_stopping.load(Ordering::Relaxed) {
            return Some("the relay is stopping, and takes no new logins".to_owned());
        }
        if self.0.is_draining.load(Ordering::Relaxed) {
            return Some("the relay is drained, and takes no new logins".to_owned());
        }
        if !store.answers() {
            return Some("the relay's database does not answer".to_owned());
        }
        if fence.lost_for().is_some() {
            return Some("the relay has lost its database".to_owned());
        }
        audit.admits().err().map(|error| error.to_string())
    }
}

/// Listens for health checks, if the configuration has an address for them, and answers them as long as the runtime
/// runs.
///
/// # Errors
/// The address cannot be bound.
pub(crate) async fn listen(address: Option<SocketAddr>) -> anyhow::Result<HealthChecks> {
    let readiness = Readiness::default();
    let mut bound = None;
    if let Some(address) = address {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen for health checks on {address}, as [health] says")
        })?;
        let address = listener.local_addr()?;
        info!("health checks are answered on http://{address}");
        tokio::spawn(run(listener, readiness.clone()));
        bound = Some(address);
    }
    Ok(HealthChecks { readiness, bound })
}

async fn run(listener: TcpListener, readiness: Readiness) {
    let places = Arc::new(Semaphore::new(MAX_HEALTH_CONNECTIONS));
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a health check");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            debug!(%client, "health check refused: there are {MAX_HEALTH_CONNECTIONS} already");
            continue;
        };
        let readiness = readiness.clone();
        tokio::spawn(async move {
            if timeout(HEALTH_TIMEOUT, serve(stream, &readiness))
                .await
                .is_err()
            {
                debug!(%client, "health check without an end");
            }
            drop(place);
        });
    }
}

/// Answers one request.
async fn serve(stream: TcpStream, readiness: &Readiness) {
    let service = service_fn(async |request: Request<Incoming>| {
        Ok::<_, Infallible>(answer(request.method(), request.uri().path(), readiness))
    });
    let mut server = http1::Builder::new();
    server
        .keep_alive(false)
        .max_buf_size(MAX_HEALTH_REQUEST)
        .max_headers(MAX_HEALTH_FIELDS);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        debug!(%error, "health check ended with an error");
    }
}

fn answer(method: &Method, path: &str, readiness: &Readiness) -> Response<String> {
    let (status, sentence) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, "the relay runs".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") => match readiness.fault() {
            None => (StatusCode::OK, "the relay takes logins".to_owned()),
            Some(fault) => (StatusCode::SERVICE_UNAVAILABLE, fault),
        },
        (_, "/healthz" | "/readyz") => (
            StatusCode::METHOD_NOT_ALLOWED,
            "expected GET or HEAD".to_owned(),
        ),
        _ => (
            StatusCode::NOT_FOUND,
            "expected /healthz or /readyz".to_owned(),
        ),
    };
    let mut response = Response::new(format!("{sentence}\n"));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(CONTENT_TYPE, text);
    // What was true a second ago is no answer.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}
