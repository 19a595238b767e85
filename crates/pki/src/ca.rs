//! A certificate authority, and certificates that sign themselves.

use crate::{PkiError, files};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SubjectPublicKeyInfo,
};
use std::net::IpAddr;
use std::time::Duration;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// `digital signature`.
    DigitalSignature,
    /// `key encipherment`.
    KeyEncipherment,
    /// `client auth`.
    ClientAuth,
    /// `server auth`.
    ServerAuth,
}

/// What stands in a certificate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subject {
    /// CN: a user's or a host's name.
    pub common_name: String,
    /// O: a user's groups.
    pub organizations: Vec<String>,
    /// DNS names of a server.
    pub dns_names: Vec<String>,
    /// Addresses of a server.
    pub addresses: Vec<IpAddr>,
}

/// Clocks differ: certificates are valid from a little before they were made, as upstream's.
const BACKDATE: Duration = Duration::from_secs(300);

fn params(subject: &Subject, usages: &[Usage], lifetime: Duration) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    for organization in &subject.organizations {
        name.push(DnType::OrganizationName, organization.as_str());
    }
    name.push(DnType::CommonName, subject.common_name.as_str());
    params.distinguished_name = name;
    for dns in &subject.dns_names {
        let dns = dns
            .as_str()
            .try_into()
            .map_err(|_| PkiError::Certificate(format!("{dns:?} is not a DNS name")))?;
        params.subject_alt_names.push(SanType::DnsName(dns));
    }
    params.subject_alt_names.extend(subject.addresses.iter().map(|a| SanType::IpAddress(*a)));
    for usage in usages {
        match usage {
            Usage::DigitalSignature => params.key_usages.push(KeyUsagePurpose::DigitalSignature),
            Usage::KeyEncipherment => params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
            Usage::ClientAuth => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth),
            Usage::ServerAuth => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth),
        }
    }
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATE;
    params.not_after = now + lifetime;
    Ok(params)
}

fn rcgen_error(e: rcgen::Error) -> PkiError {
    PkiError::Certificate(e.to_string())
}

/// A new key and a certificate that it signed for itself, both PEM: for a server that was given none.
pub fn self_signed(subject: &Subject, lifetime: Duration) -> Result<(String, String), PkiError> {
    let key = KeyPair::generate().map_err(rcgen_error)?;
    let usages = [Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ServerAuth];
    let mut params = params(subject, &usages, lifetime)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    let certificate = params.self_signed(&key).map_err(rcgen_error)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// A request for a certificate, PEM, with the new key that signed it, PEM.
pub fn request(subject: &Subject) -> Result<(String, String), PkiError> {
    let key = KeyPair::generate().map_err(rcgen_error)?;
    let request = params(subject, &[], Duration::ZERO)?.serialize_request(&key).map_err(rcgen_error)?;
    Ok((request.pem().map_err(rcgen_error)?, key.serialize_pem()))
}

/// Reads a certificate signing request, PEM, and checks that its own key signed it.
pub fn read_request(pem: &[u8]) -> Result<Subject, PkiError> {
    with_request(pem, subject_of)
}

fn with_request<T>(
    pem: &[u8],
    f: impl FnOnce(&X509CertificationRequest<'_>) -> Result<T, PkiError>,
) -> Result<T, PkiError> {
    let invalid = |why: &dyn std::fmt::Display| {
        PkiError::Certificate(format!("the certificate request is not valid: {why}"))
    };
    let (_, block) = x509_parser::pem::parse_x509_pem(pem).map_err(|e| invalid(&e))?;
    if block.label != "CERTIFICATE REQUEST" && block.label != "NEW CERTIFICATE REQUEST" {
        return Err(invalid(&format!("PEM block type is {:?}, not CERTIFICATE REQUEST", block.label)));
    }
    let (_, csr) = X509CertificationRequest::from_der(&block.contents).map_err(|e| invalid(&e))?;
    csr.verify_signature().map_err(|e| invalid(&e))?;
    f(&csr)
}

fn subject_of(csr: &X509CertificationRequest<'_>) -> Result<Subject, PkiError> {
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    let name = &csr.certification_request_info.subject;
    let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().unwrap_or_default().to_string();
    let mut subject = Subject {
        common_name: name.iter_common_name().next().map(text).unwrap_or_default(),
        organizations: name.iter_organization().map(text).collect(),
        ..Subject::default()
    };
    for extension in csr.requested_extensions().into_iter().flatten() {
        if let ParsedExtension::SubjectAlternativeName(names) = extension {
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(dns) => subject.dns_names.push((*dns).to_string()),
                    GeneralName::IPAddress(b) => match *b {
                        [a, b, c, d] => subject.addresses.push(IpAddr::from([*a, *b, *c, *d])),
                        b => {
                            let v6: [u8; 16] = b
                                .try_into()
                                .map_err(|_| PkiError::Certificate("an address has a wrong length".into()))?;
                            subject.addresses.push(IpAddr::from(v6));
                        }
                    },
                    other => {
                        return Err(PkiError::Certificate(format!(
                            "alternative name {other:?} is not supported"
                        )));
                    }
                }
            }
        }
    }
    Ok(subject)
}

/// A certificate authority: issues certificates with a key that it holds.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// Takes an authority's certificate and key, both PEM.
    pub fn from_pem(certificate: &[u8], key: &[u8], what: &str) -> Result<Self, PkiError> {
        let unusable = |reason: String| PkiError::Key { what: what.into(), reason };
        let key_der = files::private_key(key, what)?;
        let key = KeyPair::try_from(&key_der).map_err(|e| unusable(e.to_string()))?;
        let certificate = files::certificates(certificate, what)?;
        let first =
            certificate.first().ok_or_else(|| PkiError::Pem { what: what.into(), wanted: "certificate" })?;
        Ok(Ca { issuer: Issuer::from_ca_cert_der(first, key).map_err(rcgen_error)? })
    }

    /// Issues a certificate for a new key; both PEM.
    pub fn issue(
        &self,
        subject: &Subject,
        usages: &[Usage],
        lifetime: Duration,
    ) -> Result<(String, String), PkiError> {
        let key = KeyPair::generate().map_err(rcgen_error)?;
        let certificate =
            params(subject, usages, lifetime)?.signed_by(&key, &self.issuer).map_err(rcgen_error)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// Issues what a certificate signing request asks for, PEM: its names and key, with our usages and lifetime.
    pub fn sign_request(
        &self,
        request: &[u8],
        usages: &[Usage],
        lifetime: Duration,
    ) -> Result<String, PkiError> {
        with_request(request, |csr| {
            let spki = SubjectPublicKeyInfo::from_der(csr.certification_request_info.subject_pki.raw)
                .map_err(rcgen_error)?;
            let params = params(&subject_of(csr)?, usages, lifetime)?;
            Ok(params.signed_by(&spki, &self.issuer).map_err(rcgen_error)?.pem())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_signed_as_asked() {
        let (ca, key) =
            self_signed(&Subject { common_name: "ca".into(), ..Subject::default() }, Duration::from_secs(60))
                .unwrap();
        let ca = Ca::from_pem(ca.as_bytes(), key.as_bytes(), "ca").unwrap();
        let subject = Subject {
            common_name: "system:node:a".into(),
            organizations: vec!["system:nodes".into()],
            dns_names: vec!["a".into()],
            addresses: vec!["10.0.0.1".parse().unwrap()],
        };
        let (csr, _) = request(&subject).unwrap();
        assert_eq!(read_request(csr.as_bytes()).unwrap(), subject);
        let signed = ca.sign_request(csr.as_bytes(), &[Usage::ClientAuth], Duration::from_secs(60)).unwrap();
        let der = files::certificates(signed.as_bytes(), "signed").unwrap();
        let (_, cert) = x509_parser::parse_x509_certificate(&der[0]).unwrap();
        assert_eq!(cert.subject().iter_common_name().next().unwrap().as_str().unwrap(), "system:node:a");
        assert!(cert.extended_key_usage().unwrap().unwrap().value.client_auth);
        let mut broken = csr.clone();
        broken.truncate(200);
        assert!(read_request(broken.as_bytes()).is_err());
    }
}
