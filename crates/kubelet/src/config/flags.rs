//! Command-line flags, by upstream's names.

use super::GoDuration;
use clap::Parser;

/// The kubelet runs pods on this node: those of the API server, and static ones from files.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "kubelet", version, about, long_about = None)]
pub struct Flags {
    /// A KubeletConfiguration file.
    #[arg(long, default_value = "")]
    pub config: String,
    /// Where the API server is and who this node is; without it the kubelet runs static pods alone.
    #[arg(long, default_value = "")]
    pub kubeconfig: String,
    /// Credentials with which to ask for a client certificate while --kubeconfig does not exist yet.
    #[arg(long, default_value = "")]
    pub bootstrap_kubeconfig: String,
    /// Where certificates are kept.
    #[arg(long, default_value = "/var/lib/kubelet/pki")]
    pub cert_dir: String,
    /// Addresses of this node, comma-separated.
    #[arg(long, default_value = "")]
    pub node_ip: String,
    /// The node's name in place of the host's.
    #[arg(long, default_value = "")]
    pub hostname_override: String,
    /// Where pods' volumes and files are kept.
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub root_dir: String,
    /// Labels to register the node with, key=value, comma-separated.
    #[arg(long, default_value = "")]
    pub node_labels: String,
    /// Taints to register the node with, key=value:effect, comma-separated.
    #[arg(long, default_value = "")]
    pub register_with_taints: String,
    /// Whether to make the Node object.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub register_node: Option<bool>,
    /// The runtime's socket.
    #[arg(long)]
    pub container_runtime_endpoint: Option<String>,
    /// The socket for images, if another.
    #[arg(long)]
    pub image_service_endpoint: Option<String>,
    /// The image that image garbage collection spares.
    #[arg(long, default_value = "registry.k8s.io/pause:3.10.2")]
    pub pod_infra_container_image: String,
    /// A directory of static pods' manifests.
    #[arg(long)]
    pub pod_manifest_path: Option<String>,
    /// The log verbosity.
    #[arg(long = "v", short = 'v', default_value_t = 0)]
    pub v: u8,
    /// The address to serve on.
    #[arg(long)]
    pub address: Option<String>,
    /// The port to serve on.
    #[arg(long)]
    pub port: Option<u16>,
    /// The port to serve on without authentication; 0 is off.
    #[arg(long)]
    pub read_only_port: Option<u16>,
    /// The serving certificate.
    #[arg(long)]
    pub tls_cert_file: Option<String>,
    /// Its key.
    #[arg(long)]
    pub tls_private_key_file: Option<String>,
    /// Certificates that sign clients' certificates.
    #[arg(long)]
    pub client_ca_file: Option<String>,
    /// Whether callers without credentials are let in as system:anonymous.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub anonymous_auth: Option<bool>,
    /// Whether bearer tokens are checked by the API server.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub authentication_token_webhook: Option<bool>,
    /// AlwaysAllow or Webhook.
    #[arg(long)]
    pub authorization_mode: Option<String>,
    /// Whether to ask for new client certificates before they end.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub rotate_certificates: Option<bool>,
    /// Addresses of the cluster's name servers, comma-separated.
    #[arg(long)]
    pub cluster_dns: Option<String>,
    /// The cluster's domain.
    #[arg(long)]
    pub cluster_domain: Option<String>,
    /// The resolver file that pods' files start from.
    #[arg(long)]
    pub resolv_conf: Option<String>,
    /// cgroupfs or systemd.
    #[arg(long)]
    pub cgroup_driver: Option<String>,
    /// The cgroup under which pods live.
    #[arg(long)]
    pub cgroup_root: Option<String>,
    /// Whether pods live in cgroups by their quality of service.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub cgroups_per_qos: Option<bool>,
    /// How many pods the node takes.
    #[arg(long)]
    pub max_pods: Option<i32>,
    /// Resources kept for the system, name=quantity, comma-separated.
    #[arg(long)]
    pub system_reserved: Option<String>,
    /// Resources kept for Kubernetes, name=quantity, comma-separated.
    #[arg(long)]
    pub kube_reserved: Option<String>,
    /// Thresholds at which pods are evicted, as memory.available<100Mi, comma-separated.
    #[arg(long)]
    pub eviction_hard: Option<String>,
    /// Feature gates, name=true or false, comma-separated.
    #[arg(long)]
    pub feature_gates: Option<String>,
    /// Whether to refuse a node with swap.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub fail_swap_on: Option<bool>,
    /// Whether to refuse a node with cgroup v1.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub fail_cgroupv1: Option<bool>,
    /// Disk use in percent above which unused images are removed.
    #[arg(long)]
    pub image_gc_high_threshold: Option<u8>,
    /// Disk use in percent below which no images are removed.
    #[arg(long)]
    pub image_gc_low_threshold: Option<u8>,
    /// This process's out-of-memory score.
    #[arg(long)]
    pub oom_score_adj: Option<i32>,
    /// The provider's name for this machine.
    #[arg(long)]
    pub provider_id: Option<String>,
    /// `external`, or nothing.
    #[arg(long, default_value = "")]
    pub cloud_provider: String,
    /// The port of the health check on the loopback; 0 is off.
    #[arg(long)]
    pub healthz_port: Option<u16>,
    /// The address of the health check.
    #[arg(long)]
    pub healthz_bind_address: Option<String>,
    /// The longest answer of the runtime.
    #[arg(long)]
    pub runtime_request_timeout: Option<String>,
    /// Whether containers without a seccomp profile get the runtime's.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub seccomp_default: Option<bool>,
    /// How many images the node's status names; -1 for all.
    #[arg(long)]
    pub node_status_max_images: Option<i32>,
    /// The sysctls that pods may set beside the safe ones, comma-separated.
    #[arg(long)]
    pub allowed_unsafe_sysctls: Option<String>,
    /// How often a pod is looked at without a reason, at least.
    #[arg(long)]
    pub sync_frequency: Option<GoDuration>,
    /// How often a missing directory of static pods is looked for.
    #[arg(long)]
    pub file_check_frequency: Option<GoDuration>,
    /// How often the node is looked at.
    #[arg(long)]
    pub node_status_update_frequency: Option<GoDuration>,
    /// The period of processor limits.
    #[arg(long)]
    pub cpu_cfs_quota_period: Option<GoDuration>,
    /// How long the API server's word on a token counts.
    #[arg(long)]
    pub authentication_token_webhook_cache_ttl: Option<GoDuration>,
    /// How long its yes counts.
    #[arg(long)]
    pub authorization_webhook_cache_authorized_ttl: Option<GoDuration>,
    /// How long its no counts.
    #[arg(long)]
    pub authorization_webhook_cache_unauthorized_ttl: Option<GoDuration>,
    /// How long an image without use is kept at least.
    #[arg(long)]
    pub minimum_image_ttl_duration: Option<GoDuration>,
    /// Whether processor limits are enforced.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub cpu_cfs_quota: Option<bool>,
    /// Whether to serve at all.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub enable_server: Option<bool>,
    /// Whether to serve logs, exec, attach and port-forward.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub enable_debugging_handlers: Option<bool>,
    /// Whether volumes are attached by the controller manager.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub enable_controller_attach_detach: Option<bool>,
    /// Whether images are pulled one after the other.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub serialize_image_pulls: Option<bool>,
    /// Whether to have the serving certificate signed by the cluster.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub rotate_server_certificates: Option<bool>,
    /// The size at which a log is rotated.
    #[arg(long)]
    pub container_log_max_size: Option<String>,
    /// How many files of a log are kept.
    #[arg(long)]
    pub container_log_max_files: Option<i32>,
    /// How many processes a pod may have.
    #[arg(long)]
    pub pod_max_pids: Option<i64>,
    /// How many pods the node takes for each processor; 0 for no such bound.
    #[arg(long)]
    pub pods_per_core: Option<i32>,
    /// The least version of TLS that is spoken: VersionTLS12 or VersionTLS13.
    #[arg(long)]
    pub tls_min_version: Option<String>,
}
