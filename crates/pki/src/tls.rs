//! What TLS needs beyond rustls: certificates of X.509 version 1, which `openssl x509 -req` makes when it is given no
//! extensions, and which Go's TLS, and so upstream's daemons, take as client certificates.

use crate::PkiError;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use std::sync::Arc;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::{FromDer, X509Version};

/// Takes clients without a certificate, and clients with one that `roots` (as a bundle in PEM; `what` names it in
/// errors) vouches for.
pub fn client_verifier(pem: &[u8], what: &str) -> Result<Arc<dyn ClientCertVerifier>, PkiError> {
    Ok(Arc::new(clients(pem, what)?))
}

/// Takes every client; one with a certificate must have its key. Whom the certificate stands for is for a
/// [`ClientAuthority`] to say, so that a client nobody vouches for gets an answer, not a broken handshake.
pub fn any_client() -> Arc<dyn ClientCertVerifier> {
    Arc::new(AnyClient(rustls::crypto::ring::default_provider().signature_verification_algorithms))
}

/// Says whose certificates count.
#[derive(Debug)]
pub struct ClientAuthority(Clients);

impl ClientAuthority {
    /// Reads a bundle in PEM; `what` names it in errors.
    pub fn new(pem: &[u8], what: &str) -> Result<Self, PkiError> {
        clients(pem, what).map(ClientAuthority)
    }

    /// Whether it vouches for this chain now, the client's own certificate first.
    pub fn check(&self, chain: &[CertificateDer<'_>]) -> Result<(), PkiError> {
        let (first, rest) =
            chain.split_first().ok_or_else(|| PkiError::Certificate("no certificate".into()))?;
        let checked = self.0.verify_client_cert(first, rest, UnixTime::now());
        checked.map(drop).map_err(|e| PkiError::Certificate(e.to_string()))
    }
}

/// Until when all certificates of a chain hold, in seconds since 1970; long ago for one that can't be read.
pub fn valid_until(chain: &[CertificateDer<'_>]) -> i64 {
    let until = |c: &CertificateDer<'_>| parse(c).map_or(0, |c| c.validity().not_after.timestamp());
    chain.iter().map(until).min().unwrap_or(i64::MAX)
}

fn clients(pem: &[u8], what: &str) -> Result<Clients, PkiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let authorities = crate::files::certificates(pem, what)?;
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        roots.add(authority.clone()).map_err(|e| PkiError::Certificate(format!("{what}: {e}")))?;
    }
    let algorithms = provider.signature_verification_algorithms;
    let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|e| PkiError::Certificate(format!("{what}: {e}")))?;
    Ok(Clients { inner, authorities, algorithms })
}

/// The client side's certificate and key; that they belong together is checked.
pub fn client_certificate(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    what: &str,
) -> Result<Arc<SingleCertAndKey>, PkiError> {
    let fault = |reason: String| PkiError::Key { what: what.into(), reason };
    let provider: CryptoProvider = rustls::crypto::ring::default_provider();
    let key = provider.key_provider.load_private_key(key).map_err(|e| fault(e.to_string()))?;
    let first = chain.first().ok_or_else(|| fault("no certificate".into()))?;
    let certificate = parse(first).map_err(|e| fault(e.to_string()))?;
    if key.public_key().is_some_and(|spki| *spki != *certificate.public_key().raw) {
        return Err(fault("the certificate is for another key".into()));
    }
    Ok(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key))))
}

#[derive(Debug)]
struct Clients {
    inner: Arc<dyn ClientCertVerifier>,
    authorities: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateError> {
    X509Certificate::from_der(certificate).map(|(_, c)| c).map_err(|_| CertificateError::BadEncoding)
}

/// A certificate without extensions, if that is what it is.
fn version_1<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    parse(certificate).ok().filter(|c| c.version() == X509Version::V1)
}

impl Clients {
    /// One of the authorities itself has signed it, and it is within its time.
    fn vouched_for(&self, certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), CertificateError> {
        let validity = certificate.validity();
        let now = i64::try_from(now.as_secs()).map_err(|_| CertificateError::Expired)?;
        if now < validity.not_before.timestamp() {
            return Err(CertificateError::NotValidYet);
        }
        if now > validity.not_after.timestamp() {
            return Err(CertificateError::Expired);
        }
        let signed = |authority: &CertificateDer<'_>| {
            parse(authority).is_ok_and(|a| {
                a.subject().as_raw() == certificate.issuer().as_raw()
                    && certificate.verify_signature(Some(a.public_key())).is_ok()
            })
        };
        if self.authorities.iter().any(signed) { Ok(()) } else { Err(CertificateError::UnknownIssuer) }
    }
}

/// Whether the key of a certificate has signed the handshake.
fn has_key(
    algorithms: &WebPkiSupportedAlgorithms,
    message: &[u8],
    certificate: &X509Certificate<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let key = certificate.public_key();
    let fitting = algorithms.mapping.iter().find(|(s, _)| *s == dss.scheme).map_or(&[][..], |(_, a)| a);
    // An algorithm belongs to a type of key, and another's key does not parse as one.
    let valid = fitting
        .iter()
        .any(|a| a.verify_signature(&key.subject_public_key.data, message, dss.signature()).is_ok());
    if valid { Ok(HandshakeSignatureValid::assertion()) } else { Err(CertificateError::BadSignature.into()) }
}

#[derive(Debug)]
struct AnyClient(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        has_key(&self.0, message, &parse(certificate)?, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        has_key(&self.0, message, &parse(certificate)?, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

impl ClientCertVerifier for Clients {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match version_1(certificate) {
            Some(old) => Ok(self.vouched_for(&old, now).map(|()| ClientCertVerified::assertion())?),
            None => self.inner.verify_client_cert(certificate, intermediates, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match version_1(certificate) {
            Some(old) => has_key(&self.algorithms, message, &old, dss),
            None => self.inner.verify_tls12_signature(message, certificate, dss),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match version_1(certificate) {
            Some(old) => has_key(&self.algorithms, message, &old, dss),
            None => self.inner.verify_tls13_signature(message, certificate, dss),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
