//! POST to `serviceaccounts/NAME/token`: a new token, bound to what the request names.

use crate::respond;
use crate::verbs::{Answer, Request, internal, subresource};
use admission::Operation;
use api::field::{FieldErrors, FieldPath};
use api::object::Object;
use api::{GroupKind, GroupResource, Status, read};
use auth::tokens::TokenClaims;
use bytes::Bytes;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::Value;

/// A token lives at least this long, and at most 2^32 seconds.
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
/// Tokens that upstream's pods ask for live a year for those who do not read them anew, with a warning.
const POD_TOKEN_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// Issues a token.
pub async fn create(request: &Request, body: Bytes) -> Answer {
    let Some(signer) = &request.server.signer else {
        return Err(Status::failure(
            404,
            "NotFound",
            "the server has no key to sign service account tokens with (--service-account-signing-key-file)",
        ));
    };
    request.server.consistent().await.map_err(crate::verbs::store_failed)?;
    let account = request
        .server
        .entry(&request.resource, &request.info.namespace, &request.info.name)
        .ok_or_else(|| request.not_found())?;
    let account = account.value().map_err(internal)?;
    let text =
        |v: &Value, path: &str| v.pointer(path).and_then(Value::as_str).unwrap_or_default().to_string();
    let account_uid = text(&account, "/metadata/uid");
    let asked = subresource::body_of(request, "token", &body)?;
    let mut asked = Object::from_value::<TokenRequest>(&asked).map_err(internal)?;
    let admission = request.admission(Operation::Create, "token", &request.info.name, None);
    request.server.admission.admit(&admission, Some(&mut asked)).await?;
    request.server.admission.validate(&admission, Some(&asked)).await?;
    let mut asked = asked.get::<TokenRequest>().cloned().unwrap_or_default();
    let mut spec = asked.spec.take().unwrap_or_default();
    let seconds = spec.expiration_seconds.unwrap_or(3600);
    let mut errors = FieldErrors::default();
    let root = FieldPath::root("spec");
    let at = root.child("expirationSeconds");
    if seconds < MIN_SECONDS {
        errors.invalid(at, &seconds, "may not specify a duration less than 10 minutes");
    } else if seconds > MAX_SECONDS {
        errors.invalid(at, &seconds, "may not specify a duration larger than 2^32 seconds");
    }
    if !errors.is_empty() {
        return Err(Status::invalid(
            &GroupKind { group: "authentication.k8s.io".into(), kind: "TokenRequest".into() },
            &request.info.name,
            &errors,
        ));
    }
    let longest = request.server.options.service_account_max_token_expiration.as_secs() as i64;
    let mut seconds = seconds;
    if longest > 0 && seconds > longest {
        request.warn(format!("requested expiration of {seconds} seconds shortened to {longest} seconds"));
        seconds = longest;
    }
    let audiences = spec
        .audiences
        .take()
        .filter(|a| !a.is_empty())
        .unwrap_or_else(|| request.server.options.api_audiences());
    let namespace = &request.info.namespace;
    let (mut pod, mut secret, mut node) = (None, None, None);
    if let Some(bound) = &spec.bound_object_ref {
        let (kind, name, uid) = (
            bound.kind.as_deref().unwrap_or_default(),
            bound.name.as_deref().unwrap_or_default(),
            bound.uid.as_deref(),
        );
        let server = &*request.server;
        match kind {
            "Pod" => {
                let there: Pod = read::get(server, namespace, name).ok_or_else(|| missing("pods", name))?;
                pod = Some(named(&there.metadata, uid, "pods")?);
                if there.spec.as_ref().and_then(|s| s.service_account_name.as_deref())
                    != Some(&request.info.name)
                {
                    return Err(Status::bad_request(format!(
                        "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name",
                        request.info.name
                    )));
                }
                let on = there.spec.and_then(|s| s.node_name).unwrap_or_default();
                node = read::get::<Node>(server, "", &on).map(|n| (on, n.metadata.uid.unwrap_or_default()));
            }
            "Secret" => {
                let there: Secret =
                    read::get(server, namespace, name).ok_or_else(|| missing("secrets", name))?;
                secret = Some(named(&there.metadata, uid, "secrets")?);
            }
            "Node" => {
                let there: Node = read::get(server, "", name).ok_or_else(|| missing("nodes", name))?;
                node = Some(named(&there.metadata, uid, "nodes")?);
            }
            _ => return Err(Status::bad_request(format!("cannot bind token to object of type {kind}"))),
        }
    }
    let options = &request.server.options;
    let extend = options.service_account_extend_token_expiration
        && pod.is_some()
        && seconds == POD_TOKEN_SECONDS
        && audiences == options.api_audiences();
    let lifetime = if extend { EXTENDED_SECONDS } else { seconds };
    let now = request.now.as_second();
    let id = crate::verbs::create::uid();
    fn view(p: &Option<(String, String)>) -> Option<(&str, &str)> {
        p.as_ref().map(|(a, b)| (a.as_str(), b.as_str()))
    }
    let claims = TokenClaims {
        issuer: options.service_account_issuer.first().map(String::as_str).unwrap_or_default(),
        audiences: &audiences,
        account: (namespace, &request.info.name, &account_uid),
        pod: view(&pod),
        secret: view(&secret),
        node: view(&node),
        id: &id,
        now,
        seconds: lifetime,
        warn_after: extend.then_some(seconds),
    };
    let token = signer.sign(&claims.to_value()).map_err(internal)?;
    let expires = Time(request.now + jiff::SignedDuration::from_secs(seconds));
    spec.expiration_seconds = Some(seconds);
    spec.audiences = Some(audiences);
    asked.spec = Some(spec);
    asked.metadata.name = Some(request.info.name.clone());
    asked.metadata.namespace = Some(namespace.clone());
    asked.metadata.creation_timestamp = Some(Time(request.now));
    asked.status = Some(k8s_openapi::api::authentication::v1::TokenRequestStatus {
        expiration_timestamp: Some(expires),
        token: Some(token),
    });
    respond::value(request, 201, &serde_json::to_value(asked).map_err(internal)?)
}

fn missing(resource: &str, name: &str) -> Status {
    Status::not_found(&GroupResource::new("", resource), name)
}

fn named(meta: &ObjectMeta, uid: Option<&str>, resource: &str) -> Result<(String, String), Status> {
    let (name, there) = (meta.name.clone().unwrap_or_default(), meta.uid.clone().unwrap_or_default());
    if let Some(uid) = uid.filter(|u| !u.is_empty() && *u != there) {
        return Err(Status::conflict(
            &GroupResource::new("", resource),
            &name,
            &format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            ),
        ));
    }
    Ok((name, there))
}
