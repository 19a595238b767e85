//! The serving certificate: the operator's, or one made here and signed by itself; and whose clients are known.

use crate::config::Config;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file.
    #[error("cannot use {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Making one.
    #[error("no serving certificate could be made")]
    Make(#[from] rcgen::Error),
    /// Using one.
    #[error("the serving certificate cannot be used")]
    Use(#[from] rustls::Error),
    /// The clients' authorities.
    #[error("the client CA file cannot be used")]
    Clients(#[from] pki::PkiError),
}

fn at(path: &Path) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> TlsError {
    let path = path.to_owned();
    move |source| TlsError::File { path, source }
}

/// A certificate on disk, read anew when its files change.
pub struct ServingCertificate {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    /// Where the one that the cluster signs will be; it is used once it is there.
    signed: Option<PathBuf>,
    only_tls13: bool,
    current: Mutex<(Vec<Option<SystemTime>>, TlsAcceptor)>,
}

impl ServingCertificate {
    /// As configured; makes one for these addresses where none is given.
    pub fn load(config: &Config, addresses: &[String]) -> Result<Self, TlsError> {
        let given = !config.tls_cert_file.is_empty() && !config.tls_private_key_file.is_empty();
        let (cert, key) = if given {
            (config.tls_cert_file.clone().into(), config.tls_private_key_file.clone().into())
        } else {
            let (cert, key) = (config.cert_dir.join("kubelet.crt"), config.cert_dir.join("kubelet.key"));
            if !cert.exists() || !key.exists() {
                make(&config.cert_dir, &cert, &key, &config.node_name, addresses)?;
            }
            (cert, key)
        };
        let client_ca = Some(PathBuf::from(&config.client_ca_file)).filter(|p| !p.as_os_str().is_empty());
        let signed = (config.server_tls_bootstrap && !given)
            .then(|| config.cert_dir.join("kubelet-server-current.pem"));
        let only_tls13 = config.only_tls13;
        let acceptor = build(&cert, &key, client_ca.as_deref(), only_tls13)?;
        let never_read = Vec::new();
        Ok(ServingCertificate {
            cert,
            key,
            client_ca,
            signed,
            only_tls13,
            current: Mutex::new((never_read, acceptor)),
        })
    }

    /// For a new connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let signed = self.signed.as_deref().filter(|p| p.exists());
        let (cert, key) = signed.map_or((self.cert.as_path(), self.key.as_path()), |both| (both, both));
        let now = times(cert, key, self.client_ca.as_deref());
        if now != current.0 {
            match build(cert, key, self.client_ca.as_deref(), self.only_tls13) {
                Ok(acceptor) => {
                    debug!(cert = %cert.display(), "serving certificate read");
                    *current = (now, acceptor);
                }
                Err(e) => {
                    warn!(error = %e, "the changed serving certificate cannot be used; the last one stays")
                }
            }
        }
        current.1.clone()
    }
}

fn times(cert: &Path, key: &Path, ca: Option<&Path>) -> Vec<Option<SystemTime>> {
    [Some(cert), Some(key), ca]
        .into_iter()
        .map(|p| std::fs::metadata(p?).and_then(|m| m.modified()).ok())
        .collect()
}

fn build(cert: &Path, key: &Path, ca: Option<&Path>, only_tls13: bool) -> Result<TlsAcceptor, TlsError> {
    let chain = certificates(cert)?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| at(key)(e.into()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = if only_tls13 { &[&rustls::version::TLS13][..] } else { rustls::DEFAULT_VERSIONS };
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let builder = match ca {
        Some(ca) => {
            // a certificate is one of several ways to be known
            let pem = pki::files::read(ca)?;
            builder.with_client_cert_verifier(pki::tls::client_verifier(&pem, &ca.display().to_string())?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, secret)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| at(path)(e.into()))
}

/// Makes a certificate that vouches for itself, good for ten years.
fn make(dir: &Path, cert: &Path, key: &Path, node: &str, addresses: &[String]) -> Result<(), TlsError> {
    std::fs::create_dir_all(dir).map_err(|e| at(dir)(e.into()))?;
    let mut names = vec![node.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned()];
    names.extend(addresses.iter().cloned());
    let mut params = rcgen::CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, format!("{node}@{}", jiff::Timestamp::now().as_second()));
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let pair = rcgen::KeyPair::generate()?;
    let made = params.self_signed(&pair)?;
    write_secret(key, pair.serialize_pem().as_bytes())?;
    std::fs::write(cert, made.pem()).map_err(|e| at(cert)(e.into()))
}

/// Writes a file that only its owner reads.
pub fn write_secret(path: &Path, data: &[u8]) -> Result<(), TlsError> {
    use std::io::Write;
    let open = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    open.and_then(|mut f| f.write_all(data)).map_err(|e| at(path)(e.into()))
}
