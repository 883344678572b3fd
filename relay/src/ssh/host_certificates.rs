//! Host certificates: for the relay's own name, and for the devices in whose names it answers inside jumps. The
//! cluster's SSH host CA signs them.

use std::collections::HashMap;
use std::sync::Arc;

use holdfast_protocol::ids::DeviceName;
use russh::MethodKind;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::{Certificate, Error};
use russh::server::Config;
use tracing::warn;

use super::algorithms;
use crate::clock::Timestamp;
use crate::session::client::target::FLEET_DOMAIN;
use crate::ssh::limits::{HOST_CERTIFICATE_LIFETIME, MAX_HOST_CERTIFICATES};
use crate::state::{State, random_bytes};
use crate::sync::Mutex;

/// The configurations of inner connections, by device, each with its host certificate.
#[derive(Debug, Default)]
pub(crate) struct HostCertificates {
    ready: Mutex<HashMap<DeviceName, Arc<Config>>>,
}

impl HostCertificates {
    /// Returns the configuration for a device. Without a certificate, for whatever reason, the bare key is shown.
    pub(super) fn config(&self, state: &State, device: &DeviceName) -> Arc<Config> {
        let mut ready = self.ready.lock();
        if let Some(config) = ready.get(device) {
            return config.clone();
        }
        let names = [device.to_string(), format!("{device}.{FLEET_DOMAIN}")];
        let certificates = certificates(state, &format!("device {device}"), &names);
        let config = algorithms::config(&state.ssh_host, certificates, INNER_METHODS);
        if ready.len() >= MAX_HOST_CERTIFICATES {
            // They are cheap to make again.
            ready.clear();
        }
        ready.insert(device.clone(), config.clone());
        config
    }
}

/// The methods inside a jump: what the outer connection proved is enough. A key of the same user is taken too, for
/// clients that never ask without one, such as paramiko.
const INNER_METHODS: &[MethodKind] = &[MethodKind::None, MethodKind::PublicKey];

/// Makes host certificates for these names: one, or none if it cannot be made.
pub(crate) fn certificates(state: &State, whose: &str, names: &[String]) -> Vec<Certificate> {
    let certificate = certify(state, whose, names).map_err(|error| {
        warn!(%whose, %error, "no host certificate could be made");
    });
    certificate.into_iter().collect()
}

/// Makes a host certificate for these names, by the cluster's SSH host CA.
fn certify(state: &State, whose: &str, names: &[String]) -> Result<Certificate, Error> {
    let now = Timestamp::now().since(Timestamp(0)).as_secs();
    // An hour in the past, for clients whose clock is behind.
    let (from, to) = (
        now.saturating_sub(3600),
        now + HOST_CERTIFICATE_LIFETIME.as_secs(),
    );
    let nonce: [u8; 32] = random_bytes().map_err(|_| Error::Crypto)?;
    let mut builder = Builder::new(
        nonce,
        state.ssh_host.public_key().key_data().clone(),
        from,
        to,
    )?;
    builder
        .cert_type(CertType::Host)?
        .key_id(format!("holdfast {whose}"))?;
    for name in names {
        builder.valid_principal(name.as_str())?;
    }
    builder.sign(&state.ssh_ca)
}
