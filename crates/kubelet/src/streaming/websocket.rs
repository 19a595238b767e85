//! The server side of WebSocket, with Kubernetes' way of putting several streams on one connection: the first
//! byte of each message names its channel.

use super::{Body, StreamError, empty};
use base64::Engine;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Message, handshake::derive_accept_key};

/// The largest message taken from a client.
const MAX_MESSAGE: usize = 1 << 20;

/// A WebSocket after its handshake.
pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// How channels are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The channel as a byte, then bytes.
    Binary,
    /// The channel as a digit, then base64.
    Base64,
}

/// What a client and this server agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// As headers name it; empty for the oldest clients, which name none.
    pub name: &'static str,
    /// How channels are written.
    pub framing: Framing,
    /// From 4 on errors are Status objects, from 5 on single channels can be closed.
    pub version: u8,
}

/// What exec and attach are offered as, newest first.
pub const CHANNELS: [Protocol; 6] = [
    Protocol { name: "v5.channel.k8s.io", framing: Framing::Binary, version: 5 },
    Protocol { name: "v4.channel.k8s.io", framing: Framing::Binary, version: 4 },
    Protocol { name: "v4.base64.channel.k8s.io", framing: Framing::Base64, version: 4 },
    Protocol { name: "channel.k8s.io", framing: Framing::Binary, version: 1 },
    Protocol { name: "base64.channel.k8s.io", framing: Framing::Base64, version: 1 },
    Protocol { name: "", framing: Framing::Binary, version: 1 },
];

/// The protocols a client offers, in its order.
pub fn offered<B>(req: &Request<B>) -> Vec<&str> {
    let values = req.headers().get_all("sec-websocket-protocol").into_iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(str::trim).filter(|p| !p.is_empty()).collect()
}

/// The first of the client's protocols that this server speaks.
pub fn choose<B>(req: &Request<B>, known: &[Protocol]) -> Option<Protocol> {
    let offered = offered(req);
    let find = |name: &str| known.iter().find(|k| k.name == name).copied();
    if offered.is_empty() { find("") } else { offered.into_iter().find_map(find) }
}

/// The answer that takes the handshake; the socket follows from [`accept`]'s upgrade.
pub fn handshake<B>(req: &Request<B>, protocol: &str) -> Option<Response<Body>> {
    let key = req.headers().get("sec-websocket-key")?;
    let mut r = Response::new(empty());
    *r.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let h = r.headers_mut();
    h.insert("upgrade", HeaderValue::from_static("websocket"));
    h.insert("connection", HeaderValue::from_static("Upgrade"));
    h.insert("sec-websocket-accept", HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()?);
    if !protocol.is_empty() {
        h.insert("sec-websocket-protocol", HeaderValue::from_str(protocol).ok()?);
    }
    Some(r)
}

/// The socket on a connection whose upgrade is done.
pub async fn accept(upgraded: Upgraded) -> Socket {
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await
}

/// A message on a channel.
pub fn message(framing: Framing, channel: u8, data: &[u8]) -> Message {
    match framing {
        Framing::Binary => Message::Binary([&[channel], data].concat().into()),
        Framing::Base64 => {
            let text = base64::engine::general_purpose::STANDARD.encode(data);
            Message::Text(format!("{}{text}", char::from(b'0' + channel % 10)).into())
        }
    }
}

/// What a client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Bytes on a channel.
    Data(u8, Bytes),
    /// A channel has no more.
    Close(u8),
    /// It hung up.
    Gone,
    /// Nothing to act on.
    Nothing,
}

/// Reads one message.
pub fn read(framing: Framing, m: Message) -> Incoming {
    let raw: Bytes = match m {
        Message::Binary(b) => b,
        Message::Text(t) => t.into(),
        Message::Close(_) => return Incoming::Gone,
        _ => return Incoming::Nothing,
    };
    let Some(channel) = raw.first().copied() else { return Incoming::Nothing };
    let rest = raw.slice(1..);
    match framing {
        Framing::Binary if channel == 255 => rest.first().map_or(Incoming::Nothing, |c| Incoming::Close(*c)),
        Framing::Binary => Incoming::Data(channel, rest),
        Framing::Base64 => match base64::engine::general_purpose::STANDARD.decode(&rest) {
            Ok(data) if channel.is_ascii_digit() => Incoming::Data(channel - b'0', data.into()),
            _ => Incoming::Nothing,
        },
    }
}

/// The next message of a client.
pub async fn next(socket: &mut futures::stream::SplitStream<Socket>, framing: Framing) -> Incoming {
    match socket.next().await {
        Some(Ok(m)) => read(framing, m),
        Some(Err(_)) | None => Incoming::Gone,
    }
}

/// Says goodbye in good order.
pub async fn close(sink: &mut futures::stream::SplitSink<Socket, Message>) -> Result<(), StreamError> {
    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    sink.send(Message::Close(Some(frame))).await?;
    sink.close().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels() {
        for framing in [Framing::Binary, Framing::Base64] {
            assert_eq!(
                read(framing, message(framing, 2, b"abc")),
                Incoming::Data(2, Bytes::from_static(b"abc"))
            );
        }
        assert_eq!(read(Framing::Binary, Message::Binary(vec![255, 0].into())), Incoming::Close(0));
        assert_eq!(read(Framing::Binary, Message::Binary(Bytes::new())), Incoming::Nothing);
        assert_eq!(read(Framing::Base64, Message::Text("x".into())), Incoming::Nothing);
    }

    #[test]
    fn the_clients_order_counts() {
        let choice = |offer: &str| {
            let mut r = Request::get("/");
            if !offer.is_empty() {
                r = r.header("sec-websocket-protocol", offer);
            }
            r.body(()).ok().and_then(|r| choose(&r, &CHANNELS)).map(|p| p.name)
        };
        assert_eq!(choice("v5.channel.k8s.io, v4.channel.k8s.io"), Some("v5.channel.k8s.io"));
        assert_eq!(choice("x, channel.k8s.io"), Some("channel.k8s.io"));
        assert_eq!(choice(""), Some(""));
        assert_eq!(choice("x"), None);
    }
}
