//! Keys, certificates and tokens.
//!
//! [`ca`] issues certificates, [`files`] reads them for TLS, [`jwt`] signs and checks service account
//! tokens, [`tls`] checks those of clients. Keys are ECDSA P-256 where we make them; RSA and ECDSA where we are given them, in any PEM form.
//! Knows no API object.

mod any_server;
pub mod ca;
pub mod files;
pub mod jwt;
pub mod tls;

pub use any_server::any_server;

/// What is wrong with a key, a certificate or a request for one.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file can't be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not PEM, or has not what is looked for.
    #[error("{what}: no {wanted} in PEM found")]
    Pem {
        /// Where it was looked for.
        what: String,
        /// What was looked for.
        wanted: &'static str,
    },
    /// The key's type or form can't be used.
    #[error("{what}: unusable key: {reason}")]
    Key {
        /// Where the key is.
        what: String,
        /// Why.
        reason: String,
    },
    /// A certificate or request can't be read or made.
    #[error("{0}")]
    Certificate(String),
}
