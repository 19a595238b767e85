//! Who calls, and whether they may: client certificates, bearer tokens by TokenReview, leave by
//! SubjectAccessReview. Answers are remembered for as long as the operator says.

use crate::config::Config;
use crate::streaming::{Body, text};
use client::Client;
use http::{Method, Request, Response, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Entries a cache holds at most; beyond that it forgets all that has run out, or everything.
const MAX_CACHED: usize = 4096;

/// Somebody known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The user name.
    pub name: String,
    /// The user's id.
    pub uid: String,
    /// The groups.
    pub groups: Vec<String>,
    /// More about the user.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Reads the subject of a certificate that has been verified.
pub fn from_certificate(der: &[u8]) -> Option<Caller> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let subject = cert.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    groups.push("system:authenticated".into());
    Some(Caller { name, groups, ..Caller::default() })
}

struct Cache<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K: Hash + Eq, V: Clone> Cache<K, V> {
    fn new() -> Self {
        Cache(Mutex::new(HashMap::new()))
    }

    fn get(&self, key: &K) -> Option<V> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, v)| v.clone())
    }

    fn put(&self, key: K, value: V, ttl: Duration) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= MAX_CACHED {
            let now = Instant::now();
            map.retain(|_, (until, _)| *until > now);
            if map.len() >= MAX_CACHED {
                map.clear();
            }
        }
        map.insert(key, (Instant::now() + ttl, value));
    }
}

/// Lets callers in, or not.
pub struct Gate {
    client: Option<Client>,
    node: String,
    anonymous: bool,
    tokens: bool,
    authorize: bool,
    token_ttl: Duration,
    allowed_ttl: Duration,
    denied_ttl: Duration,
    known: Cache<String, Option<Caller>>,
    leave: Cache<(Caller, &'static str, &'static str), bool>,
}

impl Gate {
    /// As configured; without a client nobody's token or leave can be checked.
    pub fn new(config: &Config, client: Option<Client>) -> Self {
        Gate {
            client,
            node: config.node_name.clone(),
            anonymous: config.anonymous,
            tokens: config.webhook_authentication,
            authorize: config.webhook_authorization,
            token_ttl: config.token_ttl,
            allowed_ttl: config.authorized_ttl,
            denied_ttl: config.unauthorized_ttl,
            known: Cache::new(),
            leave: Cache::new(),
        }
    }

    /// Whether the caller may; one of the subresources of the node has to be allowed.
    pub async fn admit<B>(
        &self,
        req: &Request<B>,
        certificate: Option<Caller>,
        subresources: &[&'static str],
    ) -> Result<(), Box<Response<Body>>> {
        let caller = match (certificate, bearer(req)) {
            (Some(c), _) => c,
            (None, Some(token)) if self.tokens => self.by_token(token).await?.ok_or_else(unauthorized)?,
            (None, None) if self.anonymous => Caller {
                name: "system:anonymous".into(),
                groups: vec!["system:unauthenticated".into()],
                ..Caller::default()
            },
            _ => return Err(unauthorized()),
        };
        if !self.authorize {
            return Ok(());
        }
        let verb = match *req.method() {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "get",
        };
        for sub in subresources {
            if self.may(&caller, verb, sub).await? {
                return Ok(());
            }
        }
        let sub = subresources.last().copied().unwrap_or("");
        let message = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)={:?})",
            caller.name,
            [sub]
        );
        Err(Box::new(text(StatusCode::FORBIDDEN, message)))
    }

    async fn by_token(&self, token: &str) -> Result<Option<Caller>, Box<Response<Body>>> {
        // what is kept is a digest, not the secret
        let key = ring::digest::digest(&ring::digest::SHA256, token.as_bytes())
            .as_ref()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<String>();
        if let Some(known) = self.known.get(&key) {
            return Ok(known);
        }
        let Some(client) = &self.client else { return Ok(None) };
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), audiences: None },
            ..Default::default()
        };
        let answer: TokenReview = client
            .post("/apis/authentication.k8s.io/v1/tokenreviews", &review)
            .await
            .map_err(|e| unavailable(&e))?;
        let status = answer.status.unwrap_or_default();
        let caller = status.user.filter(|_| status.authenticated == Some(true)).map(|u| Caller {
            name: u.username.unwrap_or_default(),
            uid: u.uid.unwrap_or_default(),
            groups: u.groups.unwrap_or_default(),
            extra: u.extra.unwrap_or_default(),
        });
        self.known.put(key, caller.clone(), self.token_ttl);
        Ok(caller)
    }

    async fn may(
        &self,
        caller: &Caller,
        verb: &'static str,
        subresource: &'static str,
    ) -> Result<bool, Box<Response<Body>>> {
        let key = (caller.clone(), verb, subresource);
        if let Some(known) = self.leave.get(&key) {
            return Ok(known);
        }
        let Some(client) = &self.client else { return Ok(false) };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(caller.name.clone()),
                uid: Some(caller.uid.clone()).filter(|u| !u.is_empty()),
                groups: Some(caller.groups.clone()),
                extra: Some(caller.extra.clone()).filter(|e| !e.is_empty()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.into()),
                    version: Some("v1".into()),
                    resource: Some("nodes".into()),
                    subresource: Some(subresource.into()),
                    name: Some(self.node.clone()),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let answer: SubjectAccessReview = client
            .post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review)
            .await
            .map_err(|e| unavailable(&e))?;
        let allowed = answer.status.is_some_and(|s| s.allowed);
        self.leave.put(key, allowed, if allowed { self.allowed_ttl } else { self.denied_ttl });
        Ok(allowed)
    }
}

fn bearer<B>(req: &Request<B>) -> Option<&str> {
    let value = req.headers().get("authorization")?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    Some(token.trim()).filter(|t| scheme.eq_ignore_ascii_case("bearer") && !t.is_empty())
}

fn unauthorized() -> Box<Response<Body>> {
    Box::new(text(StatusCode::UNAUTHORIZED, "Unauthorized"))
}

fn unavailable(e: &client::Error) -> Box<Response<Body>> {
    Box::new(text(StatusCode::INTERNAL_SERVER_ERROR, format!("Authorization error: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearers() {
        let of = |v: &str| {
            Request::get("/")
                .header("authorization", v)
                .body(())
                .ok()
                .and_then(|r| bearer(&r).map(str::to_owned))
        };
        assert_eq!(of("Bearer abc"), Some("abc".into()));
        assert_eq!(of("bearer  x "), Some("x".into()));
        assert_eq!(of("Basic abc"), None);
        assert_eq!(of("Bearer "), None);
    }

    #[tokio::test]
    async fn nobody_unknown_gets_in() -> Result<(), String> {
        let flags = <crate::Flags as clap::Parser>::parse_from(["kubelet"]);
        let config = Config::resolve(&flags, Default::default(), "".as_ref()).map_err(|e| e.to_string())?;
        let gate = Gate::new(&config, None);
        let plain = Request::get("/pods").body(()).map_err(|e| e.to_string())?;
        assert!(gate.admit(&plain, None, &["pods"]).await.is_err());
        let known = Caller { name: "x".into(), ..Caller::default() };
        assert!(
            gate.admit(&plain, Some(known.clone()), &["pods"]).await.is_err(),
            "no leave without an API server"
        );
        gate.leave.put((known.clone(), "get", "pods"), true, Duration::from_secs(9));
        assert!(gate.admit(&plain, Some(known), &["pods"]).await.is_ok());
        Ok(())
    }
}
