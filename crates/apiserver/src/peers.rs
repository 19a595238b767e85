//! Who is at the other end of a connection, by its certificate. It is judged at each request: a certificate may expire,
//! and its authority be taken away, while a connection goes on.

use crate::StartError;
use crate::access::Peer;
use crate::options::Options;
use crate::server::Server;
use pki::tls::ClientAuthority;
use rustls::pki_types::CertificateDer;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Who vouches for clients with certificates, if anyone does.
struct Authorities {
    clients: Option<ClientAuthority>,
    front_proxy: Option<ClientAuthority>,
}

impl Authorities {
    fn new(options: &Options) -> Result<Self, StartError> {
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

/// The authorities of the flags, as their files say now.
pub struct Peers {
    current: RwLock<Arc<Authorities>>,
    generation: AtomicU64,
}

impl Peers {
    /// Reads the files.
    pub fn new(options: &Options) -> Result<Self, StartError> {
        let current = RwLock::new(Arc::new(Authorities::new(options)?));
        Ok(Peers { current, generation: AtomicU64::new(0) })
    }

    /// Reads them again.
    pub fn read(&self, options: &Options) -> Result<(), StartError> {
        let fresh = Arc::new(Authorities::new(options)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

/// One connection's certificates, and whom they were found to stand for.
pub struct Connected {
    peers: Arc<Peers>,
    chain: Vec<CertificateDer<'static>>,
    /// Until when they hold: seconds since 1970.
    until: i64,
    judged: Mutex<Option<(u64, Arc<Peer>)>>,
}

impl Connected {
    /// A connection whose other end has shown these.
    pub fn new(peers: Arc<Peers>, chain: &[CertificateDer<'_>]) -> Self {
        let chain: Vec<CertificateDer<'static>> = chain.iter().map(|c| c.clone().into_owned()).collect();
        Connected { until: pki::tls::valid_until(&chain), peers, chain, judged: Mutex::default() }
    }

    /// Who it is now.
    pub fn peer(&self, server: &Server) -> Arc<Peer> {
        let generation = self.peers.generation.load(Ordering::Acquire);
        let holds = self.chain.is_empty() || jiff::Timestamp::now().as_second() <= self.until;
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, peer)) = &*judged
            && *then == generation
            && holds
        {
            return peer.clone();
        }
        let authorities = self.peers.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let peer = Arc::new(authorities.peer(server, &self.chain));
        *judged = Some((generation, peer.clone()));
        peer
    }
}
