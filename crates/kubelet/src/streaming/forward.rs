//! Port-forward for WebSocket clients: newer ones tunnel a whole SPDY connection, older ones use two channels
//! for each port.

use super::websocket::{self, Framing, Incoming, Protocol, Socket};
use super::{StreamError, spdy};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Method, Request};
use std::collections::HashMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

/// The tunnel's name in the handshake.
pub const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// What runtimes are asked to speak.
const PROTOCOL: &str = "portforward.k8s.io";
const WAITING: usize = 16;

/// What port-forward is offered as beside the tunnel.
pub const CHANNELS: [Protocol; 4] = [
    Protocol { name: "v4.channel.k8s.io", framing: Framing::Binary, version: 4 },
    Protocol { name: "v4.base64.channel.k8s.io", framing: Framing::Base64, version: 4 },
    Protocol { name: "channel.k8s.io", framing: Framing::Binary, version: 1 },
    Protocol { name: "", framing: Framing::Binary, version: 1 },
];

/// Passes the bytes of a tunnelled SPDY connection to the runtime and back.
pub async fn tunnel(socket: Socket, url: &str) -> Result<(), StreamError> {
    let request = Request::builder()
        .method(Method::POST)
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .header("x-stream-protocol-version", PROTOCOL);
    let (mut sink, mut source) = socket.split();
    let (io, _) = match spdy::upgrade(url, request).await {
        Ok(up) => up,
        Err(e) => {
            let _ = websocket::close(&mut sink).await;
            return Err(e);
        }
    };
    let (mut read, mut write) = tokio::io::split(io);
    let to_runtime = async {
        while let Some(Ok(m)) = source.next().await {
            match m {
                Message::Binary(data) => write.write_all(&data).await?,
                Message::Close(_) => break,
                _ => {}
            }
        }
        write.shutdown().await?;
        Ok::<(), StreamError>(())
    };
    let to_client = async {
        let mut bytes = vec![0; 32 << 10];
        loop {
            let n = read.read(&mut bytes).await?;
            if n == 0 {
                return websocket::close(&mut sink).await;
            }
            let data = Bytes::copy_from_slice(bytes.get(..n).unwrap_or_default());
            sink.send(Message::Binary(data)).await?;
        }
    };
    tokio::select! {
        done = to_runtime => done,
        done = to_client => done,
    }
}

/// Serves `ports` over channels: the n-th port has channel 2n for bytes and 2n+1 for errors.
pub async fn channels(
    socket: Socket,
    protocol: Protocol,
    url: &str,
    ports: &[u16],
) -> Result<(), StreamError> {
    let (mut sink, mut source) = socket.split();
    let (mut runtime, _) = match spdy::connect(url, &[PROTOCOL]).await {
        Ok(c) => c,
        Err(e) => {
            let _ = websocket::close(&mut sink).await;
            return Err(e);
        }
    };
    let (send, mut queue) = mpsc::channel::<(u8, Bytes)>(WAITING);
    let mut writers = HashMap::new();
    let mut readers = tokio::task::JoinSet::new();
    for (n, port) in ports.iter().enumerate().take(64) {
        let (text, id) = (port.to_string(), n.to_string());
        let headers = |kind| [("streamtype", kind), ("port", text.as_str()), ("requestid", id.as_str())];
        let error = runtime.open(&headers("error")).await?;
        let data = runtime.open(&headers("data")).await?;
        let channel = 2 * n as u8;
        writers.insert(channel, data.writer());
        for (mut stream, channel) in [(data, channel), (error, channel + 1)] {
            let send = send.clone();
            // each channel begins with the port it is for
            let hello = Bytes::copy_from_slice(&port.to_le_bytes());
            readers.spawn(async move {
                let mut next = Some(hello);
                while let Some(data) = next {
                    if send.send((channel, data)).await.is_err() {
                        return;
                    }
                    next = stream.read().await;
                }
            });
        }
    }
    drop(send);
    let from_client = async {
        loop {
            match websocket::next(&mut source, protocol.framing).await {
                Incoming::Data(channel, data) => {
                    if let Some(w) = writers.get(&channel) {
                        w.write(data).await;
                    }
                }
                Incoming::Gone => return Ok(()),
                _ => {}
            }
        }
    };
    let to_client = async {
        while let Some((channel, data)) = queue.recv().await {
            sink.send(websocket::message(protocol.framing, channel, &data)).await?;
        }
        websocket::close(&mut sink).await
    };
    let ended = tokio::select! {
        done = from_client => done,
        done = to_client => done,
    };
    readers.shutdown().await;
    drop(writers);
    runtime.close().await;
    ended
}
