//! Paths that are no resources: discovery, documents, health, metrics, keys.

use crate::health;
use crate::request::{Query, RequestInfo};
use crate::server::Server;
use crate::verbs::{self, Answer};
use crate::{discovery, openapi, respond};
use api::Status;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::hash::{DefaultHasher, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

fn json_answer(value: &Value) -> Answer {
    Ok(respond::bytes(200, "application/json", serde_json::to_vec(value).map_err(verbs::internal)?))
}

/// Paths that are no resources.
pub async fn answer(
    server: &Arc<Server>,
    info: &RequestInfo,
    query: &Query,
    request: &Request<Incoming>,
) -> Answer {
    let path = info.path.trim_end_matches('/');
    if let Some(response) = health::answer(server, path, query).await {
        return Ok(response);
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Err(Status::failure(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ));
    }
    let catalog = server.catalog();
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let not_found = Status::no_such_path;
    match segments.as_slice() {
        [] => {
            let mut paths: Vec<String> = [
                "/.well-known/openid-configuration",
                "/api",
                "/api/v1",
                "/apis",
                "/healthz",
                "/livez",
                "/metrics",
                "/openapi/v2",
                "/openapi/v3",
                "/readyz",
                "/version",
            ]
            .map(Into::into)
            .to_vec();
            for group in catalog.groups.iter().filter(|g| !g.name.is_empty()) {
                paths.push(format!("/apis/{}", group.name));
                paths.extend(group.versions.iter().map(|(v, _)| format!("/apis/{}/{v}", group.name)));
            }
            paths.sort();
            json_answer(&json!({ "paths": paths }))
        }
        ["version"] => json_answer(&discovery::version()),
        ["api"] => match aggregated_version(request.headers()) {
            Some(version) => {
                aggregated(request.headers(), &discovery::aggregated(&catalog, true, version), version)
            }
            None => json_answer(&discovery::legacy_versions(&format!(
                "{}:{}",
                server.options.advertised(),
                server.options.secure_port
            ))),
        },
        ["apis"] => match aggregated_version(request.headers()) {
            Some(version) => {
                aggregated(request.headers(), &discovery::aggregated(&catalog, false, version), version)
            }
            None => json_answer(&discovery::groups(&catalog)),
        },
        ["api", version] => json_answer(&discovery::resources(&catalog, "", version).ok_or_else(not_found)?),
        ["apis", group] => json_answer(&discovery::group(&catalog, group).ok_or_else(not_found)?),
        ["apis", group, version] => {
            json_answer(&discovery::resources(&catalog, group, version).ok_or_else(not_found)?)
        }
        ["openapi", "v3"] => json_answer(&openapi::index(&catalog)),
        ["openapi", "v3", rest @ ..] => {
            server.documents.v3(&catalog, request.headers(), &rest.join("/"), query.get("hash"))
        }
        ["openapi", "v2"] => server.documents.v2(&catalog, request.headers()),
        ["metrics"] => Ok(respond::bytes(
            200,
            "text/plain; version=0.0.4; charset=utf-8",
            server.metrics.text().into_bytes(),
        )),
        [".well-known", "openid-configuration"] => {
            let issuer = server.options.service_account_issuer.first().cloned().unwrap_or_default();
            let (host, port) = (server.options.advertised(), server.options.secure_port);
            let named = server.options.external_hostname.clone();
            let host = named.unwrap_or_else(|| SocketAddr::new(host, port).to_string());
            let given = server.options.service_account_jwks_uri.clone();
            let address = given.unwrap_or_else(|| format!("https://{host}/openid/v1/jwks"));
            json_answer(&json!({
                "issuer": issuer, "jwks_uri": address, "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["RS256", "ES256"],
            }))
        }
        ["openid", "v1", "jwks"] => {
            let accounts = server.tokens.service_accounts.as_ref().ok_or_else(not_found)?;
            let body = serde_json::to_vec(&accounts.verifier.jwks()).map_err(verbs::internal)?;
            Ok(respond::bytes(200, "application/jwk-set+json", body))
        }
        _ => Err(not_found()),
    }
}

/// Which aggregated form of discovery is accepted, if any.
fn aggregated_version(headers: &HeaderMap) -> Option<&'static str> {
    let accept = headers.get(http::header::ACCEPT)?.to_str().ok()?;
    accept.split(',').find_map(|range| {
        let has = |p: &str| range.split(';').any(|part| part.trim() == p);
        if !has("g=apidiscovery.k8s.io")
            || !has("as=APIGroupDiscoveryList")
            || !range.trim().starts_with("application/json")
        {
            return None;
        }
        if has("v=v2") { Some("v2") } else { has("v=v2beta1").then_some("v2beta1") }
    })
}

fn aggregated(headers: &HeaderMap, value: &Value, version: &str) -> Answer {
    let body = serde_json::to_vec(value).map_err(verbs::internal)?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&body);
    let tag = format!("{:016X}", hasher.finish());
    let mut response = respond::bytes(200, "application/json", body);
    let media_type = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    if let Ok(value) = media_type.parse() {
        response.headers_mut().insert(http::header::CONTENT_TYPE, value);
    }
    response.headers_mut().insert(HeaderName::from_static("vary"), HeaderValue::from_static("Accept"));
    respond::tagged(headers, &tag, response)
}
