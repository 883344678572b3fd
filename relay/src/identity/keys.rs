//! OpenSSH certificates and keys as the SSH library has them, in the words of the rules and of the store.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use russh::keys::ssh_encoding::Encode as _;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Certificate, HashAlg, PublicKey};

use crate::access::certificate::{CertificateKind, Claims};
use crate::store::Prints;

/// Returns the claims of a certificate. Its signature is the SSH library's to verify.
#[must_use]
pub(crate) fn claims(certificate: &Certificate) -> Claims {
    let authority = certificate.signature_key();
    let rsa = [rsa_bits(certificate.public_key()), rsa_bits(authority)];
    Claims {
        kind: if certificate.cert_type().is_user() {
            CertificateKind::User
        } else {
            CertificateKind::Host
        },
        authority: prints(authority),
        signature: certificate.signature().algorithm().as_str().to_owned(),
        rsa_bits: rsa.into_iter().flatten().min(),
        serial: certificate.serial(),
        key_id: certificate.key_id().to_owned(),
        principals: certificate.valid_principals().to_vec(),
        valid_after: certificate.valid_after(),
        valid_before: certificate.valid_before(),
        critical: certificate.critical_options().0.clone(),
        extensions: certificate.extensions().0.clone(),
    }
}

/// Returns a public key as in a `.pub` file, without a comment.
pub(crate) fn line_of(key: &PublicKey) -> String {
    // It was decoded or made here, and its comment is valid text because there is none.
    let bare = PublicKey::new(key.key_data().clone(), "");
    bare.to_openssh().unwrap_or_default()
}

/// Returns the fingerprints of a key.
#[must_use]
pub(crate) fn prints(key: &KeyData) -> Prints {
    // A key that was decoded can be encoded; one that cannot has no SHA-1, and so is not revoked by it.
    let sha1 = key.encode_vec().map(|blob| sha1_print(&blob));
    Prints {
        sha256: key.fingerprint(HashAlg::Sha256).to_string(),
        sha1: sha1.unwrap_or_default(),
    }
}

/// Returns `SHA256:…` of a key's SSH encoding, as OpenSSH prints it.
#[must_use]
pub(crate) fn sha256_print(blob: &[u8]) -> String {
    sha256_text(digest(&SHA256, blob).as_ref())
}

/// Returns `SHA256:…` of a hash.
#[must_use]
pub(crate) fn sha256_text(hash: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(hash))
}

/// Returns `SHA1:…` of a hash.
#[must_use]
pub(crate) fn sha1_text(hash: &[u8]) -> String {
    format!("SHA1:{}", STANDARD_NO_PAD.encode(hash))
}

fn sha1_print(blob: &[u8]) -> String {
    sha1_text(digest(&SHA1_FOR_LEGACY_USE_ONLY, blob).as_ref())
}

/// Returns the length of an RSA key's modulus.
fn rsa_bits(key: &KeyData) -> Option<usize> {
    let KeyData::Rsa(rsa) = key else {
        return None;
    };
    let modulus = rsa.n().as_positive_bytes().unwrap_or_default();
    let zeros = modulus
        .first()
        .map_or(0, |byte| byte.leading_zeros() as usize);
    Some((modulus.len() * 8).saturating_sub(zeros))
}

#[cfg(test)]
mod tests {
    use super::*;
    use russh::keys::PublicKey;

    /// Compares with the output of `ssh-keygen -l -E sha256` and `-E sha1` for this key.
    #[test]
    fn fingerprints_are_those_that_openssh_prints() {
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
        let key = PublicKey::from_openssh(key).unwrap();
        let sha256 = "SHA256:UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ";
        let prints = prints(key.key_data());
        assert_eq!(prints.sha256, sha256);
        assert_eq!(prints.sha1, "SHA1:Z1PfE2457ue6HfxSfpVRLrGieO8");
        assert_eq!(sha256_print(&key.to_bytes().unwrap()), sha256);
    }
}
