//! Puts the parts together and runs them until told to stop.

use crate::bootstrap;
use crate::cgroups::{CgroupError, Cgroups};
use crate::config::Config;
use crate::context::Context;
use crate::events::Events;
use crate::images::Images;
use crate::node::{capacity, facts, housekeeping, lease, register};
use crate::objects::Objects;
use crate::pods::{Pods, Source};
use crate::quantity;
use crate::resize::records::Records;
use crate::server::Server;
use crate::server::auth::Gate;
use crate::server::tls::{ServingCertificate, TlsError};
use crate::sources;
use crate::sources::mirror::Mirrors;
use crate::status::manager::StatusManager;
use client::{Client, Informers};
use cri::Runtime;
use k8s_openapi::api::core::v1::{Pod, Service};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Why the kubelet cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The runtime's endpoint.
    #[error(transparent)]
    Runtime(#[from] cri::Error),
    /// The node's cgroups.
    #[error(transparent)]
    Cgroups(#[from] CgroupError),
    /// A directory it needs.
    #[error("cannot make {path}")]
    Directory {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The kubeconfig, or making it.
    #[error(transparent)]
    Bootstrap(#[from] bootstrap::BootstrapError),
    /// The API client.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// The serving certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The node is set up in a way the operator ruled out.
    #[error("{0}")]
    Node(String),
}

/// Runs a kubelet until `shutdown` is done. Containers go on running.
pub fn run(
    config: Config,
    shutdown: CancellationToken,
) -> Pin<Box<dyn Future<Output = Result<(), RunError>>>> {
    // Boxed, the daemon is compiled here, once, and not again in its program.
    Box::pin(work(config, shutdown.cancelled_owned()))
}

async fn work(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    check_node(&config)?;
    for dir in [config.root_dir.join("pods"), config.pod_logs_dir.clone()] {
        std::fs::create_dir_all(&dir)
            .map_err(|source| RunError::Directory { path: dir.to_string_lossy().into_owned(), source })?;
    }
    if let Err(e) = sys::node::set_oom_score_adj(config.oom_score_adj) {
        warn!(error = %e, wanted = config.oom_score_adj, "this process's oom_score_adj stays as it is");
    }
    // volumes mounted by pods show on the node, and the other way round
    if let Err(e) = sys::mount::make_shared("/".as_ref()) {
        warn!(error = %e, "mounts are not shared between node and pods");
    }
    let runtime = Runtime::new(&config.runtime_endpoint, &config.image_endpoint, config.runtime_timeout)?;
    let cgroups = Cgroups::detect(config.cgroup_driver, &config.cgroup_root, config.cgroups_per_qos)?;
    if cgroups.version() == 1 && config.fail_cgroup_v1 {
        return Err(RunError::Node("kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is in maintenance mode: set failCgroupV1 to false".into()));
    }
    let measured = capacity::measure(&config);
    let memory = quantity::of(Some(&measured.total), "memory");
    let cpu = quantity::of(Some(&measured.allocatable), "cpu");
    if let Err(e) = cgroups.set_up_node(cpu.milli(), node_memory_limit(&config, memory)) {
        warn!(error = %e, "the cgroup of all pods is not as it should be");
    }
    let api = connect(&config).await?;
    let client = api.as_ref().map(|(c, _)| c.clone());
    let server = api.map(|(_, server)| server).unwrap_or_default();
    let mirrors = Arc::new(Mirrors::default());
    let addresses: Vec<String> = facts::addresses(&config, &server).iter().map(ToString::to_string).collect();
    let cx = Arc::new(Context {
        events: Events::new(&config.node_name, client.as_ref()),
        exits: Default::default(),
        images: Images::new(config.parallel_pulls),
        objects: Objects::new(client.clone()),
        status: StatusManager::new(client.clone(), mirrors.clone()),
        mirrors,
        memory_capacity: memory.bytes().unsigned_abs(),
        allocatable: RwLock::new(measured.allocatable),
        labels: RwLock::new(register::own_labels(&config)),
        addresses: RwLock::new(addresses.clone()),
        runtime_name: RwLock::new("containerd".into()),
        records: Records::new(config.root_dir.join("pods")),
        config,
        runtime,
        cgroups,
    });
    info!(node = cx.config.node_name, version = facts::VERSION, "kubelet starts");
    cx.events.node("Normal", "Starting", "Starting kubelet.");
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let pods = Pods::new(cx.clone());
    let node_poke = Arc::new(Notify::new());
    let mut wanted = Vec::new();
    if cx.config.static_pod_path.is_some() {
        wanted.push(Source::File);
    }
    if client.is_some() {
        wanted.push(Source::Api);
    }
    if cx.config.static_pod_path.is_some() {
        pods.find_leftovers().await;
        let (send, receive) = mpsc::channel(1);
        tasks.spawn(sources::file::watch(cx.config.clone(), send));
        tasks.spawn(follow_files(cx.clone(), pods.clone(), receive, wanted.clone()));
    }
    if let Some(client) = &client {
        let informers = Informers::new(client.clone(), stop.clone());
        cx.objects.set_services(informers.informer::<Service>().lister());
        sources::apiserver::refresh_on_change(&cx, &pods);
        let ips = addresses.iter().filter_map(|a| a.parse().ok()).collect();
        tasks.spawn(bootstrap::rotate(client.clone(), cx.config.clone(), ips));
        let registered = CancellationToken::new();
        tasks.spawn(register::keep(
            cx.clone(),
            client.clone(),
            server,
            node_poke.clone(),
            registered.clone(),
        ));
        let (lease, node, duration) =
            (client.clone(), cx.config.node_name.clone(), cx.config.node_lease_duration);
        // pods are judged by the node's labels, which have to be known first
        let (follow, known) =
            (sources::apiserver::follow(cx.clone(), pods.clone(), informers, wanted), registered.clone());
        tasks.spawn(async move {
            known.cancelled().await;
            follow.await;
        });
        let mirrors = cx.mirrors.clone();
        tasks.spawn(async move {
            registered.cancelled().await;
            mirrors.poke();
            lease::keep(lease, node, duration).await;
        });
        let status = cx.clone();
        tasks.spawn(async move { status.status.run().await });
        let (mirrors, api, node) = (cx.mirrors.clone(), client.clone(), cx.config.node_name.clone());
        tasks.spawn(async move { mirrors.run(&api, &node).await });
    }
    let (send, receive) = mpsc::channel(256);
    tasks.spawn(cri::events::watch(cx.runtime.clone(), send));
    tasks.spawn(follow_runtime(cx.clone(), pods.clone(), receive, node_poke));
    let reaper = pods.clone();
    tasks.spawn(async move { reaper.reap().await });
    tasks.spawn(housekeeping::run(cx.clone(), pods.clone()));
    let tls = Arc::new(ServingCertificate::load(&cx.config, &addresses)?);
    let gate = Gate::new(&cx.config, client);
    tasks.spawn(Server::new(cx.clone(), pods, gate).serve(tls));
    shutdown.await;
    stop.cancel();
    tasks.shutdown().await;
    info!("kubelet stops; containers go on");
    Ok(())
}

/// The API server that the kubeconfig names, and its address; none without a kubeconfig.
async fn connect(config: &Config) -> Result<Option<(Client, String)>, RunError> {
    if config.kubeconfig.is_empty() {
        return Ok(None);
    }
    let c = bootstrap::client_config(config).await?;
    let server = c.server.clone();
    Ok(Some((Client::new(c)?, server)))
}

async fn follow_files(
    cx: Arc<Context>,
    pods: Arc<Pods>,
    mut lists: mpsc::Receiver<Vec<Arc<Pod>>>,
    sources: Vec<Source>,
) {
    while let Some(list) = lists.recv().await {
        cx.mirrors.want(&list);
        pods.replace(Source::File, &list);
        pods.adopt_orphans(&sources).await;
    }
}

async fn follow_runtime(
    cx: Arc<Context>,
    pods: Arc<Pods>,
    mut events: mpsc::Receiver<cri::events::Event>,
    node: Arc<Notify>,
) {
    while let Some(event) = events.recv().await {
        if event == cri::events::Event::Relist {
            if let Ok(v) = cx.runtime.version().await {
                *cx.runtime_name.write().unwrap_or_else(PoisonError::into_inner) = v.runtime_name;
            }
            // a runtime that has just come back makes the node ready sooner
            node.notify_one();
        }
        pods.runtime_event(&event);
    }
}

/// What the operator rules out for a node.
fn check_node(config: &Config) -> Result<(), RunError> {
    if config.fail_swap_on {
        let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
        if swaps.lines().nth(1).is_some() {
            return Err(RunError::Node("running with swap on is not supported, please disable swap or set --fail-swap-on flag to false".into()));
        }
    }
    Ok(())
}

/// What all pods together may use: all that is not reserved.
fn node_memory_limit(config: &Config, total: quantity::Amount) -> Option<i64> {
    let reserved = |m: &std::collections::BTreeMap<String, String>| {
        m.get("memory").and_then(|q| quantity::parse(q)).unwrap_or_default()
    };
    Some(total.minus(reserved(&config.system_reserved)).minus(reserved(&config.kube_reserved)).bytes())
        .filter(|b| *b > 0)
}
