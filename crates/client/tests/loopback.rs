//! The client against a small server in this process, over TLS.

use bytes::Bytes;
use client::{Client, Config, Error, Event, Informers, ListParams, ObjectExt, Patch};
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

type Body = BoxBody<Bytes, std::io::Error>;

/// What the server does with the next request for a path.
enum Reply {
    Json(u16, Value),
    Retry(u16, u64),
    /// A body whose parts the test sends.
    Stream(UnboundedReceiver<Result<Frame<Bytes>, std::io::Error>>),
}

#[derive(Default)]
struct Script {
    replies: VecDeque<Reply>,
    asked: Vec<String>,
    connections: usize,
}

#[derive(Clone, Default)]
struct Server(Arc<Mutex<Script>>);

impl Server {
    fn reply(&self, reply: Reply) -> &Self {
        self.0.lock().unwrap().replies.push_back(reply);
        self
    }

    fn watch(&self) -> UnboundedSender<Result<Frame<Bytes>, std::io::Error>> {
        let (to, from) = unbounded();
        self.reply(Reply::Stream(from));
        to
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }

    async fn start(&self) -> (Client, u16) {
        let subject = pki::ca::Subject {
            common_name: "server".into(),
            addresses: vec!["127.0.0.1".parse().unwrap()],
            ..Default::default()
        };
        let (certificate, key) = pki::ca::self_signed(&subject, Duration::from_secs(3600)).unwrap();
        let chain = pki::files::certificates(certificate.as_bytes(), "test").unwrap();
        let key = pki::files::private_key(key.as_bytes(), "test").unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, server) = (acceptor.clone(), server.clone());
                tokio::spawn(async move {
                    let Ok(io) = acceptor.accept(tcp).await else { return };
                    server.0.lock().unwrap().connections += 1;
                    let service = service_fn(move |r| {
                        let server = server.clone();
                        async move { Ok::<_, Infallible>(server.answer(r).await) }
                    });
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection_with_upgrades(TokioIo::new(io), service).await;
                });
            }
        });
        let config = Config::new(&format!("https://127.0.0.1:{port}/base"))
            .ca_pem(certificate.into_bytes())
            .token("tok")
            .user_agent("test");
        (Client::new(config).unwrap(), port)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let full = |s: &str| Full::new(Bytes::from(s.to_string())).map_err(|e| match e {}).boxed();
        assert_eq!(request.headers()[header::AUTHORIZATION], "Bearer tok");
        assert!(request.headers()[header::USER_AGENT].to_str().unwrap().starts_with("test/v"));
        if request.headers().contains_key(header::UPGRADE) {
            tokio::spawn(async move {
                let mut io = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
                let mut word = [0; 4];
                io.read_exact(&mut word).await.unwrap();
                io.write_all(&word).await.unwrap();
            });
            let response =
                Response::builder().status(101).header("connection", "upgrade").header("upgrade", "echo");
            return response.body(full("")).unwrap();
        }
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let kind = parts.headers.get(header::CONTENT_TYPE).filter(|_| parts.method == Method::PATCH);
        let kind = kind.map(|k| format!(" {}", k.to_str().unwrap())).unwrap_or_default();
        let mut script = self.0.lock().unwrap();
        let path = parts.uri.path_and_query().unwrap().as_str().to_string();
        // Watches end after a time of their own.
        let path = path.split("&timeoutSeconds").next().unwrap_or_default().to_string();
        script.asked.push(format!(
            "{} {path}{kind}{}",
            parts.method,
            if body.is_empty() { "" } else { " +" }
        ));
        match script.replies.pop_front() {
            None => Response::builder().status(500).body(full("no reply is left")).unwrap(),
            Some(Reply::Json(code, value)) => {
                Response::builder().status(code).body(full(&value.to_string())).unwrap()
            }
            Some(Reply::Retry(code, after)) => {
                Response::builder().status(code).header("retry-after", after).body(full("")).unwrap()
            }
            Some(Reply::Stream(from)) => Response::new(StreamBody::new(from).boxed()),
        }
    }
}

fn map(name: &str, version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "ns", "resourceVersion": version, "uid": name, "managedFields": [{"manager": "x"}]}})
}

fn list(items: &[Value], version: &str, cont: &str) -> Reply {
    Reply::Json(
        200,
        json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": version, "continue": cont}, "items": items}),
    )
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason, "message": "no", "code": code})
}

#[tokio::test]
async fn verbs_ask_for_the_right_paths() {
    let server = Server::default();
    let (client, _) = server.start().await;
    for _ in 0..5 {
        server.reply(Reply::Json(200, map("a", "1")));
    }
    let a: ConfigMap = client.get("ns", "a").await.unwrap();
    assert_eq!((a.name(), a.resource_version()), ("a", "1"));
    client.create(&a).await.unwrap();
    client.update_status(&a).await.unwrap();
    let apply = Patch::Apply { body: json!({}), field_manager: "m e".into(), force: true };
    client.patch::<ConfigMap>("ns", "a", &apply).await.unwrap();
    client.patch_subresource::<ConfigMap>("ns", "a", "scale", &Patch::Merge(json!({}))).await.unwrap();
    server.reply(list(&[map("a", "1")], "7", "next")).reply(list(&[map("b", "2")], "7", ""));
    let params =
        ListParams { label_selector: "a in (b)".into(), resource_version: "0".into(), ..Default::default() };
    let all = client.list_all::<ConfigMap>("", &params).await.unwrap();
    assert_eq!((all.items.len(), all.resource_version.as_str()), (2, "7"));
    server.reply(Reply::Json(200, status(200, "")));
    client.delete::<ConfigMap>("ns", "a", &Default::default()).await.unwrap();
    assert_eq!(
        server.asked(),
        [
            "GET /base/api/v1/namespaces/ns/configmaps/a",
            "POST /base/api/v1/namespaces/ns/configmaps +",
            "PUT /base/api/v1/namespaces/ns/configmaps/a/status +",
            "PATCH /base/api/v1/namespaces/ns/configmaps/a?fieldManager=m+e&force=true application/apply-patch+yaml +",
            "PATCH /base/api/v1/namespaces/ns/configmaps/a/scale application/merge-patch+json +",
            "GET /base/api/v1/configmaps?labelSelector=a+in+%28b%29&limit=500&resourceVersion=0",
            "GET /base/api/v1/configmaps?labelSelector=a+in+%28b%29&limit=500&continue=next",
            "DELETE /base/api/v1/namespaces/ns/configmaps/a +",
        ]
    );
    assert_eq!(server.0.lock().unwrap().connections, 1);
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let server = Server::default();
    let (client, _) = server.start().await;
    server
        .reply(Reply::Json(404, status(404, "NotFound")))
        .reply(Reply::Json(409, status(409, "AlreadyExists")));
    assert!(client.get_opt::<ConfigMap>("ns", "a").await.unwrap().is_none());
    assert!(client.get::<ConfigMap>("ns", "a").await.unwrap_err().is_already_exists());
    let e = client.get::<ConfigMap>("ns", "a").await.unwrap_err();
    assert_eq!((e.status().unwrap().code, e.to_string().as_str()), (500, "no reply is left"));
    server.reply(Reply::Retry(429, 0)).reply(Reply::Retry(503, 0)).reply(Reply::Json(200, map("a", "1")));
    assert!(client.get::<ConfigMap>("ns", "a").await.is_ok());
    assert!(matches!(client.get::<ConfigMap>("ns", "").await, Err(Error::Request(_))));
    assert!(matches!(client.get::<ConfigMap>("", "a").await, Err(Error::Request(_))));
    server.reply(Reply::Json(200, json!({"kind": "Secret", "apiVersion": "v1"})));
    assert!(matches!(client.get::<ConfigMap>("ns", "a").await, Err(Error::Decode { .. })));
}

fn line(kind: &str, object: Value) -> Result<Frame<Bytes>, std::io::Error> {
    Ok(Frame::data(Bytes::from(json!({"type": kind, "object": object}).to_string() + "\n")))
}

#[tokio::test]
async fn an_informer_survives_what_happens_to_watches() {
    let server = Server::default();
    let (client, _) = server.start().await;
    server.reply(list(&[map("a", "1"), map("b", "2")], "5", ""));
    let to = server.watch();
    let informers = Informers::new(client, CancellationToken::new());
    let maps = informers.informer::<ConfigMap>();
    let mut changes = informers.informer::<ConfigMap>().subscribe();
    maps.synced().await;
    assert!(maps.lister().get("ns", "a").is_some_and(|a| a.metadata.managed_fields.is_none()));
    assert!(matches!(changes.next().await, Event::Added(a) if a.name() == "a"));
    assert!(matches!(changes.next().await, Event::Added(b) if b.name() == "b"));

    // An event in two parts, two events in one.
    let Ok(frame) = line("MODIFIED", map("a", "6")) else { unreachable!() };
    let bytes = frame.into_data().unwrap();
    to.unbounded_send(Ok(Frame::data(bytes.slice(..20)))).unwrap();
    to.unbounded_send(Ok(Frame::data(bytes.slice(20..)))).unwrap();
    assert!(matches!(changes.next().await, Event::Updated(_, a) if a.resource_version() == "6"));
    to.unbounded_send(line("DELETED", map("b", "7"))).unwrap();
    assert!(matches!(changes.next().await, Event::Deleted(b) if b.name() == "b"));
    to.unbounded_send(line(
        "BOOKMARK",
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": "9"}}),
    ))
    .unwrap();

    // The connection breaks: the watch goes on from the bookmark.
    while maps.lister().resource_version() != "9" {
        tokio::task::yield_now().await;
    }
    let to2 = server.watch();
    to.unbounded_send(Err(std::io::Error::other("broken"))).unwrap();
    to2.unbounded_send(line("ADDED", map("c", "10"))).unwrap();
    assert!(matches!(changes.next().await, Event::Added(c) if c.name() == "c"));

    // The version is too old: everything is listed anew.
    server.reply(list(&[map("a", "6"), map("d", "12")], "13", ""));
    let to3 = server.watch();
    to2.unbounded_send(line("ERROR", status(410, "Expired"))).unwrap();
    assert!(matches!(changes.next().await, Event::Deleted(c) if c.name() == "c"));
    assert!(matches!(changes.next().await, Event::Added(d) if d.name() == "d"));
    to3.unbounded_send(line("ADDED", map("e", "14"))).unwrap();
    assert!(matches!(changes.next().await, Event::Added(e) if e.name() == "e"));
    assert_eq!(
        server.asked(),
        [
            "GET /base/api/v1/configmaps?limit=500&resourceVersion=0",
            "GET /base/api/v1/configmaps?resourceVersion=5&watch=true&allowWatchBookmarks=true",
            "GET /base/api/v1/configmaps?resourceVersion=9&watch=true&allowWatchBookmarks=true",
            "GET /base/api/v1/configmaps?limit=500",
            "GET /base/api/v1/configmaps?resourceVersion=13&watch=true&allowWatchBookmarks=true",
        ]
    );
}

#[tokio::test]
async fn requests_upgrade_to_other_protocols() {
    let server = Server::default();
    let (client, _) = server.start().await;
    let request = Request::post("/echo")
        .header("connection", "Upgrade")
        .header("upgrade", "echo")
        .body(Bytes::new())
        .unwrap();
    let (response, io) = client.upgrade(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut io = TokioIo::new(io);
    io.write_all(b"ping").await.unwrap();
    let mut word = [0; 4];
    io.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"ping");
}

#[tokio::test]
async fn many_watches_don_t_stop_other_requests() {
    let server = Server::default();
    let (client, _) = server.start().await;
    let mut open = Vec::new();
    for _ in 0..250 {
        let _to = server.watch();
        open.push((_to, client.watch::<ConfigMap>("", &ListParams::default(), "1").await.unwrap()));
    }
    server.reply(Reply::Json(200, map("a", "1")));
    assert!(client.get::<ConfigMap>("ns", "a").await.is_ok());
    assert_eq!(server.0.lock().unwrap().connections, 3);
}

/// What a server says that was put back to an earlier state, to those who know a later one.
fn too_large() -> Value {
    let mut value = status(504, "Timeout");
    value["message"] = json!("Timeout: Too large resource version: 900, current: 7");
    value["details"] =
        json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]});
    value
}

#[tokio::test]
async fn an_informer_survives_a_server_that_went_back() {
    let server = Server::default();
    let (client, _) = server.start().await;
    server.reply(list(&[map("a", "5"), map("b", "6")], "900", ""));
    let to = server.watch();
    let maps = Informers::new(client, CancellationToken::new()).informer::<ConfigMap>();
    let mut changes = maps.subscribe();
    for name in ["a", "b"] {
        assert!(matches!(changes.next().await, Event::Added(m) if m.name() == name));
    }
    // The watch ends, and the next is refused: at version 5 there is another state of `a` now.
    server.reply(Reply::Json(504, too_large()));
    let mut other = map("a", "5");
    other["data"] = json!({"k": "v"});
    server.reply(list(&[other], "7", ""));
    let to2 = server.watch();
    drop(to);
    assert!(matches!(changes.next().await, Event::Deleted(b) if b.name() == "b"));
    assert!(matches!(changes.next().await, Event::Updated(_, a) if a.data.is_some()));
    to2.unbounded_send(line("ADDED", map("c", "8"))).unwrap();
    assert!(matches!(changes.next().await, Event::Added(c) if c.name() == "c"));
    assert_eq!(
        server.asked()[2..],
        [
            "GET /base/api/v1/configmaps?resourceVersion=900&watch=true&allowWatchBookmarks=true",
            "GET /base/api/v1/configmaps?limit=500",
            "GET /base/api/v1/configmaps?resourceVersion=7&watch=true&allowWatchBookmarks=true",
        ]
    );
}

#[tokio::test]
async fn one_object_that_nobody_understands_does_not_hide_the_others() {
    let server = Server::default();
    let (client, _) = server.start().await;
    let mut odd = map("odd", "2");
    odd["data"] = json!({"k": {"not": "text"}});
    for _ in 0..2 {
        server.reply(list(&[map("a", "1"), odd.clone(), map("b", "3")], "5", ""));
    }
    let _to = server.watch();
    let maps = Informers::new(client, CancellationToken::new()).informer::<ConfigMap>();
    maps.synced().await;
    let names: Vec<String> = maps.lister().list().iter().map(|m| m.name().to_string()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[tokio::test]
async fn a_handler_that_panics_ends_the_daemon() {
    let server = Server::default();
    let (client, _) = server.start().await;
    server.reply(list(&[map("a", "1")], "5", ""));
    let shutdown = CancellationToken::new();
    let maps = Informers::new(client, shutdown.clone()).informer::<ConfigMap>();
    maps.on(|_| panic!("in a handler"));
    shutdown.cancelled().await;
}

#[tokio::test]
async fn metadata_comes_without_managed_fields() {
    let server = Server::default();
    let (client, _) = server.start().await;
    server.reply(list(&[map("a", "1")], "5", ""));
    let id = client::ResourceId {
        group: String::new(),
        version: "v1".into(),
        plural: "configmaps".into(),
        namespaced: true,
    };
    let page = client.page_metadata(&id, "ns", &ListParams::default()).await.unwrap();
    assert_eq!((page.items[0].name(), &page.items[0].metadata.managed_fields), ("a", &None));
}
