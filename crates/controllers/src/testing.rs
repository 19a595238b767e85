//! An API server that is a map, for tests of whole controllers: it lists, watches, creates, replaces, merges and
//! deletes, and remembers what it was asked. It validates nothing.

use crate::health::Health;
use crate::{Config, Context};
use bytes::Bytes;
use client::{Client, Metrics};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

type Body = BoxBody<Bytes, Infallible>;

/// Where an object is: its collection over all namespaces, its namespace and its name.
type Key = (String, String, String);

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    /// Every change: its collection, the type of event, the object.
    log: Vec<(String, &'static str, Value)>,
    asked: Vec<String>,
}

/// The server. Clones share it.
#[derive(Clone, Default)]
pub struct Api(Arc<(Mutex<State>, Notify)>);

/// `/apis/apps/v1/namespaces/ns/statefulsets/w/status` taken apart.
struct Path {
    collection: String,
    namespace: String,
    name: Option<String>,
    part: Option<String>,
}

fn path(text: &str) -> Path {
    let mut words = text.trim_matches('/').split('/');
    let root: Vec<&str> = words.by_ref().take(if text.starts_with("/api/") { 2 } else { 3 }).collect();
    let mut rest: Vec<String> = words.map(String::from).collect();
    let mut namespace = String::new();
    if rest.len() > 2 && rest[0] == "namespaces" {
        namespace = rest[1].clone();
        rest.drain(..2);
    }
    let mut rest = rest.into_iter();
    let collection = format!("/{}/{}", root.join("/"), rest.next().unwrap_or_default());
    Path { collection, namespace, name: rest.next(), part: rest.next() }
}

fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else { return *into = patch.clone() };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    for (key, value) in patch {
        match value {
            Value::Null => drop(into.as_object_mut().and_then(|m| m.remove(key))),
            value => merge(&mut into[key], value),
        }
    }
}

impl Api {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    /// Puts an object where it belongs, and tells watchers.
    pub fn put(&self, collection: &str, mut object: Value) -> Value {
        let text =
            |v: &Value, at: &str| v.pointer(at).and_then(Value::as_str).unwrap_or_default().to_string();
        let mut state = self.state();
        if text(&object, "/metadata/uid").is_empty() {
            object["metadata"]["uid"] = format!("uid-{}", state.log.len()).into();
        }
        if text(&object, "/metadata/name").is_empty() {
            let name = format!("{}{}", text(&object, "/metadata/generateName"), state.log.len());
            object["metadata"]["name"] = name.into();
        }
        object["metadata"]["resourceVersion"] = (state.log.len() + 1).to_string().into();
        let key =
            (collection.to_string(), text(&object, "/metadata/namespace"), text(&object, "/metadata/name"));
        let kind = if state.objects.insert(key, object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        state.log.push((collection.into(), kind, object.clone()));
        self.0.1.notify_waiters();
        object
    }

    /// Takes an object away, and tells watchers.
    pub fn remove(&self, collection: &str, namespace: &str, name: &str) -> Option<Value> {
        let mut state = self.state();
        let mut object = state.objects.remove(&(collection.into(), namespace.into(), name.into()))?;
        object["metadata"]["resourceVersion"] = (state.log.len() + 1).to_string().into();
        state.log.push((collection.into(), "DELETED", object.clone()));
        self.0.1.notify_waiters();
        Some(object)
    }

    /// An object.
    pub fn get(&self, collection: &str, namespace: &str, name: &str) -> Option<Value> {
        self.state().objects.get(&(collection.into(), namespace.into(), name.into())).cloned()
    }

    /// What it was asked, reading left out: `POST /api/v1/namespaces/ns/pods`.
    pub fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    /// The events that were recorded.
    pub fn events(&self) -> Vec<Value> {
        let state = self.state();
        state.objects.iter().filter(|(k, _)| k.0 == "/api/v1/events").map(|(_, v)| v.clone()).collect()
    }

    /// Waits until something is so.
    pub async fn until<R>(&self, what: &str, mut is: impl FnMut(&Api) -> Option<R>) -> R {
        for _ in 0..3000 {
            if let Some(found) = is(self) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not in time: {what}; asked {:#?}", self.asked());
    }

    /// What a controller is made from, over this server.
    pub async fn context(&self) -> Context {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let api = self.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let api = api.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |r| {
                        let api = api.clone();
                        async move { Ok::<_, Infallible>(api.answer(r).await) }
                    });
                    let builder = hyper::server::conn::http1::Builder::new();
                    let _ = builder.serve_connection(TokioIo::new(tcp), service).await;
                });
            }
        });
        let client = Client::new(client::Config::new(&format!("http://{address}"))).unwrap();
        let (metrics, health) = (Metrics::default(), Health::default());
        Context::new(client, Config::default(), metrics, health, CancellationToken::new()).unwrap()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let query = parts.uri.query().unwrap_or_default();
        if matches!(parts.uri.path(), "/api" | "/apis") {
            return json(200, &self.discovery(parts.uri.path() == "/api"));
        }
        let p = path(parts.uri.path());
        if parts.method != Method::GET && p.collection != "/api/v1/events" {
            self.state().asked.push(format!("{} {}", parts.method, parts.uri.path()));
        }
        if query.contains("watch=true") {
            let from = query.split('&').find_map(|q| q.strip_prefix("resourceVersion=")?.parse().ok());
            return self.watch(p.collection, from.unwrap_or_default());
        }
        let Some(name) = &p.name else {
            return match parts.method {
                Method::POST => self.create(&p, body),
                Method::GET => json(200, &self.list(&p)),
                _ => status(405, "MethodNotAllowed"),
            };
        };
        let Some(mut there) = self.get(&p.collection, &p.namespace, name) else {
            return status(404, "NotFound");
        };
        let held = |v: &Value| v["metadata"]["resourceVersion"].clone();
        match parts.method {
            Method::GET => json(200, &there),
            Method::DELETE => {
                self.remove(&p.collection, &p.namespace, name);
                json(200, &json!({"kind": "Status"}))
            }
            Method::PUT if held(&body) != held(&there) => status(409, "Conflict"),
            Method::PUT => {
                if p.part.as_deref() == Some("status") {
                    there["status"] = body["status"].clone();
                } else {
                    there = body;
                }
                json(200, &self.put(&p.collection, there))
            }
            _ => {
                merge(&mut there, &body);
                json(200, &self.put(&p.collection, there))
            }
        }
    }

    fn create(&self, p: &Path, body: Value) -> Response<Body> {
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        if self.get(&p.collection, &p.namespace, name).is_some() {
            return status(409, "AlreadyExists");
        }
        json(201, &self.put(&p.collection, body))
    }

    fn list(&self, p: &Path) -> Value {
        let state = self.state();
        let here = |k: &Key| k.0 == p.collection && (p.namespace.is_empty() || k.1 == p.namespace);
        let items: Vec<&Value> = state.objects.iter().filter(|(k, _)| here(k)).map(|(_, v)| v).collect();
        json!({"metadata": {"resourceVersion": state.log.len().to_string()}, "items": items})
    }

    fn watch(&self, collection: String, from: usize) -> Response<Body> {
        let next = futures::stream::unfold(
            (self.clone(), collection, from),
            |(api, collection, mut at)| async move {
                loop {
                    let changed = api.0.1.notified();
                    tokio::pin!(changed);
                    changed.as_mut().enable();
                    let found = api.state().log.get(at).cloned();
                    match found {
                        None => changed.await,
                        Some((of, kind, object)) => {
                            at += 1;
                            if of == collection {
                                let line = json!({"type": kind, "object": object}).to_string() + "\n";
                                return Some((
                                    Ok(Frame::data(Bytes::from(line))),
                                    (api.clone(), collection, at),
                                ));
                            }
                        }
                    }
                }
            },
        );
        Response::new(BodyExt::boxed(StreamBody::new(SyncStream(Mutex::new(Box::pin(next))))))
    }

    fn discovery(&self, core: bool) -> Value {
        let resource = |plural: &str, kind: &str, namespaced: bool| {
            json!({"resource": plural, "responseKind": {"kind": kind}, "scope": if namespaced { "Namespaced" } else { "Cluster" },
                "verbs": ["get", "list", "watch", "delete", "patch"]})
        };
        let (group, resources) = match core {
            true => ("", vec![resource("configmaps", "ConfigMap", true)]),
            false => ("rbac.authorization.k8s.io", vec![resource("clusterroles", "ClusterRole", false)]),
        };
        json!({"items": [{"metadata": {"name": group}, "versions": [{"version": "v1", "freshness": "Current", "resources": resources}]}]})
    }
}

type Frames = std::pin::Pin<Box<dyn futures::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

/// A stream that is `Sync` because only its owner looks at it.
struct SyncStream(Mutex<Frames>);

impl futures::Stream for SyncStream {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.lock().unwrap().as_mut().poll_next(cx)
    }
}

fn json(code: u16, value: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

fn status(code: u16, reason: &str) -> Response<Body> {
    json(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": reason, "code": code}),
    )
}
