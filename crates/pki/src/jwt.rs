//! Service account tokens: JSON Web Tokens (RFC 7519) signed with RS256 or ES256.
//!
//! Keys come as upstream takes them: RSA or ECDSA, PKCS#8, PKCS#1 or SEC 1, private or public, or as
//! certificates. A key's id is the SHA-256 of its public key, as upstream's.

use crate::{PkiError, files};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use ring::signature::{self, UnparsedPublicKey};
use rustls::sign::SigningKey;
use rustls::{SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use serde_json::{Value, json};
use std::sync::Arc;
use x509_parser::prelude::FromDer;

/// Signs tokens.
pub struct Signer {
    key: Arc<dyn SigningKey>,
    scheme: SignatureScheme,
    header: String,
}

/// Checks tokens against a set of keys.
#[derive(Default)]
pub struct Verifier {
    keys: Vec<PublicKey>,
}

struct PublicKey {
    id: String,
    kind: KeyKind,
    /// RSA: PKCS#1; ECDSA: the point.
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq)]
enum KeyKind {
    Rsa,
    P256,
}

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum TokenError {
    /// It is no JSON Web Token.
    #[error("the token is malformed")]
    Malformed,
    /// No key of ours signed it.
    #[error("the token's signature is not ours")]
    Signature,
}

fn key_id(spki: &[u8]) -> String {
    B64.encode(ring::digest::digest(&ring::digest::SHA256, spki))
}

impl Signer {
    /// Takes a private key, PEM.
    pub fn from_pem(pem: &[u8], what: &str) -> Result<Self, PkiError> {
        let key = files::private_key(pem, what)?;
        let unusable = |reason: &str| PkiError::Key { what: what.into(), reason: reason.into() };
        let key =
            rustls::crypto::ring::sign::any_supported_type(&key).map_err(|e| unusable(&e.to_string()))?;
        let spki = key.public_key().ok_or_else(|| unusable("its public key can't be found"))?;
        let (scheme, name) = match key.algorithm() {
            SignatureAlgorithm::RSA => (SignatureScheme::RSA_PKCS1_SHA256, "RS256"),
            SignatureAlgorithm::ECDSA => (SignatureScheme::ECDSA_NISTP256_SHA256, "ES256"),
            _ => return Err(unusable("it is neither RSA nor ECDSA")),
        };
        if key.choose_scheme(&[scheme]).is_none() {
            return Err(unusable("an ECDSA key must be on the curve P-256"));
        }
        let header = B64.encode(json!({"alg": name, "kid": key_id(&spki)}).to_string());
        Ok(Signer { key, scheme, header })
    }

    /// The key that checks what this one signs.
    pub fn verifier(&self) -> Result<Verifier, PkiError> {
        let mut verifier = Verifier::default();
        if let Some(spki) = self.key.public_key() {
            verifier.add_spki(&spki, "the signing key")?;
        }
        Ok(verifier)
    }

    /// Makes a token of claims.
    pub fn sign(&self, claims: &Value) -> Result<String, PkiError> {
        let failed = |reason: String| PkiError::Key { what: "the signing key".into(), reason };
        let message = format!("{}.{}", self.header, B64.encode(claims.to_string()));
        let signer = self.key.choose_scheme(&[self.scheme]).ok_or_else(|| failed("it changed".into()))?;
        let mut signature = signer.sign(message.as_bytes()).map_err(|e| failed(e.to_string()))?;
        if self.scheme == SignatureScheme::ECDSA_NISTP256_SHA256 {
            signature = fixed_from_asn1(&signature)
                .ok_or_else(|| failed("its signature has no known form".into()))?;
        }
        Ok(format!("{message}.{}", B64.encode(signature)))
    }
}

/// ECDSA signatures are two integers: DER in TLS, 32 bytes each in a token (RFC 7518, 3.4).
fn fixed_from_asn1(der: &[u8]) -> Option<Vec<u8>> {
    let integer = |at: usize| -> Option<(&[u8], usize)> {
        let len = *der.get(at + 1)? as usize;
        (*der.get(at)? == 2).then_some(())?;
        Some((der.get(at + 2..at + 2 + len)?, at + 2 + len))
    };
    (*der.first()? == 0x30 && *der.get(1)? < 0x80).then_some(())?;
    let (r, next) = integer(2)?;
    let (s, _) = integer(next)?;
    let mut out = vec![0; 64];
    for (half, n) in out.chunks_mut(32).zip([r, s]) {
        let start = n.iter().position(|b| *b != 0).unwrap_or(n.len());
        let n = n.get(start..)?;
        half.get_mut(32usize.checked_sub(n.len())?..)?.copy_from_slice(n);
    }
    Some(out)
}

impl Verifier {
    /// Takes every key in PEM text: public keys, certificates, or private keys.
    pub fn add_pem(&mut self, pem: &[u8], what: &str) -> Result<(), PkiError> {
        let before = self.keys.len();
        for spki in SubjectPublicKeyInfoDer::pem_slice_iter(pem).flatten() {
            self.add_spki(&spki, what)?;
        }
        for certificate in CertificateDer::pem_slice_iter(pem).flatten() {
            let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
                .map_err(|e| PkiError::Certificate(format!("{what}: {e}")))?;
            self.add_spki(parsed.public_key().raw, what)?;
        }
        if self.keys.len() == before {
            let signer = Signer::from_pem(pem, what)?;
            self.keys.append(&mut signer.verifier()?.keys);
        }
        Ok(())
    }

    fn add_spki(&mut self, spki: &[u8], what: &str) -> Result<(), PkiError> {
        let unusable = |reason: &str| PkiError::Key { what: what.into(), reason: reason.into() };
        let (_, info) =
            x509_parser::x509::SubjectPublicKeyInfo::from_der(spki).map_err(|e| unusable(&e.to_string()))?;
        let bytes = info.subject_public_key.data.to_vec();
        let kind = match info.parsed() {
            Ok(x509_parser::public_key::PublicKey::RSA(_)) => KeyKind::Rsa,
            Ok(x509_parser::public_key::PublicKey::EC(_)) if bytes.len() == 65 => KeyKind::P256,
            _ => return Err(unusable("it is neither RSA nor ECDSA on P-256")),
        };
        self.keys.push(PublicKey { id: key_id(spki), kind, bytes });
        Ok(())
    }

    /// The claims of a token that one of our keys signed. Times and audiences are the caller's to check.
    pub fn verify(&self, token: &str) -> Result<Value, TokenError> {
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(TokenError::Malformed)?;
        let read = |part: &str| B64.decode(part).map_err(|_| TokenError::Malformed);
        let json =
            |part: &str| serde_json::from_slice::<Value>(&read(part)?).map_err(|_| TokenError::Malformed);
        let (header, signature) = (json(header)?, read(signature)?);
        let kind = match header.get("alg").and_then(Value::as_str) {
            Some("RS256") => KeyKind::Rsa,
            Some("ES256") => KeyKind::P256,
            _ => return Err(TokenError::Signature),
        };
        let id = header.get("kid").and_then(Value::as_str);
        let fits = |k: &&PublicKey| k.kind == kind && id.is_none_or(|id| id == k.id);
        for key in self.keys.iter().filter(fits) {
            let algorithm: &dyn signature::VerificationAlgorithm = match key.kind {
                KeyKind::Rsa => &signature::RSA_PKCS1_2048_8192_SHA256,
                KeyKind::P256 => &signature::ECDSA_P256_SHA256_FIXED,
            };
            if UnparsedPublicKey::new(algorithm, &key.bytes).verify(message.as_bytes(), &signature).is_ok() {
                return json(claims);
            }
        }
        Err(TokenError::Signature)
    }

    /// The keys as a JSON Web Key Set (RFC 7517), for `/openid/v1/jwks`.
    pub fn jwks(&self) -> Value {
        let keys: Vec<Value> = self.keys.iter().filter_map(jwk).collect();
        json!({ "keys": keys })
    }
}

fn jwk(key: &PublicKey) -> Option<Value> {
    match key.kind {
        KeyKind::P256 => {
            let (x, y) = (key.bytes.get(1..33)?, key.bytes.get(33..65)?);
            Some(
                json!({"use": "sig", "kty": "EC", "kid": key.id, "crv": "P-256", "alg": "ES256", "x": B64.encode(x), "y": B64.encode(y)}),
            )
        }
        KeyKind::Rsa => {
            // PKCS#1: a sequence of modulus and exponent.
            let (_, parsed) = x509_parser::der_parser::parse_der(&key.bytes).ok()?;
            let numbers = parsed.as_sequence().ok()?;
            let number = |i: usize| -> Option<String> {
                let bytes = numbers.get(i)?.as_slice().ok()?;
                let start = bytes.iter().position(|b| *b != 0).unwrap_or(0);
                Some(B64.encode(bytes.get(start..)?))
            };
            Some(
                json!({"use": "sig", "kty": "RSA", "kid": key.id, "alg": "RS256", "n": number(0)?, "e": number(1)?}),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_checked() {
        let (_, key) =
            crate::ca::self_signed(&crate::ca::Subject::default(), std::time::Duration::from_secs(9))
                .unwrap();
        let signer = Signer::from_pem(key.as_bytes(), "key").unwrap();
        let claims = json!({"sub": "x"});
        let verifier = signer.verifier().unwrap();
        for _ in 0..50 {
            let token = signer.sign(&claims).unwrap();
            assert_eq!(verifier.verify(&token).unwrap(), claims);
            let (head, tail) = token.split_at(token.len() - 10);
            let forged = format!("{head}{}", tail.chars().rev().collect::<String>());
            assert!(verifier.verify(&forged).is_err());
        }
        assert_eq!(verifier.verify("a.b"), Err(TokenError::Malformed));
        assert_eq!(Verifier::default().verify(&signer.sign(&claims).unwrap()), Err(TokenError::Signature));
        let mut again = Verifier::default();
        again.add_pem(key.as_bytes(), "key").unwrap();
        assert!(again.verify(&signer.sign(&claims).unwrap()).is_ok());
        assert_eq!(again.jwks()["keys"][0]["crv"], "P-256");
    }
}
