//! Streams between clients and containers: exec, attach, port-forward. Container runtimes speak SPDY/3.1;
//! so do older clients, whose bytes pass through untouched ([`proxy`]). Newer ones speak WebSocket, which is
//! translated: several streams over channels ([`remote`]), or a SPDY connection in a tunnel ([`forward`]).
//! [`spdy`] is the client side of SPDY, [`websocket`] the server side of WebSocket. Knows no pods.

pub mod forward;
pub mod proxy;
pub mod remote;
pub mod spdy;
pub mod websocket;

use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use std::io;

/// The body of an answer.
pub type Body = BoxBody<bytes::Bytes, io::Error>;

/// Why streams could not be set up or broke off.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The runtime gave an address that is none.
    #[error("the runtime's streaming address {0:?} cannot be used")]
    Address(String),
    /// A connection failed.
    #[error("streaming connection failed")]
    Io(#[from] io::Error),
    /// HTTP failed.
    #[error("streaming request failed")]
    Http(#[from] hyper::Error),
    /// The runtime did not take the upgrade.
    #[error("the runtime answered {status}: {body}")]
    Refused {
        /// With this status.
        status: StatusCode,
        /// And this text.
        body: String,
    },
    /// Bytes that are no SPDY.
    #[error("SPDY: {0}")]
    Spdy(&'static str),
    /// Bytes that are no WebSocket messages.
    #[error("WebSocket failed")]
    WebSocket(#[from] tokio_tungstenite::tungstenite::Error),
}

/// A short text as an answer.
pub fn text(status: StatusCode, message: impl Into<String>) -> Response<Body> {
    let body = Full::new(bytes::Bytes::from(message.into())).map_err(|e| match e {}).boxed();
    let mut r = Response::new(body);
    *r.status_mut() = status;
    r.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain; charset=utf-8"));
    r
}

/// An empty body.
pub fn empty() -> Body {
    Full::new(bytes::Bytes::new()).map_err(|e| match e {}).boxed()
}

/// Whether a request asks for an upgrade to a protocol, whatever the letters' case.
pub fn wants_upgrade<B>(req: &Request<B>, protocol: &str) -> bool {
    let has = |name: &str, want: &str| {
        let values = req.headers().get_all(name).into_iter().filter_map(|v| v.to_str().ok());
        values.flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case(want))
    };
    has("connection", "upgrade") && has("upgrade", protocol)
}
