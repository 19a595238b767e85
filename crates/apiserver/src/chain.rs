//! The road every request takes: who asks, may they, what for, and back.

use crate::limits::{Held, Pace, Seat};
use crate::metrics::{DurationLabels, RequestLabels};
use crate::negotiate::{self, Accepted, Format, View};
use crate::request::{self, Query, RequestInfo};
use crate::server::Server;
use crate::verbs::{self, Answer};
use crate::websocket::{self, Unit};
use crate::{compress, discovery, health, openapi, respond, served};
use api::{GroupResource, Status};
use auth::{Attributes, Decision, User};
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, EXPECT, HeaderValue, UPGRADE};
use http::{HeaderMap, HeaderName, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use resources::Subresource;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A body may be this large: upstream's limit, etcd's own being less.
const MAX_BODY: usize = 3 << 20;
/// So much of one that is larger is read all the same, while it comes: who is cut off while sending may not see
/// the answer.
const DISCARDED: usize = 16 << 20;
const STILL_COMING: Duration = Duration::from_millis(500);

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

/// Answers one request. It never fails: what goes wrong is a Status.
pub async fn handle(
    server: Arc<Server>,
    peer: Arc<Peer>,
    pace: Arc<Pace>,
    request: Request<Incoming>,
) -> Result<Response<Held>, Infallible> {
    let started = Instant::now();
    let query = Query::parse(request.uri().query());
    let info = match request::read(request.method(), request.uri(), &query) {
        Ok(info) => Arc::new(info),
        Err(status) => {
            let busy = pace.begin(Some(started));
            return Ok(respond::status(&status, Format::Json).map(|body| Held::new(body, busy, None)));
        }
    };
    let error_format = match negotiate::accept(request.headers()) {
        Ok(Accepted { format, .. }) => format,
        Err(_) => Format::Json,
    };
    let counted = info.clone();
    let gzip = compress::is_accepted(request.headers());
    let head = request.method() == Method::HEAD;
    let long = info.verb == "watch" || verbs::connect::is_connect(&info.subresource);
    let limit = server.options.request_timeout();
    let busy = pace.begin((!long).then(|| started + limit));
    let mut seat = None;
    let answer = answer(server.clone(), peer, info, query, request, (!long).then_some(&mut seat));
    let answer = if long {
        answer.await
    } else {
        tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
            Err(Status::timeout("request did not complete within the allotted timeout", 0))
        })
    };
    let response = answer.unwrap_or_else(|status| respond::status(&status, error_format));
    count(&server, &counted, response.status().as_u16(), started);
    let response = if gzip { compress::gzip(response) } else { response };
    let response = if head { respond::without_body(response) } else { response };
    Ok(response.map(|body| Held::new(body, busy, seat)))
}

fn count(server: &Server, info: &RequestInfo, code: u16, started: Instant) {
    if !info.is_resource {
        return;
    }
    let verb = match info.verb.as_str() {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" => "POST",
        "update" => "PUT",
        "patch" => "PATCH",
        "delete" | "deletecollection" => "DELETE",
        "connect" | "proxy" => "CONNECT",
        _ => "OTHER",
    };
    let scope = match (info.namespace.is_empty(), info.name.is_empty()) {
        (_, false) => "resource",
        (false, true) => "namespace",
        (true, true) => "cluster",
    };
    let labels = RequestLabels {
        verb,
        group: info.group.clone(),
        version: info.version.clone(),
        resource: info.resource.clone(),
        scope,
        code,
    };
    // Paths that nobody serves would let a client make up labels without end.
    if code != 404 || !server.catalog().serves(&info.group, &info.version) {
        server.metrics.requests.get_or_create(&labels).inc();
    }
    if info.verb != "watch" && code < 400 {
        let labels = DurationLabels {
            verb: labels.verb,
            group: labels.group,
            version: labels.version,
            resource: labels.resource,
        };
        server.metrics.durations.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
    }
}

async fn answer(
    server: Arc<Server>,
    peer: Arc<Peer>,
    info: Arc<RequestInfo>,
    query: Query,
    mut request: Request<Incoming>,
    seat: Option<&mut Seat>,
) -> Answer {
    let user = authenticate(&server, &peer, request.headers())?;
    server.front_proxy.clear(request.headers_mut());
    let user = impersonate(&server, user, request.headers())?;
    // Those who may do everything also have to when there is much to do.
    if let Some(seat) = seat
        && !user.groups.iter().any(|g| g == "system:masters")
    {
        let taken = server.seats.take(&info.verb).await;
        *seat = taken
            .ok_or_else(|| Status::too_many_requests("Too many requests, please try again later.", 1))?;
    }
    authorize(&server, &user, &info)?;
    if !info.is_resource {
        return other_path(&server, &info, &query, &request).await;
    }
    let catalog = server.catalog();
    let resource =
        catalog.find(&info.group, &info.version, &info.resource).cloned().ok_or_else(Status::no_such_path)?;
    if resource.namespaced
        && info.namespace.is_empty()
        && matches!(info.verb.as_str(), "create" | "update" | "patch" | "get" | "delete" | "deletecollection")
    {
        return Err(Status::method_not_supported(&resource.group_resource, &info.verb));
    }
    if !resource.namespaced && !info.namespace.is_empty() && resource.names.plural != "namespaces" {
        return Err(Status::no_such_path());
    }
    let accepted = match verbs::connect::is_connect(&info.subresource) {
        true => Accepted { format: Format::Json, view: View::Whole, pretty: false },
        false => {
            let mut accepted = negotiate::accept(request.headers())?;
            if query.get("pretty").is_some() {
                accepted.pretty = query.flag("pretty");
            }
            accepted
        }
    };
    let upgrade = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (parts, incoming) = request.into_parts();
    let body = match info.verb.as_str() {
        "get" | "list" | "watch" if !verbs::connect::is_connect(&info.subresource) => Bytes::new(),
        _ => read_body(incoming, &parts.headers).await?,
    };
    let mut request = verbs::Request::new(server, info, query, parts.headers, user, resource, accepted);
    request.raw_query = parts.uri.query().map(Into::into);
    let request = Arc::new(request);
    let mut response = dispatch(&request, parts.method, body, upgrade).await;
    let warnings = request.take_warnings();
    if !warnings.is_empty() {
        let format = request.accepted.format;
        let mut answer = response.unwrap_or_else(|status| respond::status(&status, format));
        respond::add_warnings(&mut answer, warnings);
        response = Ok(answer);
    }
    response
}

async fn read_body(mut incoming: Incoming, headers: &HeaderMap) -> Result<Bytes, Status> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let too_large = || Status::too_large(format!("Request entity too large: limit is {MAX_BODY}"));
    if announced.is_some_and(|n| n > MAX_BODY + DISCARDED)
        || announced.is_some_and(|n| n > MAX_BODY) && headers.contains_key(EXPECT)
    {
        return Err(too_large());
    }
    let mut body = BytesMut::new();
    let mut length = 0;
    loop {
        let frame = match length > MAX_BODY {
            true => tokio::time::timeout(STILL_COMING, incoming.frame()).await.ok().flatten(),
            false => incoming.frame().await,
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|e| Status::bad_request(format!("the body could not be read: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length <= MAX_BODY {
            body.extend_from_slice(&data);
        } else if length > MAX_BODY + DISCARDED {
            break;
        } else {
            body = BytesMut::new();
        }
    }
    if length > MAX_BODY { Err(too_large()) } else { Ok(body.freeze()) }
}

async fn dispatch(
    request: &Arc<verbs::Request>,
    method: Method,
    body: Bytes,
    upgrade: Option<hyper::upgrade::OnUpgrade>,
) -> Answer {
    let info = &request.info;
    if !info.subresource.is_empty() {
        let sub = verbs::subresource::find(request)?;
        if matches!(sub, Subresource::Served(name) if verbs::connect::is_connect(name)) {
            return verbs::connect::connect(request, method, body, upgrade).await;
        }
        return verbs::subresource::answer(request.clone(), sub, body).await;
    }
    if request.resource.kind.verbs() == resources::Verbs::CreateOnly {
        if request.accepted.view != View::Whole {
            return Err(negotiate::not_acceptable());
        }
        if info.verb != "create" {
            return Err(Status::method_not_supported(&request.face.group_resource, &info.verb));
        }
        return review(request, body).await;
    }
    if request.resource.kind.verbs() == resources::Verbs::Computed {
        return served::component_status::answer(request).await;
    }
    match info.verb.as_str() {
        "get" => verbs::get::get(request).await,
        "list" => verbs::list::list(request).await,
        "watch" => {
            let answer = verbs::watch::watch(request.clone()).await?;
            match upgrade {
                Some(upgrade) if websocket::is_asked_for(&request.headers) => {
                    websocket::send(&request.headers, upgrade, answer.into_body(), Unit::Line)
                }
                _ => Ok(answer),
            }
        }
        "create" if info.name.is_empty() || info.resource == "namespaces" => {
            verbs::create::create(request, body).await
        }
        "update" => verbs::update::update(request, body, None).await,
        "patch" => verbs::patch::patch(request, body, None).await,
        "delete" => verbs::delete::delete(request, body).await,
        "deletecollection" => verbs::delete::delete_collection(request.clone(), body).await,
        verb => Err(Status::method_not_supported(&request.face.group_resource, verb)),
    }
}

/// Kinds that are answered and never kept.
async fn review(request: &verbs::Request, body: Bytes) -> Answer {
    match request.resource.names.plural {
        "tokenreviews" => served::token_review::create(request, body).await,
        "selfsubjectreviews" => served::token_review::create_self(request, body).await,
        "selfsubjectrulesreviews" => served::access_review::create_rules(request, body).await,
        "subjectaccessreviews" | "localsubjectaccessreviews" | "selfsubjectaccessreviews" => {
            served::access_review::create(request, body).await
        }
        _ => Err(Status::method_not_supported(&request.face.group_resource, "create")),
    }
}

fn authenticate(server: &Server, peer: &Peer, headers: &HeaderMap) -> Result<User, Status> {
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
        None => websocket_token(headers),
    };
    match token.filter(|t| !t.is_empty()) {
        Some(token) => server.tokens.authenticate(&token, server).map_err(|e| {
            tracing::debug!(reason = %e, "a token was not accepted");
            Status::unauthorized()
        }),
        // Who shows a certificate that does not count is no stranger, but mistaken.
        None if server.options.anonymous_auth && !peer.rejected => Ok(User::anonymous()),
        None => Err(Status::unauthorized()),
    }
}

/// Browsers can't set headers on a WebSocket; a token comes as a subprotocol (upstream's `base64url.bearer.`).
fn websocket_token(headers: &HeaderMap) -> Option<String> {
    use base64::Engine;
    let protocols = headers.get("sec-websocket-protocol")?.to_str().ok()?;
    let encoded =
        protocols.split(',').find_map(|p| p.trim().strip_prefix("base64url.bearer.authorization.k8s.io."))?;
    String::from_utf8(base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}

/// `Impersonate-User` and its kin, for those who may.
fn impersonate(server: &Server, user: User, headers: &HeaderMap) -> Result<User, Status> {
    let text = |v: &HeaderValue| v.to_str().unwrap_or_default().to_string();
    let name = headers.get("impersonate-user").map(text);
    let groups: Vec<String> = headers.get_all("impersonate-group").iter().map(text).collect();
    let uid = headers.get("impersonate-uid").map(text);
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (header, value) in headers {
        if let Some(key) = header.as_str().strip_prefix("impersonate-extra-") {
            let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
            extra.entry(key).or_default().push(text(value));
        }
    }
    let Some(name) = name else {
        if groups.is_empty() && uid.is_none() && extra.is_empty() {
            return Ok(user);
        }
        return Err(Status::bad_request("requested groups, uid or extra without impersonating a user"));
    };
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
            path: "",
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
    let mut become_user = User {
        name: name.clone(),
        uid: uid.clone().unwrap_or_default(),
        groups: groups.clone(),
        extra: extra.clone(),
    };
    match name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
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
    if let Some(uid) = &uid {
        check("authentication.k8s.io", "uids", "", "", uid)?;
    }
    for (key, values) in &extra {
        for value in values {
            check("authentication.k8s.io", "userextras", key, "", value)?;
        }
    }
    let everyone = if name == "system:anonymous" { auth::UNAUTHENTICATED } else { auth::AUTHENTICATED };
    if !become_user.is_in(everyone) {
        become_user.groups.push(everyone.into());
    }
    Ok(become_user)
}

fn authorize(server: &Server, user: &User, info: &RequestInfo) -> Result<(), Status> {
    let asked = Attributes {
        verb: &info.verb,
        is_resource: info.is_resource,
        group: &info.group,
        version: &info.version,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        path: &info.path,
    };
    let why = match server.authorizers.authorize(user, &asked, server) {
        Decision::Allow => return Ok(()),
        Decision::Deny(why) | Decision::NoOpinion(why) => why,
    };
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    if !info.is_resource {
        return Err(Status::forbidden(
            &GroupResource::new("", ""),
            "",
            format!("User {:?} cannot {} path {:?}{why}", user.name, info.verb, info.path),
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
        "User {:?} cannot {} resource {resource:?} in API group {:?} {scope}{why}",
        user.name, info.verb, info.group
    );
    Err(Status::forbidden(&info.group_resource(), &info.name, message))
}

fn json_answer(value: &Value) -> Answer {
    Ok(respond::bytes(200, "application/json", serde_json::to_vec(value).map_err(verbs::internal)?))
}

/// Paths that are no resources.
async fn other_path(
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
            let address = format!(
                "https://{}:{}/openid/v1/jwks",
                server.options.advertised(),
                server.options.secure_port
            );
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
