//! Certificates and keys in files, for TLS.

use crate::PkiError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use x509_parser::pem::Pem;
use x509_parser::time::ASN1Time;

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

/// One bundle of several: each certificate once, and none that has expired.
pub fn combined(bundles: &[&[u8]]) -> String {
    let now = ASN1Time::now();
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let mut out = String::new();
    for pem in bundles.iter().flat_map(|b| Pem::iter_from_buffer(b)).map_while(Result::ok) {
        let lasts = pem.parse_x509().is_ok_and(|c| c.validity().not_after >= now);
        if pem.label == "CERTIFICATE" && lasts && !seen.contains(&pem.contents) {
            let text = STANDARD.encode(&pem.contents);
            out.push_str("-----BEGIN CERTIFICATE-----\n");
            for line in text.as_bytes().chunks(64) {
                out.push_str(&String::from_utf8_lossy(line));
                out.push('\n');
            }
            out.push_str("-----END CERTIFICATE-----\n");
            seen.push(pem.contents);
        }
    }
    out
}

/// The first private key in PEM text: PKCS#8, PKCS#1 or SEC 1.
pub fn private_key(pem: &[u8], what: &str) -> Result<PrivateKeyDer<'static>, PkiError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| PkiError::Pem { what: what.into(), wanted: "private key" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn bundles_are_combined() {
        let make = |name: &str| {
            let subject = crate::ca::Subject {
                common_name: name.into(),
                dns_names: vec![],
                addresses: vec![],
                organizations: vec![],
            };
            crate::ca::self_signed(&subject, Duration::from_secs(3600)).unwrap().0
        };
        let (a, b) = (make("a"), make("b"));
        let both = combined(&[a.as_bytes(), format!("{b}{a}").as_bytes(), b"", b"rubbish"]);
        let found = |pem: &str| certificates(pem.as_bytes(), "test").unwrap();
        assert_eq!(found(&both), [found(&a), found(&b)].concat());
        assert_eq!(combined(&[both.as_bytes()]), both);
    }
}
