//! The TLS side of a connection; our certificate is read again when its files change.

use crate::config::{ClientCertificate, Config, ConfigError};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

/// How often the files of our certificate are looked at.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_secs(5);
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Makes TLS configurations from what a [`Config`] says.
pub(crate) struct Tls {
    ca: Option<Vec<u8>>,
    insecure: bool,
    certificate: Option<ClientCertificate>,
    state: Mutex<State>,
}

struct State {
    current: Arc<ClientConfig>,
    /// Goes up with each change of our certificate.
    generation: u64,
    stamps: Stamps,
    looked: Instant,
}

/// When the certificate's and the key's file changed last.
type Stamps = [Option<SystemTime>; 2];

impl Tls {
    pub fn new(config: &Config) -> Result<Tls, ConfigError> {
        let (ca, certificate) = (config.ca.clone(), config.client_certificate.clone());
        let stamps = stamps(certificate.as_ref());
        let current = Arc::new(build(ca.as_deref(), config.insecure, certificate.as_ref())?);
        let state = Mutex::new(State { current, generation: 0, stamps, looked: Instant::now() });
        Ok(Tls { ca, insecure: config.insecure, certificate, state })
    }

    /// The configuration for a new connection, and its generation.
    pub fn current(&self) -> (Arc<ClientConfig>, u64) {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        if state.looked.elapsed() >= LOOK_EVERY {
            state.looked = Instant::now();
            let now = stamps(self.certificate.as_ref());
            if now != state.stamps {
                match build(self.ca.as_deref(), self.insecure, self.certificate.as_ref()) {
                    Ok(fresh) => {
                        (state.current, state.stamps) = (Arc::new(fresh), now);
                        state.generation += 1;
                        tracing::info!("the client certificate changed");
                    }
                    // The files may be between two writes: look again.
                    Err(e) => tracing::warn!("keeping the old client certificate: {e}"),
                }
            }
        }
        (state.current.clone(), state.generation)
    }
}

fn stamps(certificate: Option<&ClientCertificate>) -> Stamps {
    let stamp = |p: &Path| std::fs::metadata(p).and_then(|m| m.modified()).ok();
    match certificate {
        Some(ClientCertificate::Files { certificate, key }) => [stamp(certificate), stamp(key)],
        _ => [None, None],
    }
}

fn build(
    ca: Option<&[u8]>,
    insecure: bool,
    certificate: Option<&ClientCertificate>,
) -> Result<ClientConfig, ConfigError> {
    let fault =
        |what: &str, e: &dyn std::fmt::Display| ConfigError::Tls { what: what.into(), reason: e.to_string() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| fault("TLS", &e))?;
    let builder = if insecure {
        builder.dangerous().with_custom_certificate_verifier(pki::any_server())
    } else {
        let roots = Arc::new(roots(ca)?);
        let inner = WebPkiServerVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|e| fault("certificate-authority", &e))?;
        let given = ca
            .map(|pem| pki::files::certificates(pem, "certificate-authority"))
            .transpose()?
            .unwrap_or_default();
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Trusted { inner, given }))
    };
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(c) => {
            let (certificate, key, what) = match c {
                ClientCertificate::Data { certificate, key } => {
                    (certificate.clone(), key.clone(), "client-certificate-data".to_string())
                }
                ClientCertificate::Files { certificate, key } => (
                    pki::files::read(certificate)?,
                    pki::files::read(key)?,
                    certificate.display().to_string(),
                ),
            };
            let chain = pki::files::certificates(&certificate, &what)?;
            let key = pki::files::private_key(&key, &what)?;
            builder.with_client_cert_resolver(pki::tls::client_certificate(chain, key, &what)?)
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(ca: Option<&[u8]>) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(pem) => {
            let (added, _) =
                roots.add_parsable_certificates(pki::files::certificates(pem, "certificate-authority")?);
            if added == 0 {
                return Err(ConfigError::Tls {
                    what: "certificate-authority".into(),
                    reason: "no usable certificate".into(),
                });
            }
        }
        None => {
            if let Some(pem) = SYSTEM_ROOTS.iter().find_map(|p| std::fs::read(p).ok()) {
                roots.add_parsable_certificates(pki::files::certificates(&pem, "the system's authorities")?);
            }
        }
    }
    Ok(roots)
}

/// Checks a server's certificate. A server may also present the very certificate that we were given to
/// trust: one that it signed itself is an authority, which is otherwise not accepted as a server's.
#[derive(Debug)]
struct Trusted {
    inner: Arc<WebPkiServerVerifier>,
    given: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.given.iter().any(|g| g == certificate) {
            let parsed = rustls::server::ParsedCertificate::try_from(certificate)?;
            rustls::client::verify_server_name(&parsed, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        self.inner.verify_server_cert(certificate, chain, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
