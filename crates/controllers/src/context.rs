//! What controllers are made from: the client, the shared informers, the settings.

use crate::common::pods;
use crate::health::Health;
use crate::horizontal;
use client::{
    Client, Controller, EventRecorder, Informer, Informers, Metrics, Scope, SharedDiscovery, TokenSource,
    WorkQueue,
};
use k8s_openapi::api::core::v1::Pod;
use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Requests that are under way at once, of all controllers together: what they answer is held in memory.
const IN_FLIGHT: usize = 64;
/// The same for informers' lists, whose pages are large.
const LISTS_IN_FLIGHT: usize = 16;

/// The settings; upstream's flags by name.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--controllers`: names, `*` for those that are on by default, `-name` to leave one out.
    pub controllers: Vec<String>,
    /// `--use-service-account-credentials`.
    pub use_service_account_credentials: bool,
    /// `--allocate-node-cidrs`.
    pub allocate_node_cidrs: bool,
    /// `--cluster-cidr`.
    pub cluster_cidrs: Vec<String>,
    /// `--service-cluster-ip-range`: not handed out to nodes.
    pub service_cidrs: Vec<String>,
    /// `--node-cidr-mask-size`, `-ipv4`, `-ipv6`.
    pub node_cidr_mask_sizes: (u8, u8),
    /// `--service-account-private-key-file`.
    pub service_account_key: Option<PathBuf>,
    /// The content of `--root-ca-file`.
    pub root_ca: Option<String>,
    /// `--cluster-signing-cert-file` and `-key-file`, by signer; the empty name is for all.
    pub signing: HashMap<String, (PathBuf, PathBuf)>,
    /// `--cluster-signing-duration`.
    pub signing_duration: Duration,
    /// `--node-monitor-grace-period`.
    pub node_monitor_grace_period: Duration,
    /// `--node-startup-grace-period`.
    pub node_startup_grace_period: Duration,
    /// `--node-monitor-period`.
    pub node_monitor_period: Duration,
    /// `--node-eviction-rate`, per second.
    pub node_eviction_rate: f64,
    /// `--secondary-node-eviction-rate`, per second.
    pub secondary_node_eviction_rate: f64,
    /// `--unhealthy-zone-threshold`.
    pub unhealthy_zone_threshold: f64,
    /// `--large-cluster-size-threshold`.
    pub large_cluster_size: usize,
    /// `--terminated-pod-gc-threshold`.
    pub terminated_pods: usize,
    /// `--max-endpoints-per-slice`.
    pub max_endpoints_per_slice: usize,
    /// `--mirroring-max-endpoints-per-subset`.
    pub mirroring_max_endpoints_per_subset: usize,
    /// `--horizontal-pod-autoscaler-*`.
    pub horizontal: horizontal::Settings,
    /// `--pvclaimbinder-sync-period`.
    pub binder_sync_period: Duration,
    /// `--enable-dynamic-provisioning`.
    pub dynamic_provisioning: bool,
    /// `--resource-quota-sync-period`.
    pub resource_quota_sync_period: Duration,
    /// `--min-resync-period`.
    pub min_resync_period: Duration,
    /// `--controller-shutdown-timeout`.
    pub shutdown_timeout: Duration,
    /// `--kube-api-qps` and `--kube-api-burst`, of each controller, if they are given.
    pub pace: Option<(f64, u32)>,
    /// `--concurrent-*-syncs`, by the controller's name, where it is not the default.
    pub workers: HashMap<&'static str, usize>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            controllers: vec!["*".into()],
            use_service_account_credentials: false,
            allocate_node_cidrs: false,
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            node_cidr_mask_sizes: (24, 64),
            service_account_key: None,
            root_ca: None,
            signing: HashMap::new(),
            signing_duration: Duration::from_secs(365 * 24 * 3600),
            node_monitor_grace_period: Duration::from_secs(50),
            node_startup_grace_period: Duration::from_secs(60),
            node_monitor_period: Duration::from_secs(5),
            node_eviction_rate: 0.1,
            secondary_node_eviction_rate: 0.01,
            unhealthy_zone_threshold: 0.55,
            large_cluster_size: 50,
            terminated_pods: 12500,
            max_endpoints_per_slice: 100,
            mirroring_max_endpoints_per_subset: 1000,
            horizontal: horizontal::Settings::default(),
            binder_sync_period: Duration::from_secs(15),
            dynamic_provisioning: true,
            resource_quota_sync_period: Duration::from_secs(300),
            min_resync_period: Duration::from_secs(12 * 3600),
            shutdown_timeout: Duration::from_secs(10),
            pace: None,
            workers: HashMap::new(),
        }
    }
}

/// What a controller is made from. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// Without limits, for tokens: whoever waits for one already counts.
    client: Client,
    /// The same within the limits.
    bounded: Client,
    /// Without our certificate, for the controllers' own service accounts.
    anonymous: Option<Client>,
    /// What the API server serves.
    pub discovery: SharedDiscovery,
    /// Is sent when that may have changed.
    pub definitions: watch::Sender<()>,
    /// Who runs.
    pub health: Health,
    metrics: Metrics,
    /// The informers that all controllers share.
    pub informers: Informers,
    /// The settings.
    pub config: Arc<Config>,
    /// Ends everything.
    pub shutdown: CancellationToken,
}

impl Context {
    /// What controllers are made from, until shutdown.
    pub fn new(
        client: Client,
        config: Config,
        metrics: Metrics,
        health: Health,
        shutdown: CancellationToken,
    ) -> Result<Self, client::Error> {
        let bounded = client.clone().bounded(IN_FLIGHT);
        let anonymous = match config.use_service_account_credentials {
            true => Some(bounded.with_token(TokenSource::None)?),
            false => None,
        };
        let lists = client.named("kube-controller-manager/shared-informers").bounded(LISTS_IN_FLIGHT);
        let informers = Informers::new(lists, shutdown.clone()).resync(config.min_resync_period);
        Ok(Context {
            discovery: SharedDiscovery::new(client.named("kube-controller-manager/discovery")),
            definitions: watch::Sender::new(()),
            client,
            bounded,
            anonymous,
            informers,
            config: Arc::new(config),
            health,
            metrics,
            shutdown,
        })
    }

    /// A reconcile loop under a controller's name.
    pub fn controller<K>(&self, name: &'static str) -> Controller<K>
    where
        K: Eq + Hash + Clone + Debug + Send + Sync + 'static,
    {
        self.controller_with(name, WorkQueue::new())
    }

    /// The same with a queue of its own.
    pub fn controller_with<K>(&self, name: &'static str, queue: WorkQueue<K>) -> Controller<K>
    where
        K: Eq + Hash + Clone + Debug + Send + Sync + 'static,
    {
        Controller::new(name)
            .with_queue(queue)
            .metered(&self.metrics)
            .drain_within(self.config.shutdown_timeout)
    }

    fn paced(&self, client: Client) -> Client {
        match self.config.pace {
            Some((per_second, burst)) => client.paced(per_second, burst),
            None => client,
        }
    }

    /// The client of a controller that works with the daemon's own rights.
    pub fn own_client(&self, name: &str) -> Client {
        self.paced(self.bounded.named(&format!("kube-controller-manager/{name}")))
    }

    /// The client of one controller: its own service account's, if such are to be used.
    pub fn client(&self, account: &str) -> Client {
        let named = format!("kube-controller-manager/{account}");
        self.paced(match &self.anonymous {
            None => self.bounded.named(&named),
            Some(anonymous) => {
                let token = TokenSource::service_account(&self.client, "kube-system", account);
                anonymous.sharing(token).named(&named)
            }
        })
    }

    /// Events as a component.
    pub fn events(&self, client: &Client, component: &str) -> EventRecorder {
        EventRecorder::new(client.clone(), component, "")
    }

    /// All pods, without what no controller reads, indexed by owner and by node.
    pub fn pods(&self) -> Informer<Pod> {
        let pods = self.informers.informer_stripped::<Pod>(Scope::default(), pods::strip);
        pods.index(pods::BY_OWNER, pods::owner_keys);
        pods.index(pods::BY_NODE, |p| {
            let node = pods::node_name(p);
            if node.is_empty() { vec![] } else { vec![node.into()] }
        });
        pods
    }

    /// With how many workers a controller runs.
    pub fn workers(&self, name: &str, default: usize) -> usize {
        self.config.workers.get(name).copied().unwrap_or(default)
    }
}
