//! The loop: what changed since the last time is computed and committed, a service at a time or all.

use crate::command::{self, CommandError};
use crate::config::{Config, ConfigError, LocalMode, Options};
use crate::conntrack::Frontends;
use crate::health::{self, Health, ServiceHealth};
use crate::metrics::{Labels, Metrics, TableLabels};
use crate::model::{Cidr, Family, SERVICE_NAME, endpoints, service_ports};
use crate::rules::{LocalTraffic, Piece, Settings, service_port};
use crate::tables::{Found, Restore, ServiceKey, Tables, cleanup};
use client::{Client, Informer, Informers, Lister, ObjectExt, Scope};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Changes tend to come together: the first waits so long for others.
const QUIET: Duration = Duration::from_millis(10);
/// Everything is written anew this often, whatever we think the kernel has.
const FULL_PERIOD: Duration = Duration::from_secs(3600);
/// With more endpoints rules go without comments.
const LARGE: usize = 1000;
/// Services and slices that are not for this proxy.
const SELECTOR: &str = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless";

/// Why the proxy ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The API server can't be reached with what we were given.
    #[error("--kubeconfig: {0}")]
    Kubeconfig(#[from] client::ConfigError),
    /// The client can't be made.
    #[error("--kubeconfig: {0}")]
    Client(#[from] client::Error),
    /// An address can't be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// The kernel can't be programmed.
    #[error("cannot program iptables: {0}")]
    IpTables(String),
}

/// What has to be looked at again.
#[derive(Default)]
struct Dirty {
    state: Mutex<(BTreeSet<ServiceKey>, bool)>,
    wake: Notify,
}

impl Dirty {
    fn state(&self) -> MutexGuard<'_, (BTreeSet<ServiceKey>, bool)> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn add(&self, key: ServiceKey) {
        self.state().0.insert(key);
        self.wake.notify_one();
    }

    fn add_all(&self) {
        self.state().1 = true;
        self.wake.notify_one();
    }

    fn take(&self) -> (BTreeSet<ServiceKey>, bool) {
        std::mem::take(&mut self.state())
    }
}

/// Runs the proxy until shutdown.
pub fn run(
    options: Options,
    shutdown: CancellationToken,
) -> Pin<Box<dyn Future<Output = Result<(), Error>>>> {
    // Boxed, the daemon is compiled here, once, and not again in its program.
    Box::pin(work(options, shutdown))
}

async fn work(options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    let config = Config::load(&options)?;
    if options.cleanup {
        return clean(&config).await;
    }
    prepare(&config);
    if options.init_only {
        return Ok(());
    }
    let mut access = match &config.kubeconfig {
        Some(path) => client::Config::from_kubeconfig_file(path)?,
        None => client::Config::in_cluster()?,
    };
    if let Some(master) = &config.master {
        access.server.clone_from(master);
    }
    let client = Client::new(access.user_agent("kube-proxy"))?;
    let mut families = vec![FamilyState::new(Family::V4)];
    families[0].probe().await.map_err(|e| Error::IpTables(e.to_string()))?;
    let v6 = FamilyState::new(Family::V6);
    match v6.probe().await {
        Ok(()) => families.push(v6),
        Err(e) => tracing::info!("no IPv6: {e}"),
    }

    let informers = Informers::new(client, shutdown.clone());
    let scope = || Scope { label_selector: SELECTOR.into(), ..Scope::default() };
    let services: Informer<Service> = informers.informer_with(scope());
    let slices: Informer<EndpointSlice> = informers.informer_with(scope());
    let nodes: Informer<Node> = informers.informer_with(Scope {
        field_selector: format!("metadata.name={}", config.node),
        ..Scope::default()
    });
    slices
        .index("service", |s| service_key(s).map(|(ns, name)| format!("{ns}/{name}")).into_iter().collect());

    let dirty = Arc::new(Dirty::default());
    let health = Arc::new(Health::new(2 * config.sync_period));
    let metrics = Arc::new(Metrics::new());
    let (d, h) = (dirty.clone(), health.clone());
    services.on(move |e| {
        h.queued();
        d.add((e.object().namespace().into(), e.object().name().into()));
    });
    let (d, h) = (dirty.clone(), health.clone());
    slices.on(move |e| {
        h.queued();
        for key in e.old().into_iter().chain([e.object()]).filter_map(|s| service_key(s)) {
            d.add(key);
        }
    });
    let d = dirty.clone();
    nodes.on(move |e| {
        if e.old().is_none_or(|old| differs(old, e.object())) {
            d.add_all();
        }
    });
    serve(config.healthz, config.bind_address_hard_fail, health::health_answers(health.clone()), &shutdown)
        .await?;
    serve(config.metrics, config.bind_address_hard_fail, health::metrics_answers(metrics.clone()), &shutdown)
        .await?;

    let synced = async { tokio::join!(services.synced(), slices.synced(), nodes.synced()) };
    if shutdown.run_until_cancelled(synced).await.is_none() {
        return Ok(());
    }
    let proxy = Proxy {
        services: services.lister(),
        slices: slices.lister(),
        nodes: nodes.lister(),
        families,
        dirty,
        health,
        metrics,
        service_health: ServiceHealth::default(),
        health_ports: BTreeMap::new(),
        conntrack_missing: false,
        shutdown: shutdown.clone(),
        config,
    };
    shutdown.run_until_cancelled(proxy.run()).await;
    Ok(())
}

fn service_key(slice: &EndpointSlice) -> Option<ServiceKey> {
    Some((slice.namespace().to_string(), slice.label(SERVICE_NAME)?.to_string()))
}

/// Whether a node changed in what rules or health depend on; its heartbeats don't count.
fn differs(old: &Node, new: &Node) -> bool {
    let addresses = |n: &Node| n.status.as_ref().and_then(|s| s.addresses.clone());
    old.spec != new.spec
        || old.metadata.labels != new.metadata.labels
        || old.is_deleting() != new.is_deleting()
        || addresses(old) != addresses(new)
}

/// Listens; an address that is taken is tried again, unless that is to be fatal.
async fn serve(
    address: Option<SocketAddr>,
    hard: bool,
    answers: impl Fn(&str) -> health::Answer + Send + Sync + 'static,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let Some(address) = address else { return Ok(()) };
    let stop = shutdown.clone();
    match TcpListener::bind(address).await {
        Ok(listener) => {
            tokio::spawn(health::serve(listener, answers, stop));
        }
        Err(e) if hard => return Err(Error::Listen(address, e)),
        Err(e) => {
            tracing::error!("cannot listen on {address}, trying again: {e}");
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    if let Ok(listener) = TcpListener::bind(address).await {
                        return health::serve(listener, answers, stop).await;
                    }
                }
            });
        }
    }
    Ok(())
}

/// Kernel settings. A container may not be allowed to make them: that is logged and passed over.
fn prepare(config: &Config) {
    let localnet = config.localhost_node_ports.then_some(("net/ipv4/conf/all/route_localnet", 1));
    for (path, value) in config.sysctls.iter().copied().chain(localnet) {
        let path = format!("/proc/sys/{path}");
        let current = std::fs::read_to_string(&path).ok().and_then(|v| v.trim().parse::<u64>().ok());
        // The tracker's size only grows: others may have asked for more.
        if current.is_some_and(|c| c == value || (path.ends_with("nf_conntrack_max") && c > value)) {
            continue;
        }
        if let Err(e) = std::fs::write(&path, value.to_string()) {
            tracing::warn!("cannot set {path} to {value}: {e}");
        }
    }
    if let Err(e) = std::fs::write("/proc/self/oom_score_adj", config.oom_score_adj.to_string()) {
        tracing::warn!("cannot set oom_score_adj to {}: {e}", config.oom_score_adj);
    }
}

async fn clean(config: &Config) -> Result<(), Error> {
    for family in [Family::V4, Family::V6].map(FamilyState::new) {
        let found = match family.save().await {
            Ok(found) => found,
            Err(e) if family.family == Family::V6 => {
                tracing::info!("no IPv6: {e}");
                continue;
            }
            Err(e) => return Err(Error::IpTables(e.to_string())),
        };
        let text = cleanup(&settings(config, None, family.family, false), &found);
        family.restore(&text).await.map_err(|e| Error::IpTables(e.to_string()))?;
    }
    Ok(())
}

fn settings(config: &Config, node: Option<&Node>, family: Family, large: bool) -> Settings {
    let addresses = node.and_then(|n| n.status.as_ref()?.addresses.as_ref()).into_iter().flatten();
    let of_kind = |kind: &str| {
        let mut found =
            addresses.clone().filter(|a| a.type_ == kind).filter_map(|a| a.address.parse::<IpAddr>().ok());
        found.find(|ip| Family::of(*ip) == family)
    };
    let given = config.bind_address.filter(|ip| Family::of(*ip) == family);
    let node_ip = given.or_else(|| of_kind("InternalIP")).or_else(|| of_kind("ExternalIP"));
    let pod_ranges = node.and_then(|n| n.spec.as_ref()).into_iter().flat_map(|s| {
        s.pod_cidrs.iter().flatten().chain(&s.pod_cidr).filter_map(|c| Cidr::parse(c)).collect::<Vec<_>>()
    });
    let first = |mut ranges: Box<dyn Iterator<Item = Cidr> + '_>| {
        ranges.find(|c| Family::of(c.ip) == family).map_or(LocalTraffic::Unknown, LocalTraffic::Cidr)
    };
    let local = match &config.local_mode {
        LocalMode::Cluster(ranges) => first(Box::new(ranges.iter().copied())),
        LocalMode::Node => first(Box::new(pod_ranges)),
        LocalMode::Interface(name) => LocalTraffic::Interface(name.clone()),
    };
    let node_port_addresses = match (config.node_ports_at_primary, node_ip) {
        (true, Some(ip)) => vec![Cidr { ip, bits: if ip.is_ipv4() { 32 } else { 128 } }],
        // An address of the family that nobody outside reaches: without any, all would be open.
        (true, None) if family == Family::V4 => vec![Cidr { ip: Ipv4Addr::LOCALHOST.into(), bits: 32 }],
        (true, None) => vec![Cidr { ip: std::net::Ipv6Addr::LOCALHOST.into(), bits: 128 }],
        (false, _) => config.node_port_addresses.clone(),
    };
    Settings {
        family,
        node: config.node.clone(),
        zone: node.and_then(|n| n.label("topology.kubernetes.io/zone")).unwrap_or_default().into(),
        node_ip,
        local,
        masquerade_all: config.masquerade_all,
        masquerade_bit: config.masquerade_bit,
        localhost_node_ports: config.localhost_node_ports,
        node_port_addresses,
        tcp_be_liberal: config.tcp_be_liberal,
        large,
    }
}

/// A family's tables and the programs for them.
struct FamilyState {
    family: Family,
    programs: [&'static str; 3],
    /// `None` until everything was written once.
    settings: Option<Settings>,
    tables: Tables,
    last_full: Instant,
}

impl FamilyState {
    fn new(family: Family) -> Self {
        let programs = match family {
            Family::V4 => ["iptables", "iptables-save", "iptables-restore"],
            Family::V6 => ["ip6tables", "ip6tables-save", "ip6tables-restore"],
        };
        FamilyState { family, programs, settings: None, tables: Tables::default(), last_full: Instant::now() }
    }

    /// Whether the tables can be used at all.
    async fn probe(&self) -> Result<(), CommandError> {
        command::run(self.programs[0], &["-w", "5", "-t", "nat", "-S", "POSTROUTING"], "").await.map(drop)
    }

    /// Whether what we wrote is still there. A firewall's reload takes it away with everything else.
    async fn intact(&self) -> bool {
        let args = ["-w", "5", "-t", "nat", "-S", "KUBE-PROXY-CANARY"];
        command::run(self.programs[0], &args, "").await.is_ok()
    }

    async fn save(&self) -> Result<Found, CommandError> {
        let mut found = String::new();
        for table in ["filter", "nat"] {
            found += &command::run(self.programs[1], &["-t", table], "").await?;
        }
        Ok(Found::read(&found))
    }

    async fn restore(&self, text: &str) -> Result<(), CommandError> {
        if text.is_empty() {
            return Ok(());
        }
        command::run(self.programs[2], &["-w", "5", "--noflush"], text).await.map(drop)
    }
}

struct Proxy {
    config: Config,
    services: Lister<Service>,
    slices: Lister<EndpointSlice>,
    nodes: Lister<Node>,
    families: Vec<FamilyState>,
    dirty: Arc<Dirty>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    service_health: ServiceHealth,
    /// The health check port and the number of local endpoints of services that have such a port.
    health_ports: BTreeMap<ServiceKey, (u16, usize)>,
    conntrack_missing: bool,
    shutdown: CancellationToken,
}

impl Proxy {
    async fn run(mut self) {
        self.dirty.add_all();
        let mut check = tokio::time::interval(self.config.sync_period);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        check.tick().await;
        let mut retry = Duration::from_millis(500);
        loop {
            tokio::select! {
                () = self.dirty.wake.notified() => {}
                _ = check.tick() => {
                    self.check().await;
                    continue;
                }
            }
            tokio::time::sleep(QUIET).await;
            let started = Instant::now();
            let (keys, all) = self.dirty.take();
            if keys.is_empty() && !all {
                continue;
            }
            if self.sync(keys, all).await {
                self.health.updated();
                retry = Duration::from_millis(500);
                tokio::time::sleep_until(started + self.config.min_sync_period).await;
            } else {
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(self.config.sync_period);
                self.dirty.add_all();
            }
        }
    }

    async fn check(&self) {
        for family in &self.families {
            if family.last_full.elapsed() > FULL_PERIOD {
                self.dirty.add_all();
            } else if !family.intact().await {
                tracing::warn!("{} rules are gone: writing all", family.family.as_str());
                self.dirty.add_all();
            }
        }
    }

    async fn sync(&mut self, keys: BTreeSet<ServiceKey>, all: bool) -> bool {
        let node = self.nodes.get("", &self.config.node);
        let tainted = node.iter().flat_map(|n| n.spec.as_ref()?.taints.as_ref()).flatten();
        let leaving = tainted.map(|t| t.key.as_str()).any(|key| key == "ToBeDeletedByClusterAutoscaler");
        self.health.set_eligible(!leaving && !node.as_ref().is_some_and(|n| n.is_deleting()));
        let count = |s: &Arc<EndpointSlice>| {
            s.endpoints.as_ref().map_or(0, Vec::len) * s.ports.as_ref().map_or(0, Vec::len)
        };
        let large = self.slices.list().iter().map(count).sum::<usize>() > LARGE;
        let mut ok = true;
        for i in 0..self.families.len() {
            let family = self.families[i].family;
            let wanted = settings(&self.config, node.as_deref(), family, large);
            let full = all || self.families[i].settings.as_ref() != Some(&wanted);
            let started = Instant::now();
            match self.sync_family(i, wanted, &keys, full).await {
                Ok(restore) => self.measure(family, started, &restore),
                Err(e) => {
                    ok = false;
                    self.families[i].settings = None;
                    self.metrics.failures.get_or_create(&Labels { ip_family: family.as_str() }).inc();
                    tracing::error!("cannot write {} rules, trying again: {e}", family.as_str());
                }
            }
        }
        let changed =
            if all { self.services.list() } else { self.some(&keys).into_iter().flatten().collect() };
        if all {
            self.health_ports.clear();
        }
        for key in &keys {
            self.health_ports.remove(key);
        }
        for service in &changed {
            self.note_health_port(service);
        }
        self.service_health.sync(self.health_ports.clone(), &self.health, &self.shutdown).await;
        if ok && changed.iter().any(|s| has_udp(s)) {
            self.forget_flows().await;
        }
        ok
    }

    async fn sync_family(
        &mut self,
        i: usize,
        wanted: Settings,
        keys: &BTreeSet<ServiceKey>,
        full: bool,
    ) -> Result<Restore, CommandError> {
        let restore = if full {
            let pieces = self.services.list().iter().map(|s| (key(s), self.piece(s, &wanted))).collect();
            let state = &mut self.families[i];
            let found = state.save().await?;
            let (tables, restore) = Tables::full(&wanted, pieces, &found);
            (state.tables, state.last_full) = (tables, Instant::now());
            restore
        } else {
            let current = keys.iter().cloned().zip(self.some(keys));
            let changes = current.map(|(key, s)| (key, s.map(|s| self.piece(&s, &wanted)))).collect();
            self.families[i].tables.update(&wanted, changes)
        };
        let state = &mut self.families[i];
        tracing::debug!("{} rules, all: {full}\n{}", state.family.as_str(), restore.text);
        state.restore(&restore.text).await?;
        state.settings = Some(wanted);
        Ok(restore)
    }

    fn some(&self, keys: &BTreeSet<ServiceKey>) -> Vec<Option<Arc<Service>>> {
        keys.iter().map(|(namespace, name)| self.services.get(namespace, name)).collect()
    }

    fn slices_of(&self, service: &Service) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index("service", &format!("{}/{}", service.namespace(), service.name()))
    }

    fn piece(&self, service: &Service, s: &Settings) -> Piece {
        let (mut piece, slices) = (Piece::default(), self.slices_of(service));
        for port in service_ports(service, s.family) {
            service_port(&port, &endpoints(&slices, s.family, &port, &s.node), s, &mut piece);
        }
        piece
    }

    fn note_health_port(&mut self, service: &Service) {
        let (slices, mut found) = (self.slices_of(service), None);
        for family in [Family::V4, Family::V6] {
            for port in service_ports(service, family).iter().filter(|p| p.health_port != 0) {
                let endpoints = endpoints(&slices, family, port, &self.config.node);
                let local: BTreeSet<IpAddr> =
                    endpoints.iter().filter(|e| e.local && e.ready).map(|e| e.ip).collect();
                let before = found.map_or(0, |(_, n): (u16, usize)| n);
                found = Some((port.health_port, before.max(local.len())));
            }
        }
        if let Some(found) = found {
            self.health_ports.insert(key(service), found);
        }
    }

    async fn forget_flows(&mut self) {
        let mut frontends = Frontends::default();
        for service in self.services.list().iter().filter(|s| has_udp(s)) {
            let slices = self.slices_of(service);
            for family in self.families.iter().map(|f| f.family) {
                for port in service_ports(service, family) {
                    frontends.add(&port, &endpoints(&slices, family, &port, &self.config.node));
                }
            }
        }
        if frontends.is_empty() || self.conntrack_missing {
            return;
        }
        for family in self.families.iter().map(|f| if f.family == Family::V4 { "ipv4" } else { "ipv6" }) {
            let listing = match command::run("conntrack", &["-L", "-f", family, "-p", "udp"], "").await {
                Ok(listing) => listing,
                Err(e) => {
                    self.conntrack_missing =
                        matches!(&e, CommandError::Io(_, e) if e.kind() == std::io::ErrorKind::NotFound);
                    tracing::warn!("flows to UDP endpoints that are gone stay: {e}");
                    return;
                }
            };
            for flow in frontends.stale(&listing) {
                let args = flow.delete();
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                if let Err(e) = command::run("conntrack", &args, "").await {
                    tracing::debug!("a flow went away by itself: {e}");
                }
            }
        }
    }

    fn measure(&self, family: Family, started: Instant, restore: &Restore) {
        let labels = Labels { ip_family: family.as_str() };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        self.metrics.latency.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
        self.metrics.last_sync.get_or_create(&labels).set(now);
        self.metrics.last_queued.get_or_create(&labels).set(now - started.elapsed().as_secs_f64());
        for (table, count) in [("filter", restore.filter_rules), ("nat", restore.nat_rules)] {
            let labels = TableLabels { ip_family: family.as_str(), table };
            self.metrics.rules_last.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

fn key(service: &Service) -> ServiceKey {
    (service.namespace().into(), service.name().into())
}

fn has_udp(service: &Service) -> bool {
    let ports = service.spec.iter().filter_map(|s| s.ports.as_ref()).flatten();
    ports.map(|p| p.protocol.as_deref()).any(|p| p == Some("UDP"))
}
