//! The road every request takes: who asks, may they, what for, and back.

use crate::access::Peer;
use crate::limits::{Held, Pace, Seat};
use crate::metrics::Counted;
use crate::negotiate::{self, Accepted, Format, View};
use crate::peers::Connected;
use crate::request::{self, Query, RequestInfo, Verb};
use crate::server::Server;
use crate::verbs::{self, Answer};
use crate::websocket::{self, Unit};
use crate::{access, compress, health, paths, respond, served};
use api::Status;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, STRICT_TRANSPORT_SECURITY, UPGRADE};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use resources::Subresource;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A body may be this large: upstream's limit, etcd's own being less.
const MAX_BODY: usize = 3 << 20;
/// So much of one that is larger is read all the same, while it comes: who is cut off while sending may not see
/// the answer.
const DISCARDED: usize = 16 << 20;
const STILL_COMING: Duration = Duration::from_millis(500);

/// Answers one request. It never fails: what goes wrong is a Status.
pub async fn handle(
    server: Arc<Server>,
    connected: Arc<Connected>,
    pace: Arc<Pace>,
    request: Request<Incoming>,
) -> Result<Response<Held>, Infallible> {
    let started = Instant::now();
    let peer = connected.peer(&server);
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
    let apply = negotiate::content_type(request.headers()) == "application/apply-patch+yaml";
    let counted = Counted::of(&server.catalog(), &info, query.text("dryRun").is_some(), apply);
    let gzip = compress::is_accepted(request.headers());
    let head = request.method() == Method::HEAD;
    let long = info.verb == Verb::Watch || verbs::connect::is_connect(&info.subresource);
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
    let goes_on = (long && response.status().is_success()).then(|| counted.goes_on(&server.metrics));
    counted.count(&server.metrics, response.status().as_u16(), started);
    let mut response = response;
    if let Some(value) = &server.hsts {
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, value.clone());
    }
    let response = if gzip { compress::gzip(response) } else { response };
    let response = if head { respond::without_body(response) } else { response };
    Ok(response.map(|body| Held::new(body, busy, seat).with(goes_on)))
}

async fn answer(
    server: Arc<Server>,
    peer: Arc<Peer>,
    info: Arc<RequestInfo>,
    query: Query,
    mut request: Request<Incoming>,
    seat: Option<&mut Seat>,
) -> Answer {
    if !server.cache.is_loaded() {
        return before_the_cache(&server, &peer, &info, &query, request).await;
    }
    let user = access::authenticate(&server, &peer, request.headers_mut())?;
    server.front_proxy.clear(request.headers_mut());
    let user = access::impersonate(&server, user, request.headers())?;
    access::authorize(&server, &user, &info)?;
    // Those who may do everything also have to when there is much to do; and whether the server is well can't wait.
    if let Some(seat) = seat
        && !user.is_in(auth::MASTERS)
        && !health::is_health(&info.path)
    {
        let anonymous = user.is_in(auth::UNAUTHENTICATED);
        let taken = server.seats.take(info.verb, anonymous).await;
        *seat = taken
            .ok_or_else(|| Status::too_many_requests("Too many requests, please try again later.", 1))?;
    }
    if !info.is_resource {
        return paths::answer(&server, &info, &query, &request).await;
    }
    let catalog = server.catalog();
    let resource =
        catalog.find(&info.group, &info.version, &info.resource).cloned().ok_or_else(Status::no_such_path)?;
    if resource.namespaced && info.namespace.is_empty() && !matches!(info.verb, Verb::List | Verb::Watch) {
        return Err(Status::method_not_supported(&resource.group_resource, info.verb.name()));
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
    let body = match info.verb {
        Verb::Get | Verb::List | Verb::Watch if !verbs::connect::is_connect(&info.subresource) => {
            Bytes::new()
        }
        _ => read_body(incoming, &parts.headers).await?,
    };
    let mut request = verbs::Request::new(server, info, query, parts.headers, user, resource, accepted);
    request.raw_query = parts.uri.query().map(Into::into);
    if !verbs::connect::is_connect(&request.info.subresource) {
        request.options = verbs::options::Options::read(&request, &body)?;
    }
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

/// Until the cache is loaded nothing is there to be read: neither objects nor who may do what. Only whether the server
/// is well can be said.
async fn before_the_cache(
    server: &Arc<Server>,
    peer: &Peer,
    info: &RequestInfo,
    query: &Query,
    request: Request<Incoming>,
) -> Answer {
    if !health::is_health(&info.path) {
        return Err(Status::too_many_requests("storage is (re)initializing", 1));
    }
    if !peer.is_known() && !server.options.anonymous_auth() {
        return Err(Status::unauthorized());
    }
    paths::answer(server, info, query, &request).await
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
        if info.verb != Verb::Create || !info.name.is_empty() {
            return Err(Status::method_not_supported(&request.face.group_resource, info.verb.name()));
        }
        return review(request, body).await;
    }
    if request.resource.kind.verbs() == resources::Verbs::Computed {
        return served::component_status::answer(request).await;
    }
    // Collections are made into and read; objects, which have a name, are read and changed.
    match (info.verb, info.name.is_empty()) {
        (Verb::Get, false) => verbs::get::get(request).await,
        (Verb::List, _) => verbs::list::list(request).await,
        (Verb::Watch, _) => {
            let answer = verbs::watch::watch(request.clone()).await?;
            match upgrade {
                Some(upgrade) if websocket::is_asked_for(&request.headers) => {
                    websocket::send(&request.headers, upgrade, answer.into_body(), Unit::Line)
                }
                _ => Ok(answer),
            }
        }
        (Verb::Create, true) => verbs::create::create(request, body).await,
        (Verb::Update, false) => verbs::update::update(request, body, None).await,
        (Verb::Patch, false) => verbs::patch::patch(request, body, None).await,
        (Verb::Delete, false) => verbs::delete::delete(request).await,
        (Verb::DeleteCollection, true) => verbs::delete::delete_collection(request.clone()).await,
        (verb, _) => Err(Status::method_not_supported(&request.face.group_resource, verb.name())),
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
