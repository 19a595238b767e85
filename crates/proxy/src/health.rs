//! What others may ask: whether the proxy works, whether a service has endpoints here, metrics.

use crate::metrics::Metrics;
use crate::tables::ServiceKey;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How many may ask at once.
const CONNECTIONS: usize = 64;

/// A path's answer.
pub type Answer = Response<Full<Bytes>>;

/// What is known of the proxy's health.
pub struct Health {
    state: Mutex<State>,
    /// A change that waits longer than this to be programmed means that something is wrong.
    limit: Duration,
}

struct State {
    queued: Option<Instant>,
    eligible: bool,
    local: BTreeMap<ServiceKey, usize>,
}

impl Health {
    pub fn new(limit: Duration) -> Self {
        let state = State { queued: Some(Instant::now()), eligible: true, local: BTreeMap::new() };
        Health { state: Mutex::new(state), limit }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// There is something to program.
    pub fn queued(&self) {
        self.state().queued.get_or_insert_with(Instant::now);
    }

    /// All that was queued is programmed.
    pub fn updated(&self) {
        self.state().queued = None;
    }

    /// Whether load balancers should send anything to this node.
    pub fn set_eligible(&self, eligible: bool) {
        self.state().eligible = eligible;
    }

    fn set_local(&self, local: BTreeMap<ServiceKey, usize>) {
        self.state().local = local;
    }

    fn healthy(&self) -> bool {
        let state = self.state();
        state.queued.is_none_or(|since| since.elapsed() < self.limit)
    }

    /// `/healthz` and `/livez`; the first also says no while the node is to be removed.
    fn answer(&self, path: &str) -> Answer {
        let (healthy, eligible) = (self.healthy(), self.state().eligible);
        let now = api::time::now().0;
        let body = match path {
            "/healthz" => {
                format!(
                    "{{\"lastUpdated\": \"{now}\",\"currentTime\": \"{now}\",\"nodeEligible\":{eligible}}}"
                )
            }
            _ => format!("{{\"lastUpdated\": \"{now}\",\"currentTime\": \"{now}\"}}"),
        };
        json(healthy && (eligible || path == "/livez"), body)
    }

    fn service_answer(&self, key: &ServiceKey) -> Answer {
        let healthy = self.healthy();
        let local = self.state().local.get(key).copied().unwrap_or(0);
        let (namespace, name) = key;
        let body = format!(
            "{{\"service\":{{\"namespace\":\"{namespace}\",\"name\":\"{name}\"}},\"localEndpoints\":{local},\"serviceProxyHealthy\":{healthy}}}"
        );
        let mut answer = json(local > 0 && healthy, body);
        answer.headers_mut().insert("x-load-balancing-endpoint-weight", local.into());
        answer
    }
}

fn json(ok: bool, body: String) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    headers.insert("x-content-type-options", http::HeaderValue::from_static("nosniff"));
    answer
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// Answers on the health address.
pub fn health_answers(health: Arc<Health>) -> impl Fn(&str) -> Answer + Send + Sync + 'static {
    move |path| match path {
        "/healthz" | "/livez" => health.answer(path),
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

/// Answers on the metrics address.
pub fn metrics_answers(metrics: Arc<Metrics>) -> impl Fn(&str) -> Answer + Send + Sync + 'static {
    move |path| match path {
        "/metrics" => {
            let mut answer = text(StatusCode::OK, metrics.text());
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
            answer
        }
        "/proxyMode" => text(StatusCode::OK, "iptables"),
        "/healthz" => text(StatusCode::OK, "ok"),
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

/// Serves until shutdown.
pub async fn serve(
    listener: TcpListener,
    answers: impl Fn(&str) -> Answer + Send + Sync + 'static,
    shutdown: CancellationToken,
) {
    let (answers, slots) = (Arc::new(answers), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let accepted = tokio::select! {
            a = listener.accept() => a,
            () = shutdown.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await; // out of file descriptors
            continue;
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue }; // too many: hang up
        let (answers, shutdown) = (answers.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _slot = slot;
            let service = service_fn(move |r: Request<Incoming>| {
                let answer = answers(r.uri().path());
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(30))
                .serve_connection(TokioIo::new(stream), service);
            shutdown.run_until_cancelled(connection).await
        });
    }
}

/// The servers that tell load balancers whether a service has endpoints on this node.
#[derive(Default)]
pub struct ServiceHealth {
    servers: BTreeMap<ServiceKey, (u16, CancellationToken)>,
}

impl ServiceHealth {
    /// Listens where `wanted` says, with the numbers of local endpoints, and nowhere else.
    pub async fn sync(
        &mut self,
        wanted: BTreeMap<ServiceKey, (u16, usize)>,
        health: &Arc<Health>,
        shutdown: &CancellationToken,
    ) {
        self.servers.retain(|key, (port, stop)| {
            let keep = wanted.get(key).is_some_and(|(p, _)| p == port);
            if !keep {
                stop.cancel();
            }
            keep
        });
        for (key, (port, _)) in &wanted {
            if self.servers.contains_key(key) {
                continue;
            }
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port));
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    let stop = shutdown.child_token();
                    let (health, of) = (health.clone(), key.clone());
                    tokio::spawn(serve(listener, move |_: &str| health.service_answer(&of), stop.clone()));
                    self.servers.insert(key.clone(), (*port, stop));
                }
                Err(e) => {
                    tracing::warn!("cannot serve health checks of {}/{} on port {port}: {e}", key.0, key.1)
                }
            }
        }
        health.set_local(wanted.into_iter().map(|(key, (_, local))| (key, local)).collect());
    }
}
