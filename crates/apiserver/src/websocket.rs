//! Answers over WebSocket, for browsers: logs as they are written, watches event by event. Upstream's protocols
//! `binary.k8s.io` and `base64.binary.k8s.io`. Channels of exec and its kin are the kubelet's.

use crate::body::Body;
use crate::verbs::Answer;
use api::Status;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// What a client may send: it has nothing to say.
const MAX_MESSAGE: usize = 64 << 10;

/// What becomes one message.
#[derive(Clone, Copy, PartialEq)]
pub enum Unit {
    /// Bytes as they come.
    Chunk,
    /// A line of JSON, as text.
    Line,
}

/// Whether this client wants to speak WebSocket.
pub fn is_asked_for(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Sends an answer's body over the WebSocket that the client asked for, instead of as it is.
pub fn send(headers: &HeaderMap, upgrade: hyper::upgrade::OnUpgrade, body: Body, unit: Unit) -> Answer {
    let bad = |what: &str| Status::bad_request(format!("unable to upgrade: {what}"));
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or_else(|| bad("Sec-WebSocket-Key is missing"))?;
    let offered: Vec<&str> = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        // A credential, not a protocol.
        .filter(|p| !p.is_empty() && !p.starts_with("base64url.bearer.authorization.k8s.io."))
        .collect();
    let chosen = offered.iter().find(|p| matches!(**p, "binary.k8s.io" | "base64.binary.k8s.io"));
    if chosen.is_none() && !offered.is_empty() {
        return Err(bad("none of the protocols is known: binary.k8s.io and base64.binary.k8s.io are"));
    }
    let base64 = chosen.is_some_and(|p| p.starts_with("base64"));
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let set = answer.headers_mut();
    set.insert(UPGRADE, HeaderValue::from_static("websocket"));
    set.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let accept = derive_accept_key(key.as_bytes());
    set.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&accept).map_err(|e| bad(&e.to_string()))?);
    if let Some(Ok(protocol)) = chosen.map(|p| HeaderValue::from_str(p)) {
        set.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE));
            let io = TokioIo::new(upgraded);
            let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
            pump(socket, body, unit, base64).await;
        }
    });
    Ok(answer)
}

async fn pump(
    socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
    mut body: Body,
    unit: Unit,
    base64: bool,
) {
    let (mut sink, mut stream) = socket.split();
    let mut line = Vec::new();
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            heard = stream.next() => match heard {
                // Pings are answered while reading.
                Some(Ok(message)) if !message.is_close() => continue,
                _ => return,
            },
        };
        let Some(Ok(frame)) = frame else { break };
        let Ok(data) = frame.into_data() else { continue };
        let mut messages: Vec<Message> = Vec::new();
        match unit {
            Unit::Chunk => messages.push(message(data, base64)),
            Unit::Line => {
                for part in data.split_inclusive(|b| *b == b'\n') {
                    line.extend_from_slice(part);
                    if part.ends_with(b"\n") {
                        line.pop();
                        let whole = Bytes::from(std::mem::take(&mut line));
                        messages.push(
                            Utf8Bytes::try_from(whole.clone())
                                .map_or_else(|_| Message::Binary(whole), Message::Text),
                        );
                    }
                }
            }
        }
        for message in messages {
            if sink.send(message).await.is_err() {
                return;
            }
        }
    }
    let _ = sink.send(Message::Close(None)).await;
    let _ = sink.close().await;
}

fn message(data: Bytes, base64: bool) -> Message {
    if base64 { Message::Text(STANDARD.encode(&data).into()) } else { Message::Binary(data) }
}
