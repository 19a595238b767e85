//! TLS without a client around it, for tests that misbehave on purpose: bytes of HTTP/1.1, frames of HTTP/2.

use crate::{Cluster, TOKEN};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

/// A TLS connection.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// What HTTP/2 connections begin with: the preface, and settings that keep every default.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Connects, and has shaken hands when it returns.
pub fn connect(cluster: &Cluster, protocols: &[&str]) -> Tls {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .dangerous()
        .with_custom_certificate_verifier(pki::any_server())
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session = ClientConnection::new(Arc::new(config), name).expect("a session");
    let mut stream = TcpStream::connect(cluster.address()).expect("the server listens");
    stream.set_read_timeout(Some(crate::PATIENCE)).expect("a time limit");
    stream.set_write_timeout(Some(crate::PATIENCE)).expect("a time limit");
    while session.is_handshaking() {
        session.complete_io(&mut stream).expect("the server shakes hands");
    }
    StreamOwned::new(session, stream)
}

/// A request's head, without the line that ends it.
pub fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut text =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text
}

/// All there is to read, until the other side ends or breaks off.
pub fn rest(stream: &mut Tls) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), [0; 16 << 10]);
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        all.extend_from_slice(&buffer[..n]);
    }
    all
}

/// Code and text of an answer.
pub fn code(answer: &[u8]) -> (u16, String) {
    let text = String::from_utf8_lossy(answer).into_owned();
    let code = text.split(' ').nth(1).and_then(|c| c.parse().ok()).unwrap_or(0);
    (code, text)
}

/// One request of HTTP/1.1 on a connection of its own.
pub fn ask(
    cluster: &Cluster,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (u16, String) {
    let mut stream = connect(cluster, &["http/1.1"]);
    let length = body.len().to_string();
    let mut headers = headers.to_vec();
    headers.push(("Connection", "close"));
    if !body.is_empty() {
        headers.push(("Content-Length", &length));
    }
    let head = head(method, path, &headers) + "\r\n";
    // Who is refused early may be cut off while it sends; the answer is there all the same.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let _ = stream.flush();
    code(&rest(&mut stream))
}

/// A connection of HTTP/2, frame by frame.
pub struct Http2(pub Tls);

/// A frame: type, flags, stream and payload.
pub type Frame = (u8, u8, u32, Vec<u8>);

/// Frame types.
pub const DATA: u8 = 0;
/// A stream begins, or its answer.
pub const HEADERS: u8 = 1;
/// A stream is cut.
pub const RESET: u8 = 3;
/// What an end of the connection can bear.
pub const SETTINGS: u8 = 4;
/// The connection ends.
pub const GOAWAY: u8 = 7;
/// More of a stream's headers.
pub const CONTINUATION: u8 = 9;

impl Http2 {
    /// Connects, and sends the preface.
    pub fn connect(cluster: &Cluster) -> Self {
        let mut stream = connect(cluster, &["h2"]);
        stream.write_all(PREFACE).expect("the preface");
        Http2(stream)
    }

    /// Sends a frame.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.0.write_all(&frame)
    }

    /// Sends a GET on a stream.
    pub fn get(&mut self, stream: u32, path: &str) -> io::Result<()> {
        self.send(HEADERS, 5, stream, &get_block(path))
    }

    /// The next frame; an error at the end.
    pub fn frame(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok((head[3], head[4], stream, payload))
    }

    /// Frames up to the first that is looked for.
    pub fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> io::Result<Frame> {
        loop {
            let frame = self.frame()?;
            if wanted(&frame) {
                return Ok(frame);
            }
        }
    }

    /// How long a read may take.
    pub fn patience(&self, time: Duration) {
        self.0.sock.set_read_timeout(Some(time)).expect("a time limit");
    }
}

/// A literal header (HPACK, RFC 7541) whose name is not in the table.
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0];
    text(&mut block, name);
    text(&mut block, value);
    block
}

fn text(block: &mut Vec<u8>, value: &str) {
    let mut n = value.len();
    if n < 127 {
        block.push(n as u8);
    } else {
        block.push(127);
        n -= 127;
        while n >= 128 {
            block.push((n % 128) as u8 | 128);
            n /= 128;
        }
        block.push(n as u8);
    }
    block.extend_from_slice(value.as_bytes());
}

/// The header block of a GET by the administrator.
pub fn get_block(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x04]; // :method GET, :scheme https, :path
    text(&mut block, path);
    block.push(0x01); // :authority
    text(&mut block, "localhost");
    block.extend(literal("authorization", &format!("Bearer {TOKEN}")));
    block
}
