//! Flags and wiring.

use crate::forward::Resolvers;
use crate::health;
use crate::server::{Clients, Server, serve_tcp, serve_udp};
use crate::zone::{BY_ADDRESS, BY_SERVICE, Cached, Zone, service_addresses, service_of, slice_addresses};
use client::{Client, Informers, ObjectExt};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

/// The flags.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "ferrokube-dns", about = "Answers names of the cluster", rename_all = "kebab-case")]
pub struct Options {
    /// How to reach the API server; in a pod, its service account if not given
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Where to answer, as address:port; more than one with commas
    #[arg(long, default_value = "0.0.0.0:53", value_delimiter = ',')]
    pub listen: Vec<SocketAddr>,
    /// The cluster's domain
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Where /health and /ready are served
    #[arg(long, default_value = "127.0.0.1:8181")]
    pub health_address: SocketAddr,
    /// Where the resolvers for other names are listed
    #[arg(long, default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
    /// Ranges of addresses that are answered beside private networks and this machine; more than one with commas
    #[arg(long, value_delimiter = ',')]
    pub allow_from: Vec<ipnet::IpNet>,
    /// How much to log
    #[arg(short, long, default_value_t = 2)]
    pub v: u8,
}

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server can't be reached with what we were given.
    #[error("--kubeconfig: {0}")]
    Kubeconfig(#[from] client::ConfigError),
    /// The client can't be made.
    #[error("--kubeconfig: {0}")]
    Client(#[from] client::Error),
    /// The domain is not a name.
    #[error("--cluster-domain: {0:?} is not a domain")]
    Domain(String),
    /// An address can't be listened on.
    #[error("{0}: cannot listen on {1}: {2}")]
    Listen(&'static str, SocketAddr, std::io::Error),
}

/// Answers until shutdown.
pub fn run(
    options: Options,
    shutdown: CancellationToken,
) -> Pin<Box<dyn Future<Output = Result<(), Error>>>> {
    // Boxed, the daemon is compiled here, once, and not again in its program.
    Box::pin(work(options, shutdown))
}

async fn work(options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    let access = match &options.kubeconfig {
        Some(path) => client::Config::from_kubeconfig_file(path)?,
        None => client::Config::in_cluster()?,
    };
    let client = Client::new(access.user_agent("ferrokube-dns"))?;
    let informers = Informers::new(client, shutdown.clone());
    let services = informers.informer::<Service>();
    let slices = informers.informer::<EndpointSlice>();
    let namespaces = informers.informer::<Namespace>();
    services.index(BY_ADDRESS, service_addresses);
    slices.index(BY_SERVICE, |s| {
        service_of(s).map(|name| format!("{}/{name}", s.namespace())).into_iter().collect()
    });
    slices.index(BY_ADDRESS, slice_addresses);

    let ready = Arc::new(AtomicBool::new(false));
    let at = options.health_address;
    let listener = TcpListener::bind(at).await.map_err(|e| Error::Listen("--health-address", at, e))?;
    tokio::spawn(health::serve(listener, ready.clone(), shutdown.clone()));

    // Taken before the cluster is known: a wrong address is an error at once.
    let mut sockets = Vec::new();
    for at in &options.listen {
        let failed = |e| Error::Listen("--listen", *at, e);
        sockets
            .push((UdpSocket::bind(at).await.map_err(failed)?, TcpListener::bind(at).await.map_err(failed)?));
    }
    let cached =
        Cached { services: services.lister(), slices: slices.lister(), namespaces: namespaces.lister() };
    let zone = Zone::new(&options.cluster_domain, Box::new(cached));
    let zone = zone.ok_or_else(|| Error::Domain(options.cluster_domain.clone()))?;
    let mut resolvers = Resolvers::default();
    for at in &options.listen {
        match Resolvers::read(&options.resolv_conf, *at) {
            Ok(found) => resolvers = found,
            Err(e) => tracing::warn!("no resolvers for other names: {}: {e}", options.resolv_conf.display()),
        }
    }
    resolvers.0.retain(|r| !options.listen.contains(r));
    let server = Arc::new(Server::new(zone, resolvers, Clients { more: options.allow_from.clone() }));

    // Names that are not known yet would be denied, and clients would believe it.
    let synced = async { tokio::join!(services.synced(), slices.synced(), namespaces.synced()) };
    if shutdown.run_until_cancelled(synced).await.is_none() {
        return Ok(());
    }
    ready.store(true, Ordering::Relaxed);
    tracing::info!("answering for {}", options.cluster_domain);
    for (udp, tcp) in sockets {
        tokio::spawn(serve_udp(server.clone(), udp, shutdown.clone()));
        tokio::spawn(serve_tcp(server.clone(), tcp, shutdown.clone()));
    }
    shutdown.cancelled().await;
    Ok(())
}
