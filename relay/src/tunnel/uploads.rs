//! The streams that a device opens by itself on its tunnel: what it uploads. Who takes them is not a tunnel's matter.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::registry::Tunnel;

/// Takes what devices upload.
pub(crate) trait UploadHandler: fmt::Debug + Send + Sync {
    /// Serves the upload streams of a tunnel until it is closed.
    fn serve(&self, tunnel: Arc<Tunnel>) -> BoxFuture<'_, ()>;
}
