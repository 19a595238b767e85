//! Client certificates: the common name is the user, the organizations are the groups.
//! The TLS layer has checked that a trusted authority signed it and that it is valid now.

use super::{Rejected, with_authenticated};
use crate::User;

/// The user a certificate, DER, stands for.
pub fn user(der: &[u8]) -> Result<User, Rejected> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der)
        .map_err(|e| Rejected(format!("the client certificate can't be read: {e}")))?;
    let subject = certificate.subject();
    let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().unwrap_or_default().to_string();
    let name = subject.iter_common_name().next().map(text).unwrap_or_default();
    if name.is_empty() {
        return Err(Rejected("the client certificate has no common name".into()));
    }
    let groups = subject.iter_organization().map(text).collect();
    Ok(with_authenticated(User { name, groups, ..User::default() }))
}
