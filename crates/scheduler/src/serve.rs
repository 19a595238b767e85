//! Health and metrics, with TLS.

use crate::config::Options;
use crate::metrics::Metrics;
use bytes::Bytes;
use client::Client;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

const CONNECTIONS: usize = 64;
const LIMIT: Duration = Duration::from_secs(30);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The certificate can't be read or made.
    #[error("--tls-cert-file, --tls-private-key-file: {0}")]
    Certificate(#[from] pki::PkiError),
    /// TLS does not take it.
    #[error("--tls-cert-file: {0}")]
    Tls(#[from] rustls::Error),
}

/// TLS with the given certificate, or one that we make.
pub fn acceptor(o: &Options) -> Result<TlsAcceptor, ServeError> {
    let (certificate, key) = match (&o.tls_cert_file, &o.tls_private_key_file) {
        (Some(certificate), Some(key)) => (pki::files::read(certificate)?, pki::files::read(key)?),
        _ => {
            let subject = pki::ca::Subject {
                common_name: "kube-scheduler".into(),
                dns_names: vec!["localhost".into()],
                addresses: vec![std::net::Ipv4Addr::LOCALHOST.into()],
                ..pki::ca::Subject::default()
            };
            let (certificate, key) = pki::ca::self_signed(&subject, YEAR)?;
            (certificate.into_bytes(), key.into_bytes())
        }
    };
    let chain = pki::files::certificates(&certificate, "--tls-cert-file")?;
    let key = pki::files::private_key(&key, "--tls-private-key-file")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until shutdown.
pub async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    metrics: Arc<Metrics>,
    reviewer: Client,
    shutdown: CancellationToken,
) {
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
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue }; // too many: hang up
        let (tls, metrics, reviewer) = (tls.clone(), metrics.clone(), reviewer.clone());
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            let _slot = slot;
            let Ok(Ok(stream)) = tokio::time::timeout(LIMIT, tls.accept(stream)).await else { return };
            let service = service_fn(move |r: Request<Incoming>| {
                let (metrics, reviewer) = (metrics.clone(), reviewer.clone());
                async move { Ok::<_, Infallible>(answer(&r, &metrics, &reviewer).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(LIMIT)
                .serve_connection(TokioIo::new(stream), service);
            let _ = shutdown.run_until_cancelled(connection).await;
        });
    }
}

async fn answer(r: &Request<Incoming>, metrics: &Metrics, reviewer: &Client) -> Response<Full<Bytes>> {
    let path = r.uri().path();
    match path {
        "/healthz" | "/livez" | "/readyz" => text(StatusCode::OK, "ok"),
        "/metrics" => match may(r, reviewer).await {
            Ok(()) => {
                let mut answer = text(StatusCode::OK, metrics.text());
                let kind =
                    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
                answer.headers_mut().insert(CONTENT_TYPE, kind);
                answer
            }
            Err(status) => text(status, status.canonical_reason().unwrap_or_default()),
        },
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

/// The API server says who it is and whether they may.
async fn may(r: &Request<Incoming>, reviewer: &Client) -> Result<(), StatusCode> {
    let header = r.headers().get(AUTHORIZATION).and_then(|v| v.to_str().ok());
    let token = header.and_then(|h| h.strip_prefix("Bearer ")).ok_or(StatusCode::UNAUTHORIZED)?;
    let review = TokenReview {
        spec: TokenReviewSpec { token: token.into(), ..TokenReviewSpec::default() },
        ..TokenReview::default()
    };
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let review: TokenReview = reviewer.post(path, &review).await.map_err(|e| failed(&e))?;
    let status = review.status.unwrap_or_default();
    let user = status.user.filter(|_| status.authenticated == Some(true)).ok_or(StatusCode::UNAUTHORIZED)?;
    let access = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: user.username,
            groups: user.groups,
            uid: user.uid,
            extra: user.extra,
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some(r.uri().path().into()),
                verb: Some(r.method().as_str().to_lowercase()),
            }),
            resource_attributes: None,
        },
        ..SubjectAccessReview::default()
    };
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let access: SubjectAccessReview = reviewer.post(path, &access).await.map_err(|e| failed(&e))?;
    if access.status.is_some_and(|s| s.allowed) { Ok(()) } else { Err(StatusCode::FORBIDDEN) }
}

fn failed(e: &client::Error) -> StatusCode {
    tracing::warn!("cannot ask who may read metrics: {e}");
    StatusCode::INTERNAL_SERVER_ERROR
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
