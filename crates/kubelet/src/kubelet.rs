//! Puts the parts together and runs them until told to stop.

use crate::blocking::Blocking;
use crate::bootstrap;
use crate::cgroups::{CgroupError, Cgroups};
use crate::config::{CgroupDriver, Config};
use crate::context::Context;
use crate::events::Events;
use crate::health::Health;
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
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
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
    /// A part of it ended that never should.
    #[error("{0} ended unexpectedly; the kubelet ends, to begin anew")]
    Lost(String),
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

async fn work(mut config: Config, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    check_node(&config)?;
    sys::node::close_umask();
    prepare_directories(&mut config)?;
    if let Err(e) = sys::node::set_oom_score_adj(config.oom_score_adj) {
        warn!(error = %e, wanted = config.oom_score_adj, "this process's oom_score_adj stays as it is");
    }
    // volumes mounted by pods show on the node, and the other way round
    if let Err(e) = sys::mount::make_shared(&config.root_dir) {
        warn!(error = %e, "mounts are not shared between node and pods");
    }
    let runtime = Runtime::new(&config.runtime_endpoint, &config.image_endpoint, config.runtime_timeout)?;
    if let Some(driver) = runtimes_driver(&runtime).await {
        if driver != config.cgroup_driver {
            info!(?driver, "the container runtime's cgroup driver is used");
        }
        config.cgroup_driver = driver;
    }
    let cgroups = Cgroups::detect(config.cgroup_driver, &config.cgroup_root, config.cgroups_per_qos)?;
    if cgroups.version() == 1 && config.fail_cgroup_v1 {
        return Err(RunError::Node("kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is in maintenance mode: set failCgroupV1 to false".into()));
    }
    let measured = capacity::measure(&config);
    let memory = quantity::of(Some(&measured.total), "memory");
    let cpu = quantity::of(Some(&measured.allocatable), "cpu");
    let blocking = Blocking::default();
    if let Err(e) = cgroups.set_up_node(&blocking, cpu.milli(), node_memory_limit(&config, memory)).await {
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
        records: Records::new(config.pods_dir()),
        bounds_swap: cgroups.bounds_swap(),
        apparmor: crate::admit::has_apparmor(),
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        blocking,
        abilities: RwLock::default(),
        health: Health::default(),
        config,
        runtime,
        cgroups,
    });
    info!(node = cx.config.node_name, version = facts::VERSION, "kubelet starts");
    cx.events.node("Normal", "Starting", "Starting kubelet.");
    let stop = CancellationToken::new();
    let mut parts = Parts::default();
    let mut sources = Vec::new();
    if cx.config.static_pod_path.is_some() {
        sources.push(Source::File);
    }
    if client.is_some() {
        sources.push(Source::Api);
    }
    let pods = Pods::new(cx.clone(), sources);
    let node_poke = Arc::new(Notify::new());
    if cx.config.static_pod_path.is_some() {
        let (send, receive) = mpsc::channel(1);
        parts.add("the watch on static pods", sources::file::watch(cx.config.clone(), send));
        parts.add("static pods", follow_files(cx.clone(), pods.clone(), receive));
    }
    if let Some(client) = &client {
        let informers = Informers::new(client.clone(), stop.clone());
        cx.objects.set_services(informers.informer::<Service>());
        sources::apiserver::refresh_on_change(&cx, &pods);
        let ips = addresses.iter().filter_map(|a| a.parse().ok()).collect();
        let rotate = bootstrap::rotate(client.clone(), cx.config.clone(), ips);
        parts.add("certificate rotation", async move {
            rotate.await;
            std::future::pending().await // there is nothing to rotate
        });
        let registered = CancellationToken::new();
        parts.add(
            "node status",
            register::keep(cx.clone(), client.clone(), server, node_poke.clone(), registered.clone()),
        );
        let (lease, node, duration) =
            (client.clone(), cx.config.node_name.clone(), cx.config.node_lease_duration);
        // pods are judged by the node's labels, which have to be known first
        let follow = sources::apiserver::follow(cx.clone(), pods.clone(), informers, client.clone());
        let known = registered.clone();
        parts.add("pods of the API server", async move {
            known.cancelled().await;
            follow.await;
        });
        let mirrors = cx.mirrors.clone();
        parts.add("the node's lease", async move {
            registered.cancelled().await;
            mirrors.poke();
            lease::keep(lease, node, duration).await;
        });
        let status = cx.clone();
        parts.add("pod statuses", async move { status.status.run(&status.health).await });
        let (mirrors, api, node) = (cx.mirrors.clone(), client.clone(), cx.config.node_name.clone());
        parts.add("mirror pods", async move { mirrors.run(&api, &node).await });
    }
    let (send, receive) = mpsc::channel(256);
    parts.add("the runtime's events", cri::events::watch(cx.runtime.clone(), send));
    parts.add(
        "what follows the runtime's events",
        follow_runtime(cx.clone(), pods.clone(), receive, node_poke),
    );
    let (reaper, collector) = (pods.clone(), pods.clone());
    parts.add("pods", async move { reaper.reap().await });
    parts.add("the collector", async move { collector.collect().await });
    let records = cx.clone();
    parts.add("records", async move { records.records.run(&records.blocking, &records.health).await });
    parts.add("housekeeping", housekeeping::run(cx.clone(), pods.clone()));
    parts.add("the watchdog", crate::health::tell_systemd(cx.clone()));
    let tls = Arc::new(ServingCertificate::load(&cx.config, &addresses)?);
    let gate = Gate::new(&cx.config, client);
    parts.add("the server", Server::new(cx.clone(), pods, gate).serve(tls));
    let ended = tokio::select! {
        () = shutdown => Ok(()),
        lost = parts.any() => Err(RunError::Lost(lost)),
    };
    stop.cancel();
    parts.0.shutdown().await;
    info!("kubelet stops; containers go on");
    ended
}

/// The parts of a running kubelet. None of them ends by itself: one that does has failed, and a kubelet without it
/// would only seem to run.
#[derive(Default)]
struct Parts(JoinSet<&'static str>, HashMap<tokio::task::Id, &'static str>);

impl Parts {
    fn add(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        let handle = self.0.spawn(async move {
            part.await;
            name
        });
        self.1.insert(handle.id(), name);
    }

    /// The name of the first that ends.
    async fn any(&mut self) -> String {
        match self.0.join_next_with_id().await {
            Some(Ok((_, name))) => name.to_owned(),
            Some(Err(e)) => self.1.get(&e.id()).map_or_else(|| e.to_string(), |name| (*name).to_owned()),
            None => "everything".to_owned(),
        }
    }
}

/// Makes the kubelet's directories, for nobody else to look into, and finds out where they really are: the kernel's
/// table of mounts knows no links.
fn prepare_directories(config: &mut Config) -> Result<(), RunError> {
    let failed = |path: &Path| {
        let path = path.to_string_lossy().into_owned();
        move |source| RunError::Directory { path, source }
    };
    let real = |path: &Path| {
        sys::dir::make_all(path, 0o750)?;
        path.canonicalize()
    };
    config.root_dir = real(&config.root_dir).map_err(failed(&config.root_dir))?;
    config.pod_logs_dir = real(&config.pod_logs_dir).map_err(failed(&config.pod_logs_dir))?;
    let pods = config.pods_dir();
    real(&pods).map_err(failed(&pods))?;
    for dir in [&config.root_dir, &pods, &config.pod_logs_dir] {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o750)).map_err(failed(dir))?;
    }
    // those that an earlier kubelet left open to all
    for e in std::fs::read_dir(&pods).map_err(failed(&pods))?.flatten().filter(|e| e.path().is_dir()) {
        if let Err(e) = std::fs::set_permissions(e.path(), std::fs::Permissions::from_mode(0o750)) {
            warn!(error = %e, "a pod's directory stays as open as it is");
        }
    }
    Ok(())
}

/// How long a runtime that is still starting is waited for.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(60);

/// The cgroup driver that the runtime uses, where it tells: both have to use the same.
async fn runtimes_driver(runtime: &Runtime) -> Option<CgroupDriver> {
    use cri::types::CgroupDriver as Theirs;
    let asked = async {
        loop {
            match runtime.runtime_config().await {
                Ok(answer) => {
                    return answer.linux.map(|l| match l.cgroup_driver() {
                        Theirs::Systemd => CgroupDriver::Systemd,
                        Theirs::Cgroupfs => CgroupDriver::Cgroupfs,
                    });
                }
                Err(e) if e.is_unimplemented() => return None,
                Err(e) => {
                    info!(error = %e, "the container runtime cannot be asked for its cgroup driver yet");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    };
    let answer = tokio::time::timeout(RUNTIME_PATIENCE, asked).await;
    answer.unwrap_or_else(|_| {
        warn!("the container runtime did not tell its cgroup driver; the configured one is used");
        None
    })
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

async fn follow_files(cx: Arc<Context>, pods: Arc<Pods>, mut lists: mpsc::Receiver<Vec<Arc<Pod>>>) {
    // two of one name never run at once
    pods.find_leftovers().await;
    while let Some(list) = lists.recv().await {
        cx.mirrors.want(&list);
        pods.replace(Source::File, &list);
    }
}

/// For so long a loop may be silent.
const BEAT: Duration = Duration::from_secs(300);

async fn follow_runtime(
    cx: Arc<Context>,
    pods: Arc<Pods>,
    mut events: mpsc::Receiver<cri::events::Event>,
    node: Arc<Notify>,
) {
    loop {
        cx.health.beat("runtime events", BEAT);
        let event = match tokio::time::timeout(BEAT / 4, events.recv()).await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(_) => continue,
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_ends_is_named() {
        let mut parts = Parts::default();
        parts.add("one that goes on", std::future::pending());
        parts.add("one that fails", async { panic!("on purpose") });
        assert_eq!(parts.any().await, "one that fails");
        parts.add("one that ends", async {});
        assert_eq!(parts.any().await, "one that ends");
    }

    #[test]
    fn directories_are_real_and_the_kubelets_own() -> Result<(), Box<dyn std::error::Error>> {
        let t = tempfile::tempdir()?;
        let at = |p: &str| t.path().join(p);
        std::fs::create_dir_all(at("data/pods/u"))?;
        std::fs::set_permissions(at("data/pods/u"), std::fs::Permissions::from_mode(0o755))?;
        std::os::unix::fs::symlink(at("data"), at("kubelet"))?;
        let flags = <crate::Flags as clap::Parser>::parse_from([
            "kubelet".to_owned(),
            format!("--root-dir={}", at("kubelet").display()),
        ]);
        let mut config = Config::resolve(&flags, Default::default(), Path::new(""))?;
        config.pod_logs_dir = at("logs");
        prepare_directories(&mut config)?;
        assert_eq!(config.root_dir, at("data").canonicalize()?);
        for dir in ["data", "data/pods", "data/pods/u", "logs"] {
            assert_eq!(std::fs::metadata(at(dir))?.permissions().mode() & 0o7777, 0o750, "{dir}");
        }
        Ok(())
    }
}
