//! Bootstrap tokens: `id.secret`, kept as Secrets `bootstrap-token-ID` in kube-system, with which a
//! machine asks for its first certificate.

use super::Rejected;
use crate::User;
use api::read::{self, ObjectReader};
use k8s_openapi::api::core::v1::Secret;

/// The user a bootstrap token stands for.
pub fn user(token: &str, reader: &dyn ObjectReader) -> Result<User, Rejected> {
    let unknown = || Rejected("the token is not known".into());
    let (id, secret) = token.split_once('.').ok_or_else(unknown)?;
    let plain =
        |s: &str, len| s.len() == len && s.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    if !plain(id, 6) || !plain(secret, 16) {
        return Err(unknown());
    }
    let kept: Secret =
        read::get(reader, "kube-system", &format!("bootstrap-token-{id}")).ok_or_else(unknown)?;
    let is_token = kept.type_.as_deref() == Some("bootstrap.kubernetes.io/token")
        && kept.metadata.deletion_timestamp.is_none();
    let field = |name: &str| {
        let bytes = kept.data.as_ref().and_then(|d| d.get(name))?;
        String::from_utf8(bytes.0.clone()).ok()
    };
    let same = |kept: &str, given: &str| constant_time_eq(kept.as_bytes(), given.as_bytes());
    if !is_token
        || field("token-id").is_none_or(|k| k != id)
        || !field("token-secret").is_some_and(|k| same(&k, secret))
    {
        return Err(unknown());
    }
    if let Some(expiration) = field("expiration") {
        let until: jiff::Timestamp = expiration
            .parse()
            .map_err(|_| Rejected(format!("bootstrap token {id} has an expiration that is no time")))?;
        if until <= jiff::Timestamp::now() {
            return Err(Rejected(format!("bootstrap token {id} has expired")));
        }
    }
    if field("usage-bootstrap-authentication").as_deref() != Some("true") {
        return Err(Rejected(format!("bootstrap token {id} is not for authentication")));
    }
    let mut groups = vec!["system:bootstrappers".to_string()];
    for group in
        field("auth-extra-groups").iter().flat_map(|g| g.split(',')).map(str::trim).filter(|g| !g.is_empty())
    {
        if !group.starts_with("system:bootstrappers:") {
            return Err(Rejected(format!(
                "bootstrap token {id} has a group outside system:bootstrappers: {group}"
            )));
        }
        groups.push(group.into());
    }
    Ok(User { name: format!("system:bootstrap:{id}"), groups, ..User::default() })
}

/// Compares without telling by its time where the two differ.
fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |d, (x, y)| d | (x ^ y)) == 0
}
