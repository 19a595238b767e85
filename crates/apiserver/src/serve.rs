//! Listening, TLS and connections.

use crate::bootstrap::endpoints;
use crate::limits::{HEAD, Pace, Verdict};
use crate::options::{Options, TlsVersion};
use crate::peers::{Connected, Peers};
use crate::server::Server;
use crate::{StartError, chain};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
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
/// Requests under way have this long to end at a shutdown: upstream's.
const DRAIN: Duration = Duration::from_secs(60);
/// So long it may take to be taken out of what others find.
const LEAVE: Duration = Duration::from_secs(5);

/// The server's certificate: the one given, as its files say now, or one made and kept in `--cert-dir`.
#[derive(Debug)]
pub struct Serving(RwLock<Arc<CertifiedKey>>);

impl Serving {
    fn certified(options: &Options) -> Result<Arc<CertifiedKey>, StartError> {
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
        let key =
            pki::files::private_key(&key_pem, "the serving key").map_err(fail("tls-private-key-file"))?;
        CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())
            .map(Arc::new)
            .map_err(|e| StartError(format!("--tls-cert-file, --tls-private-key-file: {e}")))
    }

    /// Reads the files again.
    pub fn read(&self, options: &Options) -> Result<(), StartError> {
        let fresh = Self::certified(options)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// How the server speaks TLS, and its certificate.
pub fn tls_config(options: &Options) -> Result<(Arc<ServerConfig>, Arc<Serving>), StartError> {
    let serving = Arc::new(Serving(RwLock::new(Serving::certified(options)?)));
    let provider = Arc::new(provider(options)?);
    let versions: &[_] = match options.tls_min_version {
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|e| StartError(format!("--tls-cipher-suites: {e}")))?;
    let mut config =
        builder.with_client_cert_verifier(pki::tls::any_client()).with_cert_resolver(serving.clone());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if !options.disable_http2_serving {
        config.alpn_protocols.insert(0, b"h2".to_vec());
    }
    Ok((Arc::new(config), serving))
}

/// Cipher suites of TLS 1.2 that Go knows and nobody should speak: named, they are passed over.
const OLD_SUITES: [&str; 13] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

/// The cryptography, with those suites of TLS 1.2 that are named, or all.
fn provider(options: &Options) -> Result<rustls::crypto::CryptoProvider, StartError> {
    let mut provider = rustls::crypto::ring::default_provider();
    if options.tls_cipher_suites.is_empty() {
        return Ok(provider);
    }
    // `TLS_AES_128_GCM_SHA256` is `TLS13_AES_128_GCM_SHA256` there; both have the same numbers.
    let name =
        |suite: &rustls::SupportedCipherSuite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_");
    let known: Vec<String> = provider.cipher_suites.iter().map(name).collect();
    let same = |a: &str, b: &str| a == b || a.strip_suffix("_SHA256") == Some(b);
    for asked in &options.tls_cipher_suites {
        if !known.iter().any(|k| same(k, asked)) && !OLD_SUITES.contains(&asked.as_str()) {
            return Err(StartError(format!("--tls-cipher-suites: {asked:?} is not known")));
        }
    }
    provider.cipher_suites.retain(|suite| {
        let named = || options.tls_cipher_suites.iter().any(|asked| same(&name(suite), asked));
        suite.tls13().is_some() || named()
    });
    Ok(provider)
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
    write_private(&key, made.1.as_bytes()).map_err(failed)?;
    std::fs::write(&cert, &made.0).map_err(failed)?;
    Ok((made.0.into_bytes(), made.1.into_bytes()))
}

/// Writes a file that its owner alone may read, also where there was one.
fn write_private(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
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
    peers: Arc<Peers>,
    shutdown: impl Future<Output = ()>,
) {
    let port = Port {
        server: server.clone(),
        listener,
        acceptor: TlsAcceptor::from(tls),
        peers,
        ending: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    tracing::info!(address = %port.listener.local_addr().map(|a| a.to_string()).unwrap_or_default(), "serving");
    port.accept_until(shutdown).await;
    // Those who ask whether it is ready send nobody here any more; who comes meanwhile is served.
    server.health.ending.store(true, Ordering::Release);
    let delay = server.options.shutdown_delay_duration;
    let leave = async {
        let left = tokio::time::timeout(LEAVE, endpoints::leave(&server)).await;
        if !matches!(left, Ok(Ok(()))) {
            tracing::warn!("this server could not be taken out of the endpoints of the kubernetes service");
        }
    };
    tokio::join!(leave, port.accept_until(tokio::time::sleep(delay)));
    let Port { listener, ending, tasks, .. } = port;
    drop(listener);
    ending.cancel();
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        tracing::info!("connections that are still open are cut");
    }
}

/// The port that is listened on.
struct Port {
    server: Arc<Server>,
    listener: TcpListener,
    acceptor: TlsAcceptor,
    peers: Arc<Peers>,
    ending: CancellationToken,
    tasks: TaskTracker,
}

impl Port {
    async fn accept_until(&self, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        loop {
            let stream = tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(e) => {
                        // Out of descriptors, most likely; what is open goes on, and may end.
                        tracing::warn!(error = %e, "a connection could not be taken");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
                () = &mut end => return,
            };
            let (server, acceptor) = (self.server.clone(), self.acceptor.clone());
            self.tasks.spawn(connection(server, acceptor, self.peers.clone(), stream, self.ending.clone()));
        }
    }
}

async fn connection(
    server: Arc<Server>,
    acceptor: TlsAcceptor,
    peers: Arc<Peers>,
    stream: TcpStream,
    ending: CancellationToken,
) {
    crate::connect::prepare(&stream);
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(e)) => {
            tracing::debug!(error = %e, "a TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = Arc::new(Connected::new(peers, shown));
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
    let watches_have = server.options.shutdown_watch_termination_grace_period;
    let service =
        // Boxed, what answers a request is gone once the answer begins, however long that goes on.
        service_fn(move |request| Box::pin(chain::handle(server.clone(), peer.clone(), asked.clone(), request)));
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let mut look = tokio::time::interval(LOOK);
    let mut leaving = false;
    let mut cut_watches_at = None;
    loop {
        tokio::select! {
            result = &mut connection => {
                if let Err(e) = result {
                    tracing::debug!(error = %e, "a connection broke off");
                }
                return;
            }
            () = ending.cancelled(), if cut_watches_at.is_none() => {
                connection.as_mut().graceful_shutdown();
                leaving = true;
                cut_watches_at = Some(Instant::now() + watches_have);
                look = tokio::time::interval(Duration::from_millis(100));
            }
            _ = look.tick() => match pace.judge(Instant::now()) {
                // What has no end of its own is not waited for.
                _ if cut_watches_at.is_some_and(|at| Instant::now() >= at) && !pace.has_due() => return,
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
