//! Whether the server works, for who asks over HTTP.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

const CONNECTIONS: usize = 64;

/// Serves until shutdown: `/health` says that the server runs, `/ready` that it knows the cluster.
pub async fn serve(listener: TcpListener, ready: Arc<AtomicBool>, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            a = listener.accept() => a,
            () = shutdown.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await; // out of file descriptors
            continue;
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let (ready, shutdown) = (ready.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _slot = slot;
            let service = service_fn(move |r: Request<Incoming>| {
                let (status, body) = match r.uri().path() {
                    "/health" | "/healthz" | "/livez" => (StatusCode::OK, "OK"),
                    "/ready" | "/readyz" if ready.load(Ordering::Relaxed) => (StatusCode::OK, "OK"),
                    "/ready" | "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, "the cluster is not known yet"),
                    _ => (StatusCode::NOT_FOUND, "404 page not found\n"),
                };
                let mut answer = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
                *answer.status_mut() = status;
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
