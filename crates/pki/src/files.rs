//! Certificates and keys in files, for TLS.

use crate::PkiError;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;

/// Reads a file, with its name in the error.
pub fn read(path: &Path) -> Result<Vec<u8>, PkiError> {
    std::fs::read(path).map_err(|source| PkiError::File { path: path.into(), source })
}

/// The certificates in PEM text; at least one.
pub fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let missing = || PkiError::Pem { what: what.into(), wanted: "certificate" };
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|_| missing())?;
    if found.is_empty() { Err(missing()) } else { Ok(found) }
}

/// The first private key in PEM text: PKCS#8, PKCS#1 or SEC 1.
pub fn private_key(pem: &[u8], what: &str) -> Result<PrivateKeyDer<'static>, PkiError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| PkiError::Pem { what: what.into(), wanted: "private key" })
}
