//! Connections to one server: a few HTTP/2 connections that all requests share, made when needed and
//! again when they break; HTTP/1.1 where the server has no HTTP/2, and for upgrades.

use crate::body::{InFlight, ResponseBody};
use crate::config::{Config, ConfigError};
use crate::error::Error;
use crate::tls::Tls;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Servers allow 100 streams on a connection at least; more than this many open another one.
const STREAMS: usize = 90;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// A connection on which nothing arrives for so long is asked whether it is alive, as upstream does.
const PING_AFTER: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Sender2 = http2::SendRequest<Full<Bytes>>;
type Sender1 = http1::SendRequest<Full<Bytes>>;

/// The connections to one server.
pub(crate) struct Connections {
    /// `https://host:port`, for messages.
    pub server: String,
    /// A path before every request's.
    pub prefix: String,
    host: String,
    port: u16,
    tls: Option<(Tls, ServerName<'static>)>,
    open: Mutex<Vec<Connection>>,
    /// Held while connecting, so that many requests make one connection.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Connection {
    sender: Sender2,
    in_flight: Arc<AtomicUsize>,
    generation: u64,
}

enum Way {
    Two(Connection, InFlight),
    One(Sender1),
}

impl Connections {
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let fault = |reason: &str| ConfigError::Field {
            what: config.server.clone(),
            field: "server".into(),
            reason: reason.into(),
        };
        let server = if config.server.contains("://") {
            config.server.clone()
        } else {
            format!("http://{}", config.server)
        };
        let uri: Uri = server.parse().map_err(|_| fault("not a URL"))?;
        let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(|| fault("no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
        let (tls, port) = match uri.scheme_str() {
            Some("https") => {
                let name = config.server_name.clone().unwrap_or_else(|| host.clone());
                let name =
                    ServerName::try_from(name).map_err(|_| fault("the host can't stand in a certificate"))?;
                (Some((Tls::new(config)?, name)), 443)
            }
            Some("http") => (None, 80),
            _ => return Err(fault("neither http nor https")),
        };
        Ok(Connections {
            prefix: uri.path().trim_end_matches('/').into(),
            port: uri.port_u16().unwrap_or(port),
            server,
            host,
            tls,
            open: Mutex::new(Vec::new()),
            connecting: tokio::sync::Mutex::new(()),
        })
    }

    fn transport(&self, e: impl std::error::Error) -> Error {
        // The outer message of hyper's errors says little; the cause says it.
        let mut reason = e.to_string();
        let mut source = e.source();
        while let Some(inner) = source {
            let text = inner.to_string();
            if !reason.contains(&text) {
                reason = format!("{reason}: {text}");
            }
            source = inner.source();
        }
        Error::Transport { server: self.server.clone(), reason }
    }

    /// Sends a request; its URI is a path below the server's.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<ResponseBody>, Error> {
        let again = (request.method() == http::Method::GET).then(|| request.clone());
        let mut request = Some(request);
        for last in [false, true] {
            let Some(mut asked) = request.take() else { break };
            let (response, in_flight) = match self.way().await? {
                Way::Two(mut connection, in_flight) => {
                    self.absolute(&mut asked)?;
                    match connection.sender.try_send_request(asked).await {
                        Ok(response) => (response, Some(in_flight)),
                        Err(mut e) => {
                            self.forget_broken();
                            // What never left us, and what changes nothing, may be sent again.
                            request = e.take_message().or_else(|| again.clone());
                            if last || request.is_none() {
                                return Err(self.transport(e.into_error()));
                            }
                            continue;
                        }
                    }
                }
                Way::One(mut sender) => {
                    (sender.send_request(asked).await.map_err(|e| self.transport(e))?, None)
                }
            };
            return Ok(response.map(|incoming| ResponseBody { incoming, _in_flight: in_flight }));
        }
        Err(Error::Transport { server: self.server.clone(), reason: "the connection broke".into() })
    }

    /// Sends a request that asks for another protocol.
    pub async fn upgrade(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<hyper::body::Incoming>, Error> {
        let (io, _, _) = self.connect(true).await?;
        let mut sender = self.start_http1(io).await?;
        sender.send_request(request).await.map_err(|e| self.transport(e))
    }

    pub fn host_header(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// HTTP/2 wants scheme and authority in the URI, HTTP/1.1 the path alone.
    fn absolute(&self, request: &mut Request<Full<Bytes>>) -> Result<(), Error> {
        let mut parts = request.uri().clone().into_parts();
        parts.scheme =
            Some(if self.tls.is_some() { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP });
        parts.authority =
            Some(self.host_header().parse().map_err(|_| Error::Request("the server's host".into()))?);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|e| Error::Request(e.to_string()))?;
        Ok(())
    }

    fn idle(&self, generation: u64) -> Option<Way> {
        let mut open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        open.retain(|c| !c.sender.is_closed() && c.generation == generation);
        let free = open.iter().find(|c| c.in_flight.load(Ordering::Relaxed) < STREAMS)?;
        Some(Way::Two(free.clone(), InFlight::new(&free.in_flight)))
    }

    fn forget_broken(&self) {
        self.open.lock().unwrap_or_else(|e| e.into_inner()).retain(|c| !c.sender.is_closed());
    }

    async fn way(&self) -> Result<Way, Error> {
        let generation = self.tls.as_ref().map_or(0, |(tls, _)| tls.current().1);
        if let Some(way) = self.idle(generation) {
            return Ok(way);
        }
        let _connecting = self.connecting.lock().await;
        if let Some(way) = self.idle(generation) {
            return Ok(way);
        }
        let (io, http2, generation) = self.connect(false).await?;
        if !http2 {
            return Ok(Way::One(self.start_http1(io).await?));
        }
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|e| self.transport(e))?;
        // The task ends with the connection, which ends with its last sender and stream.
        tokio::spawn(async move {
            if let Err(e) = driver.await {
                tracing::debug!("connection ended: {e}");
            }
        });
        let connection = Connection { sender, in_flight: Arc::default(), generation };
        let in_flight = InFlight::new(&connection.in_flight);
        self.open.lock().unwrap_or_else(|e| e.into_inner()).push(connection.clone());
        Ok(Way::Two(connection, in_flight))
    }

    async fn start_http1(&self, io: Box<dyn Io>) -> Result<Sender1, Error> {
        let (sender, driver) = http1::handshake(TokioIo::new(io)).await.map_err(|e| self.transport(e))?;
        tokio::spawn(async move {
            if let Err(e) = driver.with_upgrades().await {
                tracing::debug!("connection ended: {e}");
            }
        });
        Ok(sender)
    }

    /// A new connection, whether it speaks HTTP/2, and the generation of our certificate on it.
    async fn connect(&self, http1_only: bool) -> Result<(Box<dyn Io>, bool, u64), Error> {
        let connecting = async {
            let tcp =
                TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|e| self.transport(e))?;
            tcp.set_nodelay(true).map_err(|e| self.transport(e))?;
            let Some((tls, name)) = &self.tls else { return Ok((Box::new(tcp) as Box<dyn Io>, false, 0)) };
            let (mut config, generation) = tls.current();
            if http1_only {
                Arc::make_mut(&mut config).alpn_protocols = vec![b"http/1.1".to_vec()];
            }
            let io =
                TlsConnector::from(config).connect(name.clone(), tcp).await.map_err(|e| self.transport(e))?;
            let http2 = io.get_ref().1.alpn_protocol() == Some(b"h2");
            Ok((Box::new(io) as Box<dyn Io>, http2, generation))
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout(format!("connecting to {}", self.server))),
        }
    }
}
