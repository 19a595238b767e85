//! Who asks, for whom, and may they.

use crate::request::{RequestInfo, Verb};
use crate::server::Server;
use crate::verbs;
use crate::websocket;
use api::{GroupResource, Status, names};
use auth::{Attributes, Decision, User};
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use std::collections::BTreeMap;

/// Who is at the other end of a connection, by its certificate.
#[derive(Default)]
pub struct Peer {
    /// A front proxy, which may name the user.
    pub front_proxy: bool,
    /// This user.
    pub user: Option<User>,
    /// It has shown a certificate that is no user's: expired, or signed by others.
    pub rejected: bool,
}

impl Peer {
    /// Whether its certificate tells who it is.
    pub fn is_known(&self) -> bool {
        self.front_proxy || self.user.is_some()
    }
}

/// Whom the request comes from. Takes out of the headers what only this server may see.
pub fn authenticate(server: &Server, peer: &Peer, headers: &mut HeaderMap) -> Result<User, Status> {
    let websocket_token = websocket_token(headers);
    if let Some(user) = peer.front_proxy.then(|| server.front_proxy.user(headers)).flatten() {
        return Ok(user);
    }
    if let Some(user) = &peer.user {
        return Ok(user.clone());
    }
    let header = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
    let token = match header {
        Some(text) => text
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, t)| t.trim().to_string()),
        None => websocket_token?,
    };
    match token.filter(|t| !t.is_empty()) {
        Some(token) => server.tokens.authenticate(&token, server).map_err(|e| {
            tracing::debug!(reason = %e, "a token was not accepted");
            Status::unauthorized()
        }),
        // Who shows a certificate that does not count is no stranger, but mistaken.
        None if server.options.anonymous_auth() && !peer.rejected => Ok(User::anonymous()),
        None => Err(Status::unauthorized()),
    }
}

/// A subprotocol with this name is a credential.
const BEARER: &str = "base64url.bearer.authorization.k8s.io.";

/// Browsers can't set headers on a WebSocket; a token comes as a subprotocol. It is taken out of the header, which may
/// be passed on; another has to be left, which can be agreed on.
fn websocket_token(headers: &mut HeaderMap) -> Result<Option<String>, Status> {
    use base64::Engine;
    let all = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let all: Vec<String> = all.flat_map(|v| v.split(',')).map(|p| p.trim().to_string()).collect();
    let (tokens, protocols): (Vec<String>, Vec<String>) =
        all.into_iter().filter(|p| !p.is_empty()).partition(|p| p.starts_with(BEARER));
    if tokens.is_empty() {
        return Ok(None);
    }
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if let Ok(rest) = HeaderValue::from_str(&protocols.join(","))
        && !protocols.is_empty()
    {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, rest);
    }
    let [token] = tokens.as_slice() else { return Err(Status::unauthorized()) };
    if !websocket::is_asked_for(headers) || protocols.is_empty() {
        return Err(Status::unauthorized());
    }
    let encoded = token.trim_start_matches(BEARER);
    let decoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded);
    let token = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    token.map(Some).ok_or_else(Status::unauthorized)
}

/// What the `Impersonate-` headers ask for.
#[derive(Default)]
struct Impersonation {
    name: String,
    groups: Vec<String>,
    uid: String,
    extra: BTreeMap<String, Vec<String>>,
}

impl Impersonation {
    fn read(headers: &HeaderMap) -> Result<Self, Status> {
        let text = |v: &HeaderValue| {
            String::from_utf8(v.as_bytes().to_vec())
                .map_err(|_| Status::bad_request("an Impersonate- header is not valid UTF-8"))
        };
        let one = |name: &str| headers.get(name).map(text).transpose().map(Option::unwrap_or_default);
        let groups = headers.get_all("impersonate-group").iter().map(text).collect::<Result<_, _>>()?;
        let mut asked = Impersonation {
            name: one("impersonate-user")?,
            groups,
            uid: one("impersonate-uid")?,
            extra: BTreeMap::new(),
        };
        for (header, value) in headers {
            if let Some(key) = header.as_str().strip_prefix("impersonate-extra-") {
                let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
                asked.extra.entry(key).or_default().push(text(value)?);
            }
        }
        Ok(asked)
    }
}

/// Namespace and name of a service account's user name, if it is a valid one.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (names::dns1123_label(namespace).is_empty() && names::dns1123_subdomain(name).is_empty())
        .then_some((namespace, name))
}

/// `Impersonate-User` and its kin, for those who may.
pub fn impersonate(server: &Server, user: User, headers: &HeaderMap) -> Result<User, Status> {
    let Impersonation { name, groups, uid, extra } = Impersonation::read(headers)?;
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(user);
        }
        return Err(Status::bad_request("requested groups, uid or extra without impersonating a user"));
    }
    let check = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        let asked = Attributes {
            verb: "impersonate",
            is_resource: true,
            group,
            version: "v1",
            resource,
            subresource,
            namespace,
            name,
            ..Attributes::default()
        };
        match server.authorizers.authorize(&user, &asked, server) {
            Decision::Allow => Ok(()),
            Decision::Deny(why) | Decision::NoOpinion(why) => Err(Status::forbidden(
                &GroupResource::new(group, resource),
                name,
                format!(
                    "User {:?} cannot impersonate resource {resource:?} in API group {group:?} at the cluster scope{}",
                    user.name,
                    if why.is_empty() { why } else { format!(": {why}") }
                ),
            )),
        }
    };
    let mut become_user =
        User { name: name.clone(), uid: uid.clone(), groups: groups.clone(), extra: extra.clone() };
    match service_account(&name) {
        Some((namespace, account)) => {
            check("", "serviceaccounts", "", namespace, account)?;
            if groups.is_empty() {
                become_user.groups = User::service_account(namespace, account, "").groups;
            }
        }
        None => check("", "users", "", "", &name)?,
    }
    for group in &groups {
        check("", "groups", "", "", group)?;
    }
    if !uid.is_empty() {
        check("authentication.k8s.io", "uids", "", "", &uid)?;
    }
    for (key, values) in &extra {
        for value in values {
            check("authentication.k8s.io", "userextras", key, "", value)?;
        }
    }
    // Who is said to be a stranger is not one of those who are known.
    let everyone = if name == "system:anonymous" { auth::UNAUTHENTICATED } else { auth::AUTHENTICATED };
    if !become_user.is_in(everyone) && !become_user.is_in(auth::UNAUTHENTICATED) {
        become_user.groups.push(everyone.into());
    }
    Ok(become_user)
}

/// What authorizers are asked about a request.
fn attributes(info: &RequestInfo, verb: Verb) -> Attributes<'_> {
    let selectors = info.selectors.as_ref().ok().filter(|_| !info.verb_in_path);
    Attributes {
        verb: verb.name(),
        is_resource: info.is_resource,
        group: &info.group,
        version: &info.version,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        path: &info.path,
        fields: selectors.map_or(&[], |s| &s.fields),
        labels: selectors.map_or(&[], |s| &s.labels.requirements),
    }
}

/// Whether they may do what is asked.
pub fn authorize(server: &Server, user: &User, info: &RequestInfo) -> Result<(), Status> {
    allowed(server, user, info, info.verb)
}

/// Whether who made a request may do something else with what it names, which comes of it.
pub fn check(request: &verbs::Request, verb: Verb) -> Result<(), Status> {
    allowed(&request.server, &request.user, &request.info, verb)
}

fn allowed(server: &Server, user: &User, info: &RequestInfo, verb: Verb) -> Result<(), Status> {
    let why = match server.authorizers.authorize(user, &attributes(info, verb), server) {
        Decision::Allow => return Ok(()),
        Decision::Deny(why) | Decision::NoOpinion(why) => why,
    };
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    if !info.is_resource {
        return Err(Status::forbidden(
            &GroupResource::new("", ""),
            "",
            format!("User {:?} cannot {verb} path {:?}{why}", user.name, info.path),
        ));
    }
    let resource = if info.subresource.is_empty() {
        info.resource.clone()
    } else {
        format!("{}/{}", info.resource, info.subresource)
    };
    let scope = if info.namespace.is_empty() {
        "at the cluster scope".into()
    } else {
        format!("in the namespace {:?}", info.namespace)
    };
    let message = format!(
        "User {:?} cannot {verb} resource {resource:?} in API group {:?} {scope}{why}",
        user.name, info.group
    );
    Err(Status::forbidden(&info.group_resource(), &info.name, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_among_subprotocols_is_taken_out() {
        let token = "base64url.bearer.authorization.k8s.io.dDE"; // t1
        for (sent, upgrade, want, left) in [
            (&["a, b"][..], true, Some(None), "a, b"),
            (&[&format!("{token},v4.channel.k8s.io")], true, Some(Some("t1")), "v4.channel.k8s.io"),
            (&["a", &format!("b, {token}")], true, Some(Some("t1")), "a,b"),
            (&[&format!("{token},a")], false, None, "a"),
            (&[token], true, None, ""),
            (&[&format!("{token},{token},a")], true, None, "a"),
            (&[&format!("{token}!,a")], true, None, "a"),
        ] {
            let mut headers = HeaderMap::new();
            for line in sent {
                headers.append(SEC_WEBSOCKET_PROTOCOL, line.parse().unwrap());
            }
            if upgrade {
                headers.insert(http::header::UPGRADE, "websocket".parse().unwrap());
            }
            let got = websocket_token(&mut headers).ok();
            assert_eq!(got.as_ref().map(Option::as_deref), want, "{sent:?}");
            let rest = headers.get(SEC_WEBSOCKET_PROTOCOL).map_or("", |v| v.to_str().unwrap());
            assert_eq!(rest, left, "{sent:?}");
        }
    }

    #[test]
    fn names_of_service_accounts() {
        assert_eq!(service_account("system:serviceaccount:a:b"), Some(("a", "b")));
        for other in
            ["a", "system:serviceaccount:a", "system:serviceaccount:a:b:c", "system:serviceaccount:A:b"]
        {
            assert_eq!(service_account(other), None, "{other}");
        }
    }
}
