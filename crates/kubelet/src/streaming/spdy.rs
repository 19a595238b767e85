//! SPDY/3.1 as container runtimes speak it: the client side, without flow control, which neither side of
//! Kubernetes' dialect uses. Start at [`connect`]; [`Connection::open`] makes streams.

use super::StreamError;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

/// How much one frame may carry here; larger ones are refused rather than buffered.
const MAX_FRAME: usize = 1 << 20;
/// How much unpacked headers may take.
const MAX_HEADERS: usize = 64 << 10;
/// Frames a stream may have waiting for its reader; then the connection waits, and with it the sender.
const WAITING_FRAMES: usize = 16;

/// The text that both sides' compressors start from.
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    const NAMES: &str = "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|\
        accept-ranges|age|allow|authorization|cache-control|connection|content-base|content-encoding|\
        content-language|content-length|content-location|content-md5|content-range|content-type|date|etag|expect|\
        expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|\
        location|max-forwards|pragma|proxy-authenticate|proxy-authorization|range|referer|retry-after|server|te|\
        trailer|transfer-encoding|upgrade|user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|\
        version|HTTP/1.1|url|public|set-cookie|keep-alive|origin";
    const REST: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
        203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
        403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
        Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
        chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,\
        text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
    let mut out = Vec::new();
    for name in NAMES.split('|') {
        out.put_u32(name.len() as u32);
        out.extend_from_slice(name.as_bytes());
    }
    out.extend_from_slice(REST.as_bytes());
    out
});

/// A frame, as far as this dialect has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A new stream.
    Open {
        /// Its number; odd ones are the client's.
        stream: u32,
        /// Names and values.
        headers: Vec<(String, String)>,
        /// The opener will send nothing on it.
        fin: bool,
    },
    /// The other side takes the stream.
    Reply {
        /// Its number.
        stream: u32,
        /// Nothing will come on it.
        fin: bool,
    },
    /// Bytes.
    Data {
        /// The stream's number.
        stream: u32,
        /// The bytes.
        data: Bytes,
        /// The last ones.
        fin: bool,
    },
    /// The stream is over at once.
    Reset {
        /// Its number.
        stream: u32,
    },
    /// To be sent back.
    Ping(u32),
    /// The connection is over.
    GoAway,
    /// Something that does not matter here.
    Other,
}

/// Writes frames; its compressor remembers all headers before.
pub struct Encoder {
    compress: Compress,
}

impl Encoder {
    /// For a new connection.
    pub fn new() -> Result<Self, StreamError> {
        let mut compress = Compress::new(Compression::default(), true);
        compress
            .set_dictionary(&DICTIONARY)
            .map_err(|_| StreamError::Spdy("the compressor refused its dictionary"))?;
        Ok(Encoder { compress })
    }

    /// Adds a frame to `out`.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) -> Result<(), StreamError> {
        let control = |out: &mut BytesMut, kind: u16, flags: u8, body: &[u8]| {
            out.put_u16(0x8003);
            out.put_u16(kind);
            out.put_u32(u32::from(flags) << 24 | body.len() as u32);
            out.extend_from_slice(body);
        };
        match frame {
            Frame::Open { stream, headers, fin } => {
                let mut body = Vec::new();
                body.put_u32(*stream);
                body.put_u32(0);
                body.put_u16(0);
                self.headers(headers, &mut body)?;
                control(out, 1, u8::from(*fin), &body);
            }
            Frame::Reply { stream, fin } => {
                let mut body = Vec::new();
                body.put_u32(*stream);
                self.headers(&[], &mut body)?;
                control(out, 2, u8::from(*fin), &body);
            }
            Frame::Data { stream, data, fin } => {
                out.put_u32(*stream & 0x7fff_ffff);
                out.put_u32(u32::from(*fin) << 24 | data.len() as u32);
                out.extend_from_slice(data);
            }
            Frame::Reset { stream } => {
                let mut body = Vec::new();
                body.put_u32(*stream);
                body.put_u32(5); // CANCEL
                control(out, 3, 0, &body);
            }
            Frame::Ping(id) => control(out, 6, 0, &id.to_be_bytes()),
            Frame::GoAway => control(out, 7, 0, &[0; 8]),
            Frame::Other => {}
        }
        Ok(())
    }

    fn headers(&mut self, headers: &[(String, String)], body: &mut Vec<u8>) -> Result<(), StreamError> {
        let mut plain = Vec::new();
        plain.put_u32(headers.len() as u32);
        for text in headers.iter().flat_map(|(k, v)| [k, v]) {
            plain.put_u32(text.len() as u32);
            plain.extend_from_slice(text.as_bytes());
        }
        let start = self.compress.total_in();
        loop {
            body.reserve(plain.len() + 64);
            let used = (self.compress.total_in() - start) as usize;
            let rest = plain.get(used..).unwrap_or_default();
            let before = body.len();
            self.compress
                .compress_vec(rest, body, FlushCompress::Sync)
                .map_err(|_| StreamError::Spdy("headers cannot be packed"))?;
            let all_in = (self.compress.total_in() - start) as usize >= plain.len();
            if all_in && body.len() < body.capacity() || body.len() == before {
                return Ok(());
            }
        }
    }
}

/// Reads frames.
pub struct Decoder {
    decompress: Decompress,
    buffer: BytesMut,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { decompress: Decompress::new(true), buffer: BytesMut::new() }
    }
}

impl Decoder {
    /// Takes in bytes as they came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, if all of it is here.
    pub fn decode(&mut self) -> Result<Option<Frame>, StreamError> {
        let Some(head) = self.buffer.get(..8) else { return Ok(None) };
        let mut head = head;
        let (first, second) = (head.get_u32(), head.get_u32());
        let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
        if length > MAX_FRAME {
            return Err(StreamError::Spdy("a frame is too large"));
        }
        if self.buffer.len() < 8 + length {
            return Ok(None);
        }
        self.buffer.advance(8);
        let mut body = self.buffer.split_to(length).freeze();
        let fin = flags & 1 != 0;
        if first & 0x8000_0000 == 0 {
            return Ok(Some(Frame::Data { stream: first, data: body, fin }));
        }
        if (first >> 16) & 0x7fff != 3 {
            return Err(StreamError::Spdy("the version is not 3"));
        }
        let short = StreamError::Spdy("a frame is cut short");
        let mut number = |need: usize| -> Result<u32, StreamError> {
            if body.len() < need.max(4) {
                Err(StreamError::Spdy("a frame is cut short"))
            } else {
                Ok(body.get_u32() & 0x7fff_ffff)
            }
        };
        Ok(Some(match first & 0xffff {
            1 => {
                let stream = number(10)?;
                if body.len() < 6 {
                    return Err(short);
                }
                body.advance(6);
                Frame::Open { stream, headers: self.headers(&body)?, fin }
            }
            2 => {
                let stream = number(4)?;
                self.headers(&body)?;
                Frame::Reply { stream, fin }
            }
            3 => Frame::Reset { stream: number(8)? },
            6 => Frame::Ping(number(4)?),
            7 => Frame::GoAway,
            8 => {
                number(4)?;
                self.headers(&body)?;
                Frame::Other
            }
            _ => Frame::Other,
        }))
    }

    /// Unpacks headers; every block has to pass through, as later ones build on it.
    fn headers(&mut self, packed: &[u8]) -> Result<Vec<(String, String)>, StreamError> {
        let bad = || StreamError::Spdy("headers cannot be unpacked");
        let mut plain: Vec<u8> = Vec::with_capacity(1024);
        let mut rest = packed;
        while !rest.is_empty() {
            if plain.len() == plain.capacity() {
                plain.reserve(1024);
            }
            let (taken, made) = (self.decompress.total_in(), plain.len());
            match self.decompress.decompress_vec(rest, &mut plain, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => break,
                Ok(_) => {}
                Err(e) if e.needs_dictionary().is_some() => {
                    self.decompress.set_dictionary(&DICTIONARY).map_err(|_| bad())?;
                }
                Err(_) => return Err(bad()),
            }
            let used = (self.decompress.total_in() - taken) as usize;
            rest = rest.get(used..).unwrap_or_default();
            if plain.len() > MAX_HEADERS {
                return Err(StreamError::Spdy("headers are too large"));
            }
            if used == 0
                && plain.len() == made
                && plain.len() < plain.capacity()
                && self.decompress.total_in() > 6
            {
                break;
            }
        }
        pairs(&plain).ok_or_else(bad)
    }
}

/// Names and values: a count, and then each with its length before it.
fn pairs(mut text: &[u8]) -> Option<Vec<(String, String)>> {
    let count = text.try_get_u32().ok()?;
    let mut word = || {
        let length = text.try_get_u32().ok()? as usize;
        let (w, after) = text.split_at_checked(length)?;
        text = after;
        Some(String::from_utf8_lossy(w).into_owned())
    };
    let mut out = Vec::new();
    for _ in 0..count {
        out.push((word()?, word()?));
    }
    Some(out)
}

/// One stream of a connection.
pub struct Stream {
    id: u32,
    out: mpsc::Sender<Frame>,
    incoming: mpsc::Receiver<Bytes>,
}

/// The sending half of a stream.
#[derive(Clone)]
pub struct Writer {
    id: u32,
    out: mpsc::Sender<Frame>,
}

impl Writer {
    /// Sends bytes; `false` when the connection is gone.
    pub async fn write(&self, data: Bytes) -> bool {
        self.out.send(Frame::Data { stream: self.id, data, fin: false }).await.is_ok()
    }

    /// Says that no more will come.
    pub async fn finish(&self) -> bool {
        self.out.send(Frame::Data { stream: self.id, data: Bytes::new(), fin: true }).await.is_ok()
    }
}

impl Stream {
    /// The next bytes; `None` when no more will come.
    pub async fn read(&mut self) -> Option<Bytes> {
        self.incoming.recv().await
    }

    /// The sending half.
    pub fn writer(&self) -> Writer {
        Writer { id: self.id, out: self.out.clone() }
    }
}

type Inboxes = Arc<Mutex<HashMap<u32, mpsc::Sender<Bytes>>>>;

/// A connection to a runtime's streaming server. Dropping it hangs up.
pub struct Connection {
    out: mpsc::Sender<Frame>,
    inboxes: Inboxes,
    next: u32,
    tasks: tokio::task::JoinSet<()>,
}

impl Connection {
    /// Over a connection that has been upgraded to SPDY/3.1.
    pub fn over(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Result<Self, StreamError> {
        let (read, write) = tokio::io::split(io);
        let (out, queue) = mpsc::channel(WAITING_FRAMES);
        let inboxes = Inboxes::default();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(write_frames(write, Encoder::new()?, queue));
        let (pings, boxes) = (out.downgrade(), inboxes.clone());
        tasks.spawn(async move {
            if let Err(e) = read_frames(read, &boxes, &pings).await {
                tracing::debug!(error = %e, "SPDY connection broke off");
            }
            boxes.lock().unwrap_or_else(PoisonError::into_inner).clear();
        });
        Ok(Connection { out, inboxes, next: 1, tasks })
    }

    /// Opens a stream.
    pub async fn open(&mut self, headers: &[(&str, &str)]) -> Result<Stream, StreamError> {
        let id = self.next;
        self.next += 2;
        let (inbox, incoming) = mpsc::channel(WAITING_FRAMES);
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).insert(id, inbox);
        let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.out.send(Frame::Open { stream: id, headers, fin: false }).await.map_err(gone)?;
        Ok(Stream { id, out: self.out.clone(), incoming })
    }

    /// Sends what is still to be sent and hangs up.
    pub async fn close(mut self) {
        drop(self.out);
        // the writer ends when every stream has let go of its end
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), self.tasks.join_next()).await;
    }
}

async fn write_frames(
    mut io: impl AsyncWrite + Unpin,
    mut encoder: Encoder,
    mut queue: mpsc::Receiver<Frame>,
) {
    let mut buffer = BytesMut::new();
    while let Some(frame) = queue.recv().await {
        if encoder.encode(&frame, &mut buffer).is_err() {
            return;
        }
        // what has gathered meanwhile goes out together
        while let Ok(more) = queue.try_recv() {
            if encoder.encode(&more, &mut buffer).is_err() {
                return;
            }
        }
        if io.write_all(&buffer).await.is_err() || io.flush().await.is_err() {
            return;
        }
        buffer.clear();
    }
}

async fn read_frames(
    mut io: impl AsyncRead + Unpin,
    inboxes: &Inboxes,
    out: &mpsc::WeakSender<Frame>,
) -> Result<(), StreamError> {
    let mut decoder = Decoder::default();
    let mut bytes = vec![0; 32 << 10];
    let inbox = |stream: u32| inboxes.lock().unwrap_or_else(PoisonError::into_inner).get(&stream).cloned();
    let end = |stream: u32| inboxes.lock().unwrap_or_else(PoisonError::into_inner).remove(&stream);
    loop {
        let n = io.read(&mut bytes).await?;
        if n == 0 {
            return Ok(());
        }
        decoder.feed(bytes.get(..n).unwrap_or_default());
        while let Some(frame) = decoder.decode()? {
            match frame {
                Frame::Data { stream, data, fin } => {
                    if let Some(to) = inbox(stream).filter(|_| !data.is_empty()) {
                        // a reader that is gone does not stop the others
                        let _ = to.send(data).await;
                    }
                    if fin {
                        end(stream);
                    }
                }
                Frame::Reply { stream, fin: true } | Frame::Reset { stream } => {
                    end(stream);
                }
                Frame::Ping(id) if id % 2 == 0 => {
                    if let Some(out) = out.upgrade() {
                        let _ = out.send(Frame::Ping(id)).await;
                    }
                }
                Frame::GoAway => return Ok(()),
                _ => {}
            }
        }
    }
}

/// Asks a runtime's streaming server at `url` for SPDY, offering `protocols`; answers the connection and the
/// protocol it chose.
pub async fn connect(url: &str, protocols: &[&str]) -> Result<(Connection, String), StreamError> {
    let mut request =
        Request::builder().method(Method::POST).header("connection", "Upgrade").header("upgrade", "SPDY/3.1");
    for p in protocols {
        request = request.header("x-stream-protocol-version", *p);
    }
    let (io, head) = upgrade(url, request).await?;
    let protocol =
        head.get("x-stream-protocol-version").and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    Ok((Connection::over(io)?, protocol))
}

/// Makes a request that upgrades its connection; answers the upgraded connection and the headers.
pub async fn upgrade(
    url: &str,
    request: http::request::Builder,
) -> Result<(TokioIo<hyper::upgrade::Upgraded>, http::HeaderMap), StreamError> {
    let bad = || StreamError::Address(url.to_owned());
    let uri: http::Uri = url.parse().map_err(|_| bad())?;
    let host = uri.host().ok_or_else(bad)?;
    let port = uri.port_u16().unwrap_or(80);
    if uri.scheme_str() != Some("http") {
        return Err(bad());
    }
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let (done, gone) = oneshot::channel::<()>();
    // the connection's task ends by itself once upgraded, or when the answer is dropped
    tokio::spawn(async move {
        tokio::select! {
            _ = connection.with_upgrades() => {}
            _ = gone => {}
        }
    });
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let request = request
        .uri(path)
        .header("host", uri.authority().map_or("", |a| a.as_str()))
        .body(Empty::<Bytes>::new())
        .map_err(|_| bad())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    if status != http::StatusCode::SWITCHING_PROTOCOLS {
        let body = http_body_util::Limited::new(response.into_body(), 64 << 10).collect().await;
        drop(done);
        let body = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
        return Err(StreamError::Refused { status, body });
    }
    let headers = response.headers().clone();
    let upgraded = hyper::upgrade::on(response).await?;
    drop(done);
    Ok((TokioIo::new(upgraded), headers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(frames: &[Frame]) -> Vec<Frame> {
        let mut wire = BytesMut::new();
        let mut encoder = Encoder::new().unwrap_or_else(|e| panic!("{e}"));
        for f in frames {
            encoder.encode(f, &mut wire).unwrap_or_else(|e| panic!("{e}"));
        }
        let mut decoder = Decoder::default();
        let mut out = Vec::new();
        for b in wire {
            decoder.feed(&[b]);
            while let Some(f) = decoder.decode().unwrap_or_else(|e| panic!("{e}")) {
                out.push(f);
            }
        }
        out
    }

    #[test]
    fn frames_survive_the_wire() {
        let open = |stream, kind: &str| Frame::Open {
            stream,
            headers: vec![("streamtype".into(), kind.into()), ("port".into(), "80".into())],
            fin: false,
        };
        let frames = [
            open(1, "error"),
            open(3, "data"),
            Frame::Reply { stream: 1, fin: true },
            Frame::Data { stream: 3, data: Bytes::from_static(b"hello"), fin: true },
            Frame::Reset { stream: 3 },
            Frame::Ping(2),
            Frame::GoAway,
        ];
        assert_eq!(round_trip(&frames), frames);
    }

    #[test]
    fn the_dictionary_is_the_one_everybody_has() {
        let (a, b) = DICTIONARY.iter().fold((1u32, 0u32), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65521;
            (a, (b + a) % 65521)
        });
        assert_eq!((DICTIONARY.len(), b << 16 | a), (1423, 0xe3c6_a7c2));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let mut d = Decoder::default();
            d.feed(&bytes);
            while let Ok(Some(_)) = d.decode() {}
        }

        #[test]
        fn any_headers(list in proptest::collection::vec(("[a-z]{1,20}", ".{0,300}"), 0..20)) {
            let f = Frame::Open { stream: 1, headers: list, fin: true };
            prop_assert_eq!(round_trip(&[f.clone(), f.clone()]), vec![f.clone(), f]);
        }
    }
}
