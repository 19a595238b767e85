//! Puts the parts together and runs them until told to stop.

use crate::cgroups::{CgroupError, Cgroups};
use crate::config::Config;
use crate::context::Context;
use crate::events::Events;
use crate::images::Images;
use crate::node::capacity;
use crate::objects::Objects;
use crate::pods::{Pods, Source};
use crate::quantity;
use crate::sources;
use crate::status::manager::StatusManager;
use cri::Runtime;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
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
    /// The node is set up in a way the operator ruled out.
    #[error("{0}")]
    Node(String),
}

/// Runs a kubelet until `shutdown` is done. Containers go on running.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
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
    let cx = Arc::new(Context {
        events: Events::new(&config.node_name),
        images: Images::new(config.parallel_pulls),
        objects: Objects::standalone(),
        status: StatusManager::default(),
        memory_capacity: memory.bytes().unsigned_abs(),
        allocatable: RwLock::new(measured.allocatable),
        addresses: RwLock::new(config.node_ips.iter().map(ToString::to_string).collect()),
        runtime_name: RwLock::new("containerd".into()),
        config,
        runtime,
        cgroups,
    });
    info!(node = cx.config.node_name, "kubelet starts");
    let mut tasks = JoinSet::new();
    let pods = Pods::new(cx.clone());
    let mut wanted = Vec::new();
    if cx.config.static_pod_path.is_some() {
        wanted.push(Source::File);
        let (send, mut receive) = mpsc::channel(1);
        tasks.spawn(sources::file::watch(cx.config.clone(), send));
        let pods = pods.clone();
        let wanted = [Source::File];
        tasks.spawn(async move {
            while let Some(list) = receive.recv().await {
                pods.replace(Source::File, &list);
                pods.adopt_orphans(&wanted).await;
            }
        });
    }
    let (send, receive) = mpsc::channel(256);
    tasks.spawn(cri::events::watch(cx.runtime.clone(), send));
    tasks.spawn(follow_runtime(cx.clone(), pods.clone(), receive));
    let reaper = pods.clone();
    tasks.spawn(async move { reaper.reap().await });
    shutdown.await;
    tasks.shutdown().await;
    info!("kubelet stops; containers go on");
    Ok(())
}

async fn follow_runtime(cx: Arc<Context>, pods: Arc<Pods>, mut events: mpsc::Receiver<cri::events::Event>) {
    while let Some(event) = events.recv().await {
        if event == cri::events::Event::Relist
            && let Ok(v) = cx.runtime.version().await
        {
            *cx.runtime_name.write().unwrap_or_else(PoisonError::into_inner) = v.runtime_name;
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
    let reserved = |m: &std::collections::BTreeMap<String, String>| m.get("memory").and_then(|q| quantity::parse(q)).unwrap_or_default();
    Some(total.minus(reserved(&config.system_reserved)).minus(reserved(&config.kube_reserved)).bytes()).filter(|b| *b > 0)
}

