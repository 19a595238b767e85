//! What the kubelet serves: on its main port over TLS to callers it knows, on a read-only port without, and a
//! health check on the loopback. Start at [`Server::serve`]; [`routes`] lists the paths.

pub mod auth;
mod container_logs;
mod files;
pub mod logs;
mod metrics;
mod rates;
mod routes;
mod stats;
mod streams;
pub mod tls;

use crate::context::Context;
use crate::pods::Pods;
use crate::streaming::{Body, text};
use auth::{Caller, Gate};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

/// How long a caller may take over its handshake or its headers.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections that a port serves at a time; more wait.
const MAX_CONNECTIONS: usize = 1000;

/// Serves the kubelet's API.
pub struct Server {
    pub(crate) cx: Arc<Context>,
    pub(crate) pods: Arc<Pods>,
    gate: Gate,
    rates: rates::Rates,
    started: i64,
}

/// Which of the ports a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Main,
    ReadOnly,
    Health,
}

impl Server {
    /// For the pods of this node.
    pub fn new(cx: Arc<Context>, pods: Arc<Pods>, gate: Gate) -> Arc<Self> {
        let started = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0);
        Arc::new(Server { cx, pods, gate, rates: Default::default(), started })
    }

    /// Serves on all ports that are configured, until dropped.
    pub async fn serve(self: Arc<Self>, tls: Arc<tls::ServingCertificate>) {
        let c = &self.cx.config;
        let mut tasks = tokio::task::JoinSet::new();
        if c.enable_server {
            tasks.spawn(self.clone().listen(SocketAddr::new(c.address, c.port), Port::Main, Some(tls)));
            if c.read_only_port != 0 {
                tasks.spawn(self.clone().listen(
                    SocketAddr::new(c.address, c.read_only_port),
                    Port::ReadOnly,
                    None,
                ));
            }
        }
        if let Some((ip, port)) = c.healthz {
            tasks.spawn(self.clone().listen(SocketAddr::new(ip, port), Port::Health, None));
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn listen(self: Arc<Self>, at: SocketAddr, port: Port, tls: Option<Arc<tls::ServingCertificate>>) {
        let mut pause = Duration::from_millis(100);
        let listener = loop {
            match TcpListener::bind(at).await {
                Ok(l) => break l,
                Err(e) => {
                    warn!(%at, error = %e, "cannot listen yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
            }
        };
        info!(%at, ?port, "serving");
        // callers of one port never take those of another away
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((s, _)) => s,
                Err(e) => {
                    debug!(error = %e, "a connection was lost before it began");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            let (server, tls) = (self.clone(), tls.clone());
            connections.spawn(async move {
                server.connection(stream, port, tls).await;
                drop(slot);
            });
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        port: Port,
        tls: Option<Arc<tls::ServingCertificate>>,
    ) {
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else {
            return self.http(TokioIo::new(stream), port, None).await;
        };
        let accepted = tokio::time::timeout(PATIENCE, tls.acceptor().accept(stream)).await;
        match accepted {
            Ok(Ok(stream)) => {
                let caller = stream
                    .get_ref()
                    .1
                    .peer_certificates()
                    .and_then(|c| c.first())
                    .and_then(|c| auth::from_certificate(c));
                self.http(TokioIo::new(stream), port, caller).await;
            }
            Ok(Err(e)) => debug!(error = %e, "TLS handshake failed"),
            Err(_) => debug!("a caller did not finish its TLS handshake"),
        }
    }

    async fn http<I>(self: Arc<Self>, io: I, port: Port, caller: Option<Caller>)
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let service = service_fn(move |req| {
            let (server, caller) = (self.clone(), caller.clone());
            async move { Ok::<_, Infallible>(server.answer(req, port, caller).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(100)
            .keep_alive_interval(Duration::from_secs(60));
        if let Err(e) = builder.serve_connection_with_upgrades(io, service).await {
            debug!(error = %e, "a connection ended badly");
        }
    }

    async fn answer(
        self: Arc<Self>,
        req: Request<Incoming>,
        port: Port,
        caller: Option<Caller>,
    ) -> Response<Body> {
        let Some(route) = routes::find(req.method(), req.uri().path()) else {
            // who may ask nothing is not told either what there is not
            if port == Port::Main
                && let Err(refusal) = self.gate.admit(&req, caller, &["proxy"]).await
            {
                return *refusal;
            }
            return text(StatusCode::NOT_FOUND, "404 page not found\n");
        };
        match port {
            Port::Health if !route.is_health() => return text(StatusCode::NOT_FOUND, "404 page not found\n"),
            Port::ReadOnly if !route.is_read_only() => {
                return text(StatusCode::NOT_FOUND, "404 page not found\n");
            }
            Port::Main => {
                if let Err(refusal) = self.gate.admit(&req, caller, &route.subresources()).await {
                    return *refusal;
                }
                if route.is_debugging() && !self.cx.config.debugging_handlers {
                    return text(StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.\n");
                }
            }
            _ => {}
        }
        self.handle(req, route).await
    }
}
