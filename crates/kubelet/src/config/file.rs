//! The `KubeletConfiguration` kind (`kubelet.config.k8s.io/v1beta1`), field for field as upstream has it.
//! Fields that this kubelet has no use for are read all the same, so that existing files load; [`super::honoured`]
//! says which of them are refused when they ask for something.

#![allow(missing_docs, reason = "upstream's reference describes each field of its configuration")]

use super::duration::GoDuration;
use k8s_openapi::api::core::v1::Taint;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// How a kubelet is set up. Absent fields take upstream's defaults in [`super::Config`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubeletConfiguration {
    pub api_version: String,
    pub kind: String,
    pub metadata: Value,
    pub enable_server: Option<bool>,
    pub static_pod_path: String,
    pub pod_logs_dir: String,
    pub sync_frequency: GoDuration,
    pub file_check_frequency: GoDuration,
    #[serde(rename = "httpCheckFrequency")]
    pub http_check_frequency: GoDuration,
    #[serde(rename = "staticPodURL")]
    pub static_pod_url: String,
    #[serde(rename = "staticPodURLHeader")]
    pub static_pod_url_header: Value,
    pub address: String,
    pub port: u16,
    pub read_only_port: u16,
    #[serde(rename = "tlsCertFile")]
    pub tls_cert_file: String,
    #[serde(rename = "tlsPrivateKeyFile")]
    pub tls_private_key_file: String,
    #[serde(rename = "tlsCipherSuites")]
    pub tls_cipher_suites: Vec<String>,
    #[serde(rename = "tlsCurvePreferences")]
    pub tls_curve_preferences: Value,
    #[serde(rename = "tlsMinVersion")]
    pub tls_min_version: String,
    pub rotate_certificates: bool,
    #[serde(rename = "serverTLSBootstrap")]
    pub server_tls_bootstrap: bool,
    pub authentication: Authentication,
    pub authorization: Authorization,
    #[serde(rename = "registryPullQPS")]
    pub registry_pull_qps: Option<i32>,
    pub registry_burst: i32,
    pub image_pull_credentials_verification_policy: String,
    pub preloaded_images_verification_allowlist: Vec<String>,
    #[serde(rename = "eventRecordQPS")]
    pub event_record_qps: Option<i32>,
    pub event_burst: i32,
    pub enable_debugging_handlers: Option<bool>,
    pub enable_contention_profiling: bool,
    pub healthz_port: Option<u16>,
    pub healthz_bind_address: String,
    pub oom_score_adj: Option<i32>,
    pub cluster_domain: String,
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Vec<String>,
    pub streaming_connection_idle_timeout: GoDuration,
    pub node_status_update_frequency: GoDuration,
    pub node_status_report_frequency: GoDuration,
    pub node_lease_duration_seconds: i32,
    #[serde(rename = "imageMinimumGCAge")]
    pub image_minimum_gc_age: GoDuration,
    #[serde(rename = "imageMaximumGCAge")]
    pub image_maximum_gc_age: GoDuration,
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: Option<u8>,
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: Option<u8>,
    pub volume_stats_agg_period: GoDuration,
    pub kubelet_cgroups: String,
    pub system_cgroups: String,
    pub cgroup_root: String,
    #[serde(rename = "cgroupsPerQOS")]
    pub cgroups_per_qos: Option<bool>,
    pub cgroup_driver: String,
    pub cpu_manager_policy: String,
    #[serde(rename = "singleProcessOOMKill")]
    pub single_process_oom_kill: Option<bool>,
    pub cpu_manager_policy_options: Value,
    pub cpu_manager_reconcile_period: GoDuration,
    pub memory_manager_policy: String,
    pub topology_manager_policy: String,
    pub topology_manager_scope: String,
    pub topology_manager_policy_options: Value,
    pub qos_reserved: Value,
    pub runtime_request_timeout: GoDuration,
    pub hairpin_mode: String,
    pub max_pods: i32,
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    pub pod_pids_limit: Option<i64>,
    pub resolv_conf: Option<String>,
    pub run_once: bool,
    #[serde(rename = "cpuCFSQuota")]
    pub cpu_cfs_quota: Option<bool>,
    #[serde(rename = "cpuCFSQuotaPeriod")]
    pub cpu_cfs_quota_period: Option<GoDuration>,
    pub node_status_max_images: Option<i32>,
    pub max_open_files: i64,
    pub content_type: String,
    #[serde(rename = "kubeAPIQPS")]
    pub kube_api_qps: Option<i32>,
    #[serde(rename = "kubeAPIBurst")]
    pub kube_api_burst: i32,
    pub serialize_image_pulls: Option<bool>,
    pub max_parallel_image_pulls: Option<usize>,
    pub eviction_hard: BTreeMap<String, String>,
    pub eviction_soft: BTreeMap<String, String>,
    pub eviction_soft_grace_period: BTreeMap<String, String>,
    pub eviction_pressure_transition_period: GoDuration,
    pub eviction_max_pod_grace_period: i32,
    pub eviction_minimum_reclaim: BTreeMap<String, String>,
    pub merge_default_eviction_settings: Option<bool>,
    pub pods_per_core: i32,
    pub enable_controller_attach_detach: Option<bool>,
    pub protect_kernel_defaults: bool,
    #[serde(rename = "makeIPTablesUtilChains")]
    pub make_iptables_util_chains: Option<bool>,
    pub iptables_masquerade_bit: Option<i32>,
    pub iptables_drop_bit: Option<i32>,
    pub feature_gates: BTreeMap<String, bool>,
    pub fail_swap_on: Option<bool>,
    pub memory_swap: Value,
    pub container_log_max_size: String,
    pub container_log_max_files: Option<i32>,
    pub container_log_max_workers: Option<i32>,
    pub container_log_monitor_interval: Option<GoDuration>,
    pub config_map_and_secret_change_detection_strategy: String,
    pub system_reserved: BTreeMap<String, String>,
    pub kube_reserved: BTreeMap<String, String>,
    #[serde(rename = "reservedSystemCPUs")]
    pub reserved_system_cpus: String,
    pub show_hidden_metrics_for_version: String,
    pub system_reserved_cgroup: String,
    pub kube_reserved_cgroup: String,
    pub enforce_node_allocatable: Option<Vec<String>>,
    pub allowed_unsafe_sysctls: Vec<String>,
    pub volume_plugin_dir: String,
    #[serde(rename = "providerID")]
    pub provider_id: String,
    pub kernel_memcg_notification: bool,
    pub logging: Value,
    pub enable_system_log_handler: Option<bool>,
    pub enable_system_log_query: Option<bool>,
    pub shutdown_grace_period: GoDuration,
    pub shutdown_grace_period_critical_pods: GoDuration,
    pub shutdown_grace_period_by_pod_priority: Value,
    pub crash_loop_back_off: CrashLoopBackOff,
    pub reserved_memory: Value,
    pub enable_profiling_handler: Option<bool>,
    pub enable_debug_flags_handler: Option<bool>,
    pub seccomp_default: Option<bool>,
    pub memory_throttling_factor: Option<f64>,
    pub memory_reservation_policy: String,
    pub register_with_taints: Vec<Taint>,
    pub register_node: Option<bool>,
    pub tracing: Value,
    pub local_storage_capacity_isolation: Option<bool>,
    pub container_runtime_endpoint: String,
    pub image_service_endpoint: String,
    pub fail_cgroup_v1: Option<bool>,
    pub user_namespaces: Value,
    /// Fields that are set and have no effect.
    #[serde(skip)]
    pub idle: Vec<&'static str>,
}

/// Who may speak to the kubelet's server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Authentication {
    pub x509: X509,
    pub webhook: WebhookAuthentication,
    pub anonymous: Anonymous,
}

/// Client certificates.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct X509 {
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: String,
}

/// Bearer tokens, by TokenReview.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WebhookAuthentication {
    pub enabled: Option<bool>,
    #[serde(rename = "cacheTTL")]
    pub cache_ttl: GoDuration,
}

/// Callers without credentials.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Anonymous {
    pub enabled: Option<bool>,
}

/// What callers may do.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Authorization {
    pub mode: String,
    pub webhook: WebhookAuthorization,
}

/// Authorization by SubjectAccessReview.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WebhookAuthorization {
    #[serde(rename = "cacheAuthorizedTTL")]
    pub cache_authorized_ttl: GoDuration,
    #[serde(rename = "cacheUnauthorizedTTL")]
    pub cache_unauthorized_ttl: GoDuration,
}

/// The longest pause between restarts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CrashLoopBackOff {
    pub max_container_restart_period: Option<GoDuration>,
}

/// Why a configuration file is refused; one line that names the field.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read the config file {path}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It says something that no KubeletConfiguration says.
    #[error("{path}: {problem}")]
    Invalid {
        /// Which.
        path: String,
        /// The field and what is wrong.
        problem: String,
    },
}

impl KubeletConfiguration {
    /// Reads a configuration, JSON or YAML.
    pub fn parse(text: &str, path: &str) -> Result<Self, FileError> {
        let invalid = |problem: String| FileError::Invalid { path: path.into(), problem };
        let config: Self =
            serde_norway::from_str(text).map_err(|e| invalid(with_field(text, short(&e.to_string()))))?;
        match (config.api_version.as_str(), config.kind.as_str()) {
            ("kubelet.config.k8s.io/v1beta1", "KubeletConfiguration") => {
                let raw = serde_norway::from_str(text).unwrap_or_default();
                let idle = super::honoured::check(&raw).map_err(invalid)?;
                Ok(KubeletConfiguration { idle, ..config })
            }
            (v, k) => Err(invalid(format!(
                "apiVersion {v:?}, kind {k:?}: want kubelet.config.k8s.io/v1beta1, KubeletConfiguration"
            ))),
        }
    }

    /// Reads the file at `path`.
    pub fn load(path: &str) -> Result<Self, FileError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| FileError::Read { path: path.into(), source })?;
        Self::parse(&text, path)
    }
}

/// Puts the field's name before a message that lacks it: the one that, alone, is refused too.
fn with_field(text: &str, message: String) -> String {
    let Ok(Value::Object(all)) = serde_norway::from_str::<Value>(text) else { return message };
    let alone = |(k, v): (String, Value)| (k.clone(), Value::Object([(k, v)].into_iter().collect()));
    let mut fields = all.into_iter().map(alone);
    let bad = fields.find(|(_, one)| serde_json::from_value::<KubeletConfiguration>(one.clone()).is_err());
    match bad {
        Some((name, _)) if !message.contains(&name) => format!("{name}: {message}"),
        _ => message,
    }
}

/// Leaves out the list of all the fields there are.
fn short(message: &str) -> String {
    let Some(start) = message.find(", expected one of") else { return message.to_owned() };
    let place = message.rfind(" at line ").filter(|p| *p > start).map_or("", |p| &message[p..]);
    format!("{}{place}", &message[..start])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_field_is_named_in_one_line() {
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        for (text, want) in [
            ("maxPods: 200\nclusterDNS: [10.96.0.10]\n", ""),
            ("maxPodz: 1\n", "f: unknown field `maxPodz` at line 3 column 1"),
            ("authentication: {anonymous: {enabld: true}}\n", "unknown field `enabld`"),
            ("maxPods: many\n", "maxPods: invalid type: string \"many\", expected i32"),
            ("protectKernelDefaults: true\n", "protectKernelDefaults: true is not supported"),
            ("evictionSoft: {memory.available: 1Gi}\n", "evictionSoft: "),
            ("shutdownGracePeriod: 0s\ncpuManagerPolicy: none\nenforceNodeAllocatable: [pods]\n", ""),
            ("syncFrequency: 1x\n", "syncFrequency: time: invalid duration \"1x\""),
        ] {
            let got = KubeletConfiguration::parse(&format!("{head}{text}"), "f").err().map(|e| e.to_string());
            let got = got.unwrap_or_default();
            assert!(
                got.contains(want) && !got.contains('\n') && got.is_empty() == want.is_empty(),
                "{text}: {got}"
            );
        }
    }
}
