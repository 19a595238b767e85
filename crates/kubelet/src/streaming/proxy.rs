//! Upgraded connections passed through: the client's SPDY is the runtime's SPDY.

use super::{Body, StreamError, empty, spdy, text};
use http::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tracing::debug;

/// Headers that belong to the hop, and those that the runtime has no business with.
const DROPPED: [&str; 5] = ["host", "authorization", "content-length", "transfer-encoding", "cookie"];

/// Makes the client's request at `url` and, when it is upgraded there, connects both ends.
pub async fn pass<B>(mut req: Request<B>, url: &str) -> Response<Body>
where
    B: Send + 'static,
{
    let mut request = Request::builder().method(req.method().clone());
    for (k, v) in req.headers() {
        if !DROPPED.contains(&k.as_str()) {
            request = request.header(k, v);
        }
    }
    let (io, headers) = match spdy::upgrade(url, request).await {
        Ok(up) => up,
        Err(StreamError::Refused { status, body }) => return text(status, body),
        Err(e) => {
            return text(
                StatusCode::BAD_GATEWAY,
                format!("{e}: {}", std::error::Error::source(&e).map(|s| s.to_string()).unwrap_or_default()),
            );
        }
    };
    let client = hyper::upgrade::on(&mut req);
    tokio::spawn(async move {
        let mut runtime = io;
        match client.await {
            Ok(client) => {
                let mut client = TokioIo::new(client);
                if let Err(e) = tokio::io::copy_bidirectional(&mut client, &mut runtime).await {
                    debug!(error = %e, "a stream broke off");
                }
            }
            Err(e) => debug!(error = %e, "a client did not take its upgrade"),
        }
    });
    let mut r = Response::new(empty());
    *r.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *r.headers_mut() = headers;
    r
}
