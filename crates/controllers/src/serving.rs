//! What the daemon itself serves over HTTPS: `/healthz` and its like to anyone, `/metrics` to those whom the
//! API server lets, be they known by a token or by a client certificate.

use crate::Error;
use crate::health::Health;
use crate::options::{File, Options};
use bytes::Bytes;
use client::{Client, Metrics};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use rustls::ServerConfig;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

const HEALTH: [&str; 3] = ["/healthz", "/livez", "/readyz"];
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections at a time; more wait to be accepted.
const CONNECTIONS: usize = 200;

#[derive(Clone)]
struct Gate {
    authentication: Client,
    authorization: Client,
    open: Arc<Vec<String>>,
    metrics: Metrics,
    health: Health,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct User {
    name: String,
    groups: Vec<String>,
}

fn flag(name: &str) -> impl Fn(&dyn std::fmt::Display) -> Error {
    move |e| Error::Other(format!("--{name}: {e}"))
}

/// Starts serving, until the guard is dropped or shutdown. Port 0 serves nothing.
pub async fn start(
    options: &Options,
    client: &Client,
    metrics: &Metrics,
    health: &Health,
    shutdown: CancellationToken,
) -> Result<DropGuard, Error> {
    let stop = shutdown.child_token();
    let guard = stop.clone().drop_guard();
    if options.secure_port == 0 {
        return Ok(guard);
    }
    let acceptor = TlsAcceptor::from(tls(options)?);
    let address = SocketAddr::new(options.bind_address, options.secure_port);
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| flag("secure-port")(&format!("cannot listen on {address}: {e}")))?;
    let own = |file: &File, name: &str| -> Result<Client, Error> {
        match file.path() {
            None => Ok(client.clone()),
            Some(path) => {
                let config = client::Config::from_kubeconfig_file(path).map_err(|e| flag(name)(&e))?;
                let own = Client::new(config.user_agent("kube-controller-manager"))?;
                Ok(own.metered(metrics))
            }
        }
    };
    let gate = Gate {
        authentication: own(&options.authentication_kubeconfig, "authentication-kubeconfig")?,
        authorization: own(&options.authorization_kubeconfig, "authorization-kubeconfig")?,
        open: Arc::new(options.authorization_always_allow_paths.clone()),
        metrics: metrics.clone(),
        health: health.clone(),
    };
    tokio::spawn(accept(listener, acceptor, gate, stop));
    Ok(guard)
}

fn tls(options: &Options) -> Result<Arc<ServerConfig>, Error> {
    let (certificate, key) = match (options.tls_cert_file.path(), options.tls_private_key_file.path()) {
        (Some(c), Some(k)) => (pki::files::read(c)?, pki::files::read(k)?),
        _ => {
            let subject = pki::ca::Subject {
                common_name: "kube-controller-manager".into(),
                dns_names: vec!["localhost".into()],
                addresses: vec![[127, 0, 0, 1].into()],
                organizations: Vec::new(),
            };
            let (c, k) = pki::ca::self_signed(&subject, Duration::from_secs(365 * 24 * 3600))?;
            (c.into_bytes(), k.into_bytes())
        }
    };
    let fault = flag("tls-cert-file");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| fault(&e))?;
    let builder = match options.client_ca_file.path() {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = pki::tls::client_verifier(&pki::files::read(path)?, "--client-ca-file")?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = pki::files::certificates(&certificate, "--tls-cert-file")?;
    let key = pki::files::private_key(&key, "--tls-private-key-file")?;
    let mut config = builder.with_single_cert(chain, key).map_err(|e| fault(&e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, gate: Gate, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(seat) = room.clone().acquire_owned().await else { return };
        let stream = match stop.run_until_cancelled(listener.accept()).await {
            None => return,
            Some(Ok((stream, _))) => stream,
            Some(Err(e)) => {
                tracing::warn!("cannot accept a connection: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, gate, stop) = (acceptor.clone(), gate.clone(), stop.clone());
        tokio::spawn(async move {
            stop.run_until_cancelled(connection(stream, acceptor, gate)).await;
            drop(seat);
        });
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, gate: Gate) {
    let Ok(Ok(io)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
    let certificate = io.get_ref().1.peer_certificates().and_then(|c| c.first()).map(|c| c.to_vec());
    let user = certificate.and_then(|der| user_of(&der));
    let service = service_fn(move |request| {
        let (gate, user) = (gate.clone(), user.clone());
        async move { Ok::<_, Infallible>(answer(request, gate, user).await) }
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(hyper_util::rt::TokioTimer::new()).header_read_timeout(HANDSHAKE);
    if let Err(e) = builder.serve_connection(TokioIo::new(io), service).await {
        tracing::debug!("a connection ended: {e}");
    }
}

/// Who a client certificate is for: its common name, and its organisations as groups.
fn user_of(der: &[u8]) -> Option<User> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let subject = certificate.subject();
    let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().unwrap_or_default().to_string();
    let mut groups: Vec<String> = subject.iter_organization().map(text).collect();
    groups.push("system:authenticated".into());
    Some(User { name: subject.iter_common_name().next().map(text)?, groups })
}

async fn answer(request: Request<Incoming>, gate: Gate, user: Option<User>) -> Response<Full<Bytes>> {
    let text = |code: StatusCode, kind: &str, body: String| {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = code;
        if let Ok(kind) = header::HeaderValue::from_str(kind) {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        response
    };
    let plain = |code: StatusCode, body: &str| text(code, "text/plain; charset=utf-8", body.into());
    let path = request.uri().path();
    if !gate
        .open
        .iter()
        .any(|open| open == path || open.strip_suffix('*').is_some_and(|p| path.starts_with(p)))
    {
        match gate.admit(&request, user).await {
            Ok(()) => {}
            Err(code) => {
                return plain(code, if code == StatusCode::FORBIDDEN { "Forbidden" } else { "Unauthorized" });
            }
        }
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    }
    match path {
        "/metrics" => text(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            crate::metrics::text(&gate.metrics),
        ),
        path if HEALTH
            .iter()
            .any(|h| path == *h || path.strip_prefix(h).is_some_and(|p| p.starts_with('/'))) =>
        {
            let verbose =
                request.uri().query().is_some_and(|q| q.split('&').any(|p| p.starts_with("verbose")));
            match gate.health.answer(path, verbose) {
                None => plain(StatusCode::NOT_FOUND, "404 page not found"),
                Some((true, body)) => plain(StatusCode::OK, &body),
                Some((false, body)) => plain(StatusCode::INTERNAL_SERVER_ERROR, &body),
            }
        }
        _ => plain(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

impl Gate {
    async fn admit(&self, request: &Request<Incoming>, user: Option<User>) -> Result<(), StatusCode> {
        let bearer = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok()?.strip_prefix("Bearer "));
        let user = match (user, bearer) {
            (Some(user), _) => user,
            (None, Some(token)) => self.of_token(token).await.ok_or(StatusCode::UNAUTHORIZED)?,
            (None, None) => {
                User { name: "system:anonymous".into(), groups: vec!["system:unauthenticated".into()] }
            }
        };
        if self.may(&user, request.method(), request.uri().path()).await {
            Ok(())
        } else {
            Err(StatusCode::FORBIDDEN)
        }
    }

    async fn of_token(&self, token: &str) -> Option<User> {
        let spec = TokenReviewSpec { token: token.trim().into(), audiences: None };
        let review = TokenReview { spec, ..TokenReview::default() };
        let review: TokenReview =
            match self.authentication.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await {
                Ok(review) => review,
                Err(e) => {
                    tracing::warn!("cannot check a token: {e}");
                    return None;
                }
            };
        let status = review.status.filter(|s| s.authenticated == Some(true))?;
        let user = status.user?;
        Some(User { name: user.username?, groups: user.groups.unwrap_or_default() })
    }

    async fn may(&self, user: &User, method: &Method, path: &str) -> bool {
        if user.groups.iter().any(|g| g == "system:masters") {
            return true;
        }
        let verb = method.as_str().to_ascii_lowercase();
        let attributes = NonResourceAttributes { path: Some(path.into()), verb: Some(verb) };
        let spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            groups: Some(user.groups.clone()),
            non_resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        match self.authorization.post::<_, SubjectAccessReview>(path, &review).await {
            Ok(review) => review.status.is_some_and(|s| s.allowed),
            Err(e) => {
                tracing::warn!("cannot ask whether {} may: {e}", user.name);
                false
            }
        }
    }
}
