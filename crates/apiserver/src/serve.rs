//! Listening, TLS and connections.

use crate::access::Peer;
use crate::limits::{HEAD, Pace, Verdict};
use crate::options::Options;
use crate::server::Server;
use crate::{StartError, chain};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use pki::tls::ClientAuthority;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A client has this long to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Streams of one HTTP/2 connection, and what each may send before it is read: upstream's.
const STREAMS: u32 = 100;
const WINDOW: u32 = 256 << 10;
/// Headers of one request may be this large: upstream's.
const HEADERS: u32 = 1 << 20;
/// and this many.
const HEADER_LINES: usize = 1000;
/// How often a connection is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Requests under way have this long to end at a shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// The server's certificate: the one given, or one made and kept in `--cert-dir`.
pub fn tls_config(options: &Options) -> Result<Arc<ServerConfig>, StartError> {
    let (cert_pem, key_pem) = match (&options.tls_cert_file, &options.tls_private_key_file) {
        (Some(cert), Some(key)) => {
            let read = |path, name: &'static str| {
                pki::files::read(path).map_err(|e| StartError(format!("--{name}: {e}")))
            };
            (read(cert, "tls-cert-file")?, read(key, "tls-private-key-file")?)
        }
        _ => self_signed(options)?,
    };
    let fail = |name: &'static str| move |e: pki::PkiError| StartError(format!("--{name}: {e}"));
    let chain =
        pki::files::certificates(&cert_pem, "the serving certificate").map_err(fail("tls-cert-file"))?;
    let key = pki::files::private_key(&key_pem, "the serving key").map_err(fail("tls-private-key-file"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| StartError(e.to_string()))?;
    let mut config = builder
        .with_client_cert_verifier(pki::tls::any_client())
        .with_single_cert(chain, key)
        .map_err(|e| StartError(format!("--tls-cert-file, --tls-private-key-file: {e}")))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Who vouches for clients with certificates, if anyone does.
pub struct Authorities {
    clients: Option<ClientAuthority>,
    front_proxy: Option<ClientAuthority>,
}

impl Authorities {
    /// Those of the flags.
    pub fn new(options: &Options) -> Result<Self, StartError> {
        let read = |path: &Option<PathBuf>, flag: &str| {
            let Some(path) = path else { return Ok(None) };
            let read = pki::files::read(path)
                .and_then(|pem| ClientAuthority::new(&pem, &path.display().to_string()));
            read.map(Some).map_err(|e| StartError(format!("--{flag}: {e}")))
        };
        Ok(Authorities {
            clients: read(&options.client_ca_file, "client-ca-file")?,
            front_proxy: read(&options.requestheader_client_ca_file, "requestheader-client-ca-file")?,
        })
    }

    /// Whom a chain of certificates stands for, the client's own first.
    fn peer(&self, server: &Server, chain: &[CertificateDer<'_>]) -> Peer {
        let Some(first) = chain.first() else { return Peer::default() };
        let front_proxy = self.front_proxy.as_ref().is_some_and(|a| a.check(chain).is_ok());
        let front_proxy = front_proxy && server.front_proxy.allows(first);
        let Some(authority) = &self.clients else { return Peer { front_proxy, ..Peer::default() } };
        let known = authority.check(chain).map_err(|e| e.to_string());
        let user = known.and_then(|()| auth::authn::certificate::user(first).map_err(|e| e.to_string()));
        if let (Err(e), false) = (&user, front_proxy) {
            tracing::info!(error = %e, "a client certificate stands for nobody");
        }
        Peer { front_proxy, rejected: user.is_err(), user: user.ok() }
    }
}

fn self_signed(options: &Options) -> Result<(Vec<u8>, Vec<u8>), StartError> {
    let (cert, key) = (options.cert_dir.join("apiserver.crt"), options.cert_dir.join("apiserver.key"));
    if let (Ok(cert), Ok(key)) = (std::fs::read(&cert), std::fs::read(&key)) {
        return Ok((cert, key));
    }
    let mut addresses = vec![options.advertised(), [127, 0, 0, 1].into()];
    addresses.extend(options.service_cluster_ip_range.first().map(|r| r.nth(1)));
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
    ];
    let subject = pki::ca::Subject {
        common_name: format!("{}@{}", options.advertised(), jiff::Timestamp::now().as_second()),
        dns_names: names.map(Into::into).to_vec(),
        addresses,
        organizations: Vec::new(),
    };
    let made = pki::ca::self_signed(&subject, Duration::from_secs(365 * 24 * 3600))
        .map_err(|e| StartError(e.to_string()))?;
    let failed = |e: std::io::Error| {
        StartError(format!("--cert-dir: cannot write {}: {e}", options.cert_dir.display()))
    };
    std::fs::create_dir_all(&options.cert_dir).map_err(failed)?;
    std::fs::write(&cert, &made.0).map_err(failed)?;
    write_private(&key, made.1.as_bytes()).map_err(failed)?;
    Ok((made.0.into_bytes(), made.1.into_bytes()))
}

fn write_private(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?
        .write_all(bytes)
}

/// Opens the port.
pub async fn listen(options: &Options) -> Result<TcpListener, StartError> {
    let address = SocketAddr::new(options.bind_address, options.secure_port);
    TcpListener::bind(address)
        .await
        .map_err(|e| StartError(format!("--bind-address, --secure-port: cannot listen on {address}: {e}")))
}

/// Takes connections until `shutdown` ends, then lets requests under way finish.
pub async fn serve(
    server: Arc<Server>,
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    authorities: Authorities,
    shutdown: impl Future<Output = ()>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let authorities = Arc::new(authorities);
    let (ending, tasks) = (CancellationToken::new(), TaskTracker::new());
    let mut shutdown = pin!(shutdown);
    tracing::info!(address = %listener.local_addr().map(|a| a.to_string()).unwrap_or_default(), "serving");
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    // Out of descriptors, most likely; what is open goes on, and may end.
                    tracing::warn!(error = %e, "a connection could not be taken");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = &mut shutdown => break,
        };
        let ending = ending.clone();
        tasks.spawn(connection(server.clone(), acceptor.clone(), authorities.clone(), stream, ending));
    }
    server.health.ending.store(true, Ordering::Release);
    drop(listener);
    ending.cancel();
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        tracing::info!("connections that are still open are cut");
    }
}

async fn connection(
    server: Arc<Server>,
    acceptor: TlsAcceptor,
    authorities: Arc<Authorities>,
    stream: TcpStream,
    ending: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(e)) => {
            tracing::debug!(error = %e, "a TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let peer = authorities.peer(&server, stream.get_ref().1.peer_certificates().unwrap_or_default());
    let peer = Arc::new(peer);
    let pace = Pace::new(Instant::now());
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_headers(HEADER_LINES);
    let streams = Some(server.options.http2_max_streams_per_connection).filter(|n| *n > 0).unwrap_or(STREAMS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .max_header_list_size(HEADERS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW.saturating_mul(streams).min(i32::MAX as u32))
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(30));
    // What was agreed on, not what comes first: who says nothing would be waited for.
    let builder = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => builder.http2_only(),
        _ => builder.http1_only(),
    };
    let asked = pace.clone();
    let service =
        // Boxed, what answers a request is gone once the answer begins, however long that goes on.
        service_fn(move |request| Box::pin(chain::handle(server.clone(), peer.clone(), asked.clone(), request)));
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let mut look = tokio::time::interval(LOOK);
    let mut leaving = false;
    loop {
        tokio::select! {
            result = &mut connection => {
                if let Err(e) = result {
                    tracing::debug!(error = %e, "a connection broke off");
                }
                return;
            }
            () = ending.cancelled(), if !leaving => {
                connection.as_mut().graceful_shutdown();
                leaving = true;
            }
            _ = look.tick() => match pace.judge(Instant::now()) {
                Verdict::Stay => {}
                Verdict::Idle if !leaving => {
                    connection.as_mut().graceful_shutdown();
                    leaving = true;
                }
                Verdict::Idle | Verdict::Stalled => return,
            },
        }
    }
}
