//! Exec and attach for WebSocket clients: channels on their side, SPDY streams on the runtime's.

use super::websocket::{self, Incoming, Protocol, Socket};
use super::{StreamError, spdy};
use bytes::Bytes;
use futures::SinkExt;
use futures::StreamExt;
use serde_json::Value;
use tokio::sync::mpsc;

/// Which streams a caller asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// It sends input.
    pub stdin: bool,
    /// It wants output.
    pub stdout: bool,
    /// It wants errors.
    pub stderr: bool,
    /// It is a terminal: errors come with the output.
    pub tty: bool,
}

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// How many messages may wait for a slow client; then the runtime waits.
const WAITING: usize = 16;

/// What the runtime is asked to speak: errors as Status objects.
const RUNTIME_PROTOCOLS: [&str; 1] = ["v4.channel.k8s.io"];

/// Connects a client to what the runtime serves at `url`, until either is done.
pub async fn run(socket: Socket, protocol: Protocol, url: &str, o: Options) -> Result<(), StreamError> {
    let (mut sink, mut source) = socket.split();
    let (mut runtime, _) = match spdy::connect(url, &RUNTIME_PROTOCOLS).await {
        Ok(c) => c,
        Err(e) => {
            let _ = sink
                .send(websocket::message(protocol.framing, ERROR, failure(&e.to_string()).as_bytes()))
                .await;
            let _ = websocket::close(&mut sink).await;
            return Err(e);
        }
    };
    let (send, mut queue) = mpsc::channel::<(u8, Bytes)>(WAITING);
    if protocol.version < 5 {
        // an empty message on the first channel it reads tells an older client that all is set up
        let first = if o.stdout {
            STDOUT
        } else if o.stderr && !o.tty {
            STDERR
        } else {
            ERROR
        };
        sink.send(websocket::message(protocol.framing, first, &[])).await?;
    }
    let mut readers = tokio::task::JoinSet::new();
    let mut error = runtime.open(&[("streamtype", "error")]).await?;
    let stdin = match o.stdin {
        true => Some(runtime.open(&[("streamtype", "stdin")]).await?),
        false => None,
    };
    for (wanted, name, channel) in [(o.stdout, "stdout", STDOUT), (o.stderr && !o.tty, "stderr", STDERR)] {
        if wanted {
            let mut stream = runtime.open(&[("streamtype", name)]).await?;
            let send = send.clone();
            readers.spawn(async move {
                while let Some(data) = stream.read().await {
                    if send.send((channel, data)).await.is_err() {
                        return;
                    }
                }
            });
        }
    }
    let resize = match o.tty {
        true => Some(runtime.open(&[("streamtype", "resize")]).await?),
        false => None,
    };
    drop(send);
    let (to_stdin, to_resize) =
        (stdin.as_ref().map(spdy::Stream::writer), resize.as_ref().map(spdy::Stream::writer));
    let from_client = async {
        loop {
            match websocket::next(&mut source, protocol.framing).await {
                Incoming::Data(STDIN, data) => {
                    if let Some(w) = &to_stdin
                        && !data.is_empty()
                    {
                        w.write(data).await;
                    }
                }
                Incoming::Data(RESIZE, data) => {
                    if let Some(w) = &to_resize {
                        w.write(data).await;
                    }
                }
                Incoming::Close(STDIN) => {
                    if let Some(w) = &to_stdin {
                        w.finish().await;
                    }
                }
                Incoming::Gone => return,
                _ => {}
            }
        }
    };
    let to_client = async {
        while let Some((channel, data)) = queue.recv().await {
            sink.send(websocket::message(protocol.framing, channel, &data)).await?;
        }
        // all output has been sent: what is left is how it ended
        let mut verdict = Vec::new();
        while let Some(data) = error.read().await {
            verdict.extend_from_slice(&data);
        }
        if let Some(text) = verdict_for(protocol, &verdict) {
            sink.send(websocket::message(protocol.framing, ERROR, text.as_bytes())).await?;
        }
        websocket::close(&mut sink).await
    };
    let ended = tokio::select! {
        () = from_client => Ok(()),
        done = to_client => done,
    };
    readers.shutdown().await;
    drop((stdin, resize, to_stdin, to_resize));
    runtime.close().await;
    ended
}

/// How it ended, in the words of the client's protocol.
fn verdict_for(protocol: Protocol, status: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(status).into_owned();
    if protocol.version >= 4 {
        // newer clients are told in every case
        return Some(if text.is_empty() { r#"{"metadata":{},"status":"Success"}"#.into() } else { text });
    }
    let parsed: Value = serde_json::from_str(&text).unwrap_or_default();
    match parsed.get("status").and_then(Value::as_str) {
        Some("Success") => None,
        Some(_) => parsed.get("message").and_then(Value::as_str).map(str::to_owned),
        None => Some(text).filter(|t| !t.is_empty()),
    }
}

fn failure(message: &str) -> String {
    serde_json::json!({"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streaming::websocket::CHANNELS;

    #[test]
    fn verdicts() {
        let failed = br#"{"status":"Failure","message":"exit 3"}"#;
        assert_eq!(
            verdict_for(CHANNELS[0], failed).as_deref(),
            Some(r#"{"status":"Failure","message":"exit 3"}"#)
        );
        assert_eq!(verdict_for(CHANNELS[3], failed).as_deref(), Some("exit 3"));
        assert_eq!(verdict_for(CHANNELS[3], br#"{"status":"Success"}"#), None);
        assert!(verdict_for(CHANNELS[1], b"").is_some_and(|v| v.contains("Success")));
    }
}
