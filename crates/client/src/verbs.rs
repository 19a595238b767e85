//! The client, and the verbs on typed objects.

use crate::body::ResponseBody;
use crate::connection::Connections;
use crate::dynamic::PartialObject;
use crate::error::Error;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::object::{Object, ObjectExt};
use crate::token::TokenSource;
use crate::{Config, WatchStream};
use api::Status;
use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');
const JSON: &str = "application/json";
/// How often a request is sent again that the server asked to send again.
const TRIES: usize = 10;
/// Objects are at most a few MB, but lists are large.
const PAGE: u32 = 500;

/// Talks to one API server. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    connections: Arc<Connections>,
    config: Arc<Config>,
    limits: Limits,
    metrics: Option<Metrics>,
}

/// What becomes of an object in a list that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// The list can't be had.
    Fails,
    /// It is left out, which is told.
    Skipped,
}

/// What a list or watch is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ListParams {
    /// Only objects with such labels.
    pub label_selector: String,
    /// Only objects with such fields.
    pub field_selector: String,
    /// At most so many at once; 0 for all.
    pub limit: u32,
    /// Where the last page ended.
    pub cont: String,
    /// How new it must be; empty for the newest, `0` for whatever is at hand.
    pub resource_version: String,
}

impl ListParams {
    /// Only objects with such labels.
    pub fn labels(selector: impl Into<String>) -> Self {
        ListParams { label_selector: selector.into(), ..Self::default() }
    }

    /// Only objects with such fields.
    pub fn fields(selector: impl Into<String>) -> Self {
        ListParams { field_selector: selector.into(), ..Self::default() }
    }

    pub(crate) fn query(&self) -> Vec<(&'static str, String)> {
        let limit = if self.limit == 0 { String::new() } else { self.limit.to_string() };
        let mut pairs = vec![
            ("labelSelector", self.label_selector.clone()),
            ("fieldSelector", self.field_selector.clone()),
            ("limit", limit),
            ("continue", self.cont.clone()),
            ("resourceVersion", self.resource_version.clone()),
        ];
        pairs.retain(|(_, v)| !v.is_empty());
        pairs
    }
}

/// A page of a collection, or all of it.
#[derive(Clone, Debug)]
pub struct List<T> {
    /// The objects.
    pub items: Vec<T>,
    /// The collection's resource version.
    pub resource_version: String,
    /// Where the next page starts; empty if this is the last.
    pub cont: String,
}

#[derive(Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
struct RawList<T> {
    #[serde(default)]
    metadata: ListMeta,
    items: Option<Vec<T>>,
}

/// A change to an object.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902: a list of operations.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Lists are merged by their keys.
    Strategic(Value),
    /// Server-side apply.
    Apply {
        /// The fields that the manager wants.
        body: Value,
        /// Who owns them from now on.
        field_manager: String,
        /// Take them from others.
        force: bool,
    },
}

impl Patch {
    /// Its content type, query and body.
    pub(crate) fn parts(&self) -> (&'static str, Vec<(&'static str, String)>, &Value) {
        match self {
            Patch::Json(body) => ("application/json-patch+json", vec![], body),
            Patch::Merge(body) => ("application/merge-patch+json", vec![], body),
            Patch::Strategic(body) => ("application/strategic-merge-patch+json", vec![], body),
            Patch::Apply { body, field_manager, force } => (
                "application/apply-patch+yaml", // JSON is YAML
                vec![("fieldManager", field_manager.clone()), ("force", force.to_string())],
                body,
            ),
        }
    }
}

/// The path of a collection.
pub(crate) fn collection(group: &str, version: &str, plural: &str, namespace: &str) -> String {
    let mut path =
        if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    if !namespace.is_empty() {
        path.push_str("/namespaces/");
        path.extend(utf8_percent_encode(namespace, SEGMENT));
    }
    path.push('/');
    path.push_str(plural);
    path
}

/// The path of an object or a subresource of it.
pub(crate) fn item(mut path: String, name: &str, subresource: &str) -> Result<String, Error> {
    if name.is_empty() {
        return Err(Error::Request(format!("{path}: the object's name is empty")));
    }
    path.push('/');
    path.extend(utf8_percent_encode(name, SEGMENT));
    if !subresource.is_empty() {
        path.push('/');
        path.push_str(subresource);
    }
    Ok(path)
}

pub(crate) fn with_query(mut path: String, query: &[(&'static str, String)]) -> String {
    if !query.is_empty() {
        path.push('?');
        path.push_str(&form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish());
    }
    path
}

fn collection_of<T: Object>(namespace: &str) -> String {
    collection(T::GROUP, T::VERSION, T::URL_PATH_SEGMENT, if T::NAMESPACED { namespace } else { "" })
}

fn item_of<T: Object>(namespace: &str, name: &str, subresource: &str) -> Result<String, Error> {
    if T::NAMESPACED && namespace.is_empty() {
        return Err(Error::Request(format!("{} {name:?}: the namespace is empty", T::KIND)));
    }
    item(collection_of::<T>(namespace), name, subresource)
}

impl Client {
    /// A client. It connects with the first request.
    pub fn new(config: Config) -> Result<Client, Error> {
        Ok(Client {
            connections: Arc::new(Connections::new(&config)?),
            config: Arc::new(config),
            limits: Limits::default(),
            metrics: None,
        })
    }

    /// At most so many requests of this client and of all clones that are made from now on are under way at once,
    /// and what they answer is held in memory; the others wait. Watches and other streams don't count.
    pub fn bounded(mut self, in_flight: usize) -> Client {
        self.limits = self.limits.bounded(in_flight);
        self
    }

    /// Sends no more than so many requests a second, after so many at once, together with its clones.
    pub fn paced(mut self, per_second: f64, burst: u32) -> Client {
        self.limits = self.limits.paced(per_second, burst);
        self
    }

    /// Measures requests, its own and those of clones that are made from now on.
    pub fn metered(mut self, metrics: &Metrics) -> Client {
        self.metrics = Some(metrics.clone());
        self
    }

    /// What the client was made from.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The same server with another token and without our certificate. Connections are not shared with
    /// this client, since the server would go by the certificate, but with clones of the new one.
    pub fn with_token(&self, token: TokenSource) -> Result<Client, Error> {
        let new = Client::new(Config { token, ..self.config.anonymous() })?;
        Ok(Client { limits: self.limits.clone(), metrics: self.metrics.clone(), ..new })
    }

    /// The same connections with another token; for a client that has no certificate.
    pub fn sharing(&self, token: TokenSource) -> Client {
        let config = Config { token, ..(*self.config).clone() };
        Client { config: Arc::new(config), ..self.clone() }
    }

    /// The same connections under another program's name.
    pub fn named(&self, program: &str) -> Client {
        let config = (*self.config).clone().user_agent(program);
        Client { config: Arc::new(config), ..self.clone() }
    }

    /// One object.
    pub async fn get<T: Object>(&self, namespace: &str, name: &str) -> Result<T, Error> {
        self.call(Method::GET, item_of::<T>(namespace, name, "")?, JSON, Bytes::new()).await
    }

    /// One object, or none if it is not there.
    pub async fn get_opt<T: Object>(&self, namespace: &str, name: &str) -> Result<Option<T>, Error> {
        match self.get(namespace, name).await {
            Ok(found) => Ok(Some(found)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// A page of a collection; all of it if the parameters set no limit.
    pub async fn list<T: Object>(&self, namespace: &str, params: &ListParams) -> Result<List<T>, Error> {
        self.list_path(collection_of::<T>(namespace), params, JSON, Unreadable::Fails).await
    }

    /// All of a collection, in pages.
    pub async fn list_all<T: Object>(&self, namespace: &str, params: &ListParams) -> Result<List<T>, Error> {
        self.list_all_path(collection_of::<T>(namespace), params, JSON, Unreadable::Fails, |_| {}).await
    }

    /// Creates an object in the namespace it names.
    pub async fn create<T: Object>(&self, object: &T) -> Result<T, Error> {
        let path = collection_of::<T>(object.namespace());
        self.call(Method::POST, path, JSON, encode(object)?).await
    }

    /// Replaces an object.
    pub async fn update<T: Object>(&self, object: &T) -> Result<T, Error> {
        self.update_subresource(object, "").await
    }

    /// Replaces an object's status.
    pub async fn update_status<T: Object>(&self, object: &T) -> Result<T, Error> {
        self.update_subresource(object, "status").await
    }

    /// Replaces an object through a subresource of its own kind.
    pub async fn update_subresource<T: Object>(&self, object: &T, subresource: &str) -> Result<T, Error> {
        let path = item_of::<T>(object.namespace(), object.name(), subresource)?;
        self.call(Method::PUT, path, JSON, encode(object)?).await
    }

    /// Changes an object.
    pub async fn patch<T: Object>(&self, namespace: &str, name: &str, patch: &Patch) -> Result<T, Error> {
        self.patch_subresource(namespace, name, "", patch).await
    }

    /// Changes an object's status.
    pub async fn patch_status<T: Object>(
        &self,
        namespace: &str,
        name: &str,
        patch: &Patch,
    ) -> Result<T, Error> {
        self.patch_subresource(namespace, name, "status", patch).await
    }

    /// Changes an object through a subresource of its own kind.
    pub async fn patch_subresource<T: Object>(
        &self,
        namespace: &str,
        name: &str,
        subresource: &str,
        patch: &Patch,
    ) -> Result<T, Error> {
        let (content_type, query, body) = patch.parts();
        let path = with_query(item_of::<T>(namespace, name, subresource)?, &query);
        self.call(Method::PATCH, path, content_type, encode(body)?).await
    }

    /// Deletes an object, or begins to.
    pub async fn delete<T: Object>(
        &self,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(), Error> {
        let path = item_of::<T>(namespace, name, "")?;
        self.tell(Method::DELETE, path, encode(options)?).await
    }

    /// Deletes what the parameters select.
    pub async fn delete_collection<T: Object>(
        &self,
        namespace: &str,
        params: &ListParams,
        options: &DeleteOptions,
    ) -> Result<(), Error> {
        let path = with_query(collection_of::<T>(namespace), &params.query());
        self.tell(Method::DELETE, path, encode(options)?).await
    }

    /// Posts to a subresource of an object: a binding, an eviction, a token request.
    pub async fn create_subresource<T: Object, B: Serialize, R: DeserializeOwned>(
        &self,
        namespace: &str,
        name: &str,
        subresource: &str,
        body: &B,
    ) -> Result<R, Error> {
        self.call(Method::POST, item_of::<T>(namespace, name, subresource)?, JSON, encode(body)?).await
    }

    /// Posts to a path: reviews, which are no stored objects.
    pub async fn post<B: Serialize, R: DeserializeOwned>(&self, path: &str, body: &B) -> Result<R, Error> {
        self.call(Method::POST, path.into(), JSON, encode(body)?).await
    }

    /// Replaces what is at a path, such as a scale.
    pub async fn put_path<B: Serialize, R: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<R, Error> {
        self.call(Method::PUT, path.into(), JSON, encode(body)?).await
    }

    /// Watches a collection from a resource version on, over one request: it ends when the server ends it.
    pub async fn watch<T: Object>(
        &self,
        namespace: &str,
        params: &ListParams,
        resource_version: &str,
    ) -> Result<WatchStream<T>, Error> {
        self.watch_path(collection_of::<T>(namespace), params, resource_version, JSON).await
    }

    /// Sends any request; its URI is a path and query. Answers with whatever the server says.
    pub async fn raw(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Error> {
        let what = format!("{} {}", request.method(), request.uri());
        let (parts, body) = request.into_parts();
        let _seat = self.seat(&parts.method).await;
        let send = async {
            let (parts, body) = self.send(&parts, &body).await?.into_parts();
            let body = body.collect().await.map_err(|e| self.broken(&e))?.to_bytes();
            Ok(Response::from_parts(parts, body))
        };
        timeout(self.config.timeout, &what, send).await
    }

    /// Sends a request whose answer matters only if it is a refusal: a deletion's is all that was deleted.
    pub(crate) async fn tell(&self, method: Method, path: String, body: Bytes) -> Result<(), Error> {
        let what = format!("{method} {path}");
        let (parts, body) = self.request(&what, method, &path, JSON, JSON, body)?.into_parts();
        let _seat = self.seat(&parts.method).await;
        let send = async {
            let (parts, mut body) = self.send(&parts, &body).await?.into_parts();
            if !parts.status.is_success() {
                let text = body.collect().await.map_err(|e| self.broken(&e))?.to_bytes();
                return Err(refusal(parts.status, &text));
            }
            while let Some(frame) = body.frame().await {
                frame.map_err(|e| self.broken(&e))?;
            }
            Ok(())
        };
        timeout(self.config.timeout, &what, send).await
    }

    /// Waits until the limits allow a request.
    async fn seat(&self, method: &Method) -> Option<OwnedSemaphorePermit> {
        let asked = Instant::now();
        let seat = self.limits.seat().await;
        if let Some(metrics) = self.metrics.as_ref().filter(|_| self.limits.is_paced()) {
            metrics.limited(&self.connections.host_header(), method.as_str(), asked.elapsed());
        }
        seat
    }

    /// Sends any request and hands over the answer's body as it arrives.
    pub async fn stream(&self, request: Request<Bytes>) -> Result<Response<ResponseBody>, Error> {
        let what = format!("{} {}", request.method(), request.uri());
        let (parts, body) = request.into_parts();
        timeout(self.config.timeout, &what, self.send(&parts, &body)).await
    }

    /// Sends a request that asks for another protocol, over a connection of its own. Anything but
    /// 101 is an error.
    pub async fn upgrade(
        &self,
        request: Request<Bytes>,
    ) -> Result<(Response<()>, hyper::upgrade::Upgraded), Error> {
        let what = format!("{} {}", request.method(), request.uri());
        let (mut parts, body) = request.into_parts();
        parts.headers.insert(header::HOST, value(&self.connections.host_header())?);
        let mut response = timeout(self.config.timeout, &what, async {
            let request = self.prepare(&parts, &body).await?;
            self.connections.upgrade(request).await
        })
        .await?;
        if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            let code = response.status();
            let body = response.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
            return Err(refusal(code, &body));
        }
        let io = hyper::upgrade::on(&mut response).await.map_err(|e| self.broken(&e))?;
        Ok((response.map(drop), io))
    }

    pub(crate) fn broken(&self, e: &dyn std::fmt::Display) -> Error {
        Error::Transport { server: self.connections.server.clone(), reason: e.to_string() }
    }

    /// The request as it is sent: our headers, the server's path.
    async fn prepare(
        &self,
        parts: &http::request::Parts,
        body: &Bytes,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
        let mut request =
            Request::builder().method(parts.method.clone()).uri(format!("{}{path}", self.connections.prefix));
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&parts.headers);
            headers.entry(header::USER_AGENT).or_insert(value(&self.config.agent)?);
            if let Some(token) = self.config.token.get().await? {
                let mut bearer = value(&format!("Bearer {token}"))?;
                bearer.set_sensitive(true);
                headers.entry(header::AUTHORIZATION).or_insert(bearer);
            }
        }
        request.body(Full::new(body.clone())).map_err(|e| Error::Request(e.to_string()))
    }

    /// Sends a request, and again as long as the server asks for that.
    async fn send(
        &self,
        parts: &http::request::Parts,
        body: &Bytes,
    ) -> Result<Response<ResponseBody>, Error> {
        for attempt in 1.. {
            let mut request = self.prepare(parts, body).await?;
            if self.connections.server.starts_with("http://") {
                request.headers_mut().insert(header::HOST, value(&self.connections.host_header())?);
            }
            let began = Instant::now();
            let result = self.connections.send(request).await;
            if let Some(metrics) = &self.metrics {
                let code = result.as_ref().map_or("<error>".into(), |r| r.status().as_str().to_string());
                let (host, verb) = (self.connections.host_header(), parts.method.as_str());
                metrics.request(&host, verb, &code, began.elapsed(), attempt > 1);
            }
            let response = result?;
            let code = response.status();
            if code == http::StatusCode::UNAUTHORIZED {
                self.config.token.refused().await;
            }
            let wait =
                response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
            match wait {
                Some(seconds) if attempt < TRIES && (code.as_u16() == 429 || code.is_server_error()) => {
                    drop(response);
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                }
                _ => return Ok(response),
            }
        }
        unreachable!("the loop returns")
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        path: String,
        accept: &'static str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Bytes, Error> {
        let what = format!("{method} {path}");
        let response = self.raw(self.request(&what, method, &path, accept, content_type, body)?).await?;
        if response.status().is_success() {
            Ok(response.into_body())
        } else {
            Err(refusal(response.status(), response.body()))
        }
    }

    fn request(
        &self,
        what: &str,
        method: Method,
        path: &str,
        accept: &'static str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Request<Bytes>, Error> {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::ACCEPT, accept)
            .header(header::CONTENT_TYPE, content_type)
            .body(body)
            .map_err(|e| Error::Request(format!("{what}: {e}")))
    }

    async fn call<R: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<R, Error> {
        let what = path.clone();
        decode(&what, &self.ask(method, path, JSON, content_type, body).await?)
    }

    pub(crate) async fn list_path<T: DeserializeOwned>(
        &self,
        path: String,
        params: &ListParams,
        accept: &'static str,
        unreadable: Unreadable,
    ) -> Result<List<T>, Error> {
        let path = with_query(path, &params.query());
        let what = path.clone();
        let body = self.ask(Method::GET, path, accept, JSON, Bytes::new()).await?;
        let raw: RawList<T> = match unreadable {
            Unreadable::Fails => decode(&what, &body)?,
            Unreadable::Skipped => readable(&what, &body)?,
        };
        Ok(List {
            items: raw.items.unwrap_or_default(),
            resource_version: raw.metadata.resource_version.unwrap_or_default(),
            cont: raw.metadata.continue_.unwrap_or_default(),
        })
    }

    /// All of a collection, in pages; `each` is applied page by page, so that what it drops is never held for all.
    pub(crate) async fn list_all_path<T: DeserializeOwned>(
        &self,
        path: String,
        params: &ListParams,
        accept: &'static str,
        unreadable: Unreadable,
        each: fn(&mut T),
    ) -> Result<List<T>, Error> {
        let mut params =
            ListParams { limit: if params.limit == 0 { PAGE } else { params.limit }, ..params.clone() };
        let mut all: List<T> = self.list_path(path.clone(), &params, accept, unreadable).await?;
        all.items.iter_mut().for_each(each);
        while !all.cont.is_empty() {
            params.cont = std::mem::take(&mut all.cont);
            params.resource_version.clear(); // the continue token says it
            let mut page: List<T> = self.list_path(path.clone(), &params, accept, unreadable).await?;
            page.items.iter_mut().for_each(each);
            all.items.extend(page.items);
            (all.resource_version, all.cont) = (page.resource_version, page.cont);
        }
        Ok(all)
    }
}

/// The objects of a list that can be read.
fn readable<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<RawList<T>, Error> {
    let raw: RawList<Box<RawValue>> = decode(what, body)?;
    let one = |text: Box<RawValue>| match decode(what, text.get().as_bytes()) {
        Ok(object) => Some(object),
        Err(e) => {
            let name = serde_json::from_str::<PartialObject>(text.get()).map(|o| o.key().to_string());
            tracing::error!("{} is left out: {e}", name.unwrap_or_else(|_| "an object".into()));
            None
        }
    };
    let items = raw.items.map(|items| items.into_iter().filter_map(one).collect());
    Ok(RawList { metadata: raw.metadata, items })
}

pub(crate) fn encode(body: &impl Serialize) -> Result<Bytes, Error> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|e| Error::Request(e.to_string()))
}

pub(crate) fn decode<R: DeserializeOwned>(what: &str, body: &[u8]) -> Result<R, Error> {
    serde_json::from_slice(body)
        .or_else(|e| mended(body).ok_or(e))
        .map_err(|e| Error::Decode { what: what.into(), reason: e.to_string() })
}

/// What can be read once times that upstream prints as null are there.
pub(crate) fn mended<R: DeserializeOwned>(body: &[u8]) -> Option<R> {
    let mut value = serde_json::from_slice(body).ok()?;
    api::json::fill_condition_times(&mut value);
    R::deserialize(value).ok()
}

fn value(text: &str) -> Result<header::HeaderValue, Error> {
    header::HeaderValue::from_str(text)
        .map_err(|_| Error::Request("a header has a character it must not have".into()))
}

async fn timeout<T>(
    after: Duration,
    what: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(after, work).await.unwrap_or_else(|_| Err(Error::Timeout(what.into())))
}

/// The error for an answer that is no success: the server's Status, or one made from what it said.
pub(crate) fn refusal(code: http::StatusCode, body: &[u8]) -> Error {
    let status = serde_json::from_slice::<Status>(body).ok().filter(|s| s.kind == "Status" && s.code != 0);
    Error::Api(Box::new(status.unwrap_or_else(|| {
        let reason = match code.as_u16() {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            405 => "MethodNotAllowed",
            409 => "Conflict",
            410 => "Gone",
            422 => "Invalid",
            429 => "TooManyRequests",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            500 => "InternalError",
            _ => "",
        };
        let text: String = String::from_utf8_lossy(body).chars().take(1024).collect();
        let message = if text.trim().is_empty() {
            format!("the server answered {code}")
        } else {
            text.trim().to_string()
        };
        Status::failure(code.as_u16(), reason, message)
    })))
}
