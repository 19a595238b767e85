//! What the operator wants: flags over the config file over upstream's defaults, checked once.

pub mod duration;
pub mod file;
pub mod flags;
mod honoured;

use crate::quantity;
pub use duration::GoDuration;
pub use file::KubeletConfiguration;
pub use flags::Flags;
use k8s_openapi::api::core::v1::Taint;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why the kubelet does not start; one line that names the flag or field.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The config file.
    #[error(transparent)]
    File(#[from] file::FileError),
    /// A value that makes no sense.
    #[error("invalid value {value:?} for {what}: {problem}")]
    Value {
        /// The flag and field.
        what: &'static str,
        /// As given.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// A kubelet's settings, complete.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each is the flag or field of its name, documented there")]
pub struct Config {
    pub node_name: String,
    pub node_ips: Vec<IpAddr>,
    pub node_labels: BTreeMap<String, String>,
    pub register_node: bool,
    pub register_with_taints: Vec<Taint>,
    pub provider_id: String,
    pub external_cloud_provider: bool,
    pub kubeconfig: String,
    pub bootstrap_kubeconfig: String,
    pub cert_dir: PathBuf,
    pub rotate_certificates: bool,
    pub root_dir: PathBuf,
    pub pod_logs_dir: PathBuf,
    pub log_links: PathBuf,
    pub static_pod_path: Option<PathBuf>,
    pub sync_frequency: Duration,
    pub file_check_frequency: Duration,
    pub runtime_endpoint: String,
    pub image_endpoint: String,
    pub runtime_timeout: Duration,
    pub pause_image: String,
    pub enable_server: bool,
    pub address: IpAddr,
    pub port: u16,
    pub read_only_port: u16,
    pub healthz: Option<(IpAddr, u16)>,
    pub debugging_handlers: bool,
    pub tls_cert_file: String,
    pub tls_private_key_file: String,
    pub server_tls_bootstrap: bool,
    pub client_ca_file: String,
    pub anonymous: bool,
    pub webhook_authentication: bool,
    pub token_ttl: Duration,
    pub webhook_authorization: bool,
    pub authorized_ttl: Duration,
    pub unauthorized_ttl: Duration,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    pub resolv_conf: String,
    pub cgroup_driver: CgroupDriver,
    pub cgroup_root: String,
    pub cgroups_per_qos: bool,
    pub pod_pids_limit: i64,
    pub cpu_cfs_quota: bool,
    pub cpu_cfs_quota_period: Duration,
    pub max_pods: i64,
    pub only_tls13: bool,
    pub system_reserved: BTreeMap<String, String>,
    pub kube_reserved: BTreeMap<String, String>,
    pub eviction_hard: BTreeMap<String, String>,
    pub feature_gates: BTreeMap<String, bool>,
    pub node_status_update_frequency: Duration,
    pub node_status_report_frequency: Duration,
    pub node_lease_duration: Duration,
    pub node_status_max_images: usize,
    pub image_gc_high: u8,
    pub image_gc_low: u8,
    pub image_gc_min_age: Duration,
    pub parallel_pulls: usize,
    pub container_log_max_size: u64,
    pub container_log_max_files: usize,
    pub container_log_interval: Duration,
    pub max_restart_period: Duration,
    pub seccomp_default: bool,
    pub allowed_unsafe_sysctls: Vec<String>,
    pub fail_swap_on: bool,
    pub fail_cgroup_v1: bool,
    pub oom_score_adj: i32,
    pub enable_system_logs: bool,
    pub attach_detach_by_controller: bool,
    pub single_process_oom_kill: bool,
    pub verify_pulled_images: bool,
}

/// Who writes cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupDriver {
    /// The kubelet and runtime themselves.
    Cgroupfs,
    /// systemd, through slices.
    Systemd,
}

/// A list between commas; an empty string is an empty list.
fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|s| !s.is_empty())
}

fn bad(what: &'static str, value: &str, problem: impl std::fmt::Display) -> ConfigError {
    ConfigError::Value { what, value: value.to_owned(), problem: problem.to_string() }
}

fn pairs(what: &'static str, text: &str, sep: char) -> Result<BTreeMap<String, String>, ConfigError> {
    list(text)
        .map(|pair| {
            let (k, v) =
                pair.split_once(sep).ok_or_else(|| bad(what, pair, format!("want name{sep}value")))?;
            Ok((k.to_owned(), v.to_owned()))
        })
        .collect()
}

fn ip(what: &'static str, text: &str) -> Result<IpAddr, ConfigError> {
    text.parse().map_err(|_| bad(what, text, "not an IP address"))
}

/// Reads a taint as flags have it: `key=value:Effect`, `key:Effect`.
fn taint(text: &str) -> Result<Taint, ConfigError> {
    const WHAT: &str = "--register-with-taints";
    let (pair, effect) = text.rsplit_once(':').ok_or_else(|| bad(WHAT, text, "want key=value:effect"))?;
    if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        return Err(bad(WHAT, text, format!("unknown effect {effect:?}")));
    }
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    let value = (!value.is_empty()).then(|| value.to_owned());
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

fn quantities(
    what: &'static str,
    map: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    for (name, q) in &map {
        quantity::parse(q).ok_or_else(|| bad(what, &format!("{name}={q}"), "not a quantity"))?;
    }
    Ok(map)
}

fn flag_or<T>(flag: Option<T>, field: T, empty: bool, default: T) -> T {
    flag.unwrap_or(if empty { default } else { field })
}

/// The file with what flags say otherwise.
fn over(f: &Flags, mut c: KubeletConfiguration) -> KubeletConfiguration {
    fn set<T>(field: &mut T, flag: Option<T>) {
        if let Some(v) = flag {
            *field = v;
        }
    }
    fn set_some<T>(field: &mut Option<T>, flag: Option<T>) {
        if flag.is_some() {
            *field = flag;
        }
    }
    set(&mut c.sync_frequency, f.sync_frequency);
    set(&mut c.file_check_frequency, f.file_check_frequency);
    set(&mut c.node_status_update_frequency, f.node_status_update_frequency);
    set_some(&mut c.cpu_cfs_quota_period, f.cpu_cfs_quota_period);
    set(&mut c.authentication.webhook.cache_ttl, f.authentication_token_webhook_cache_ttl);
    let webhook = &mut c.authorization.webhook;
    set(&mut webhook.cache_authorized_ttl, f.authorization_webhook_cache_authorized_ttl);
    set(&mut webhook.cache_unauthorized_ttl, f.authorization_webhook_cache_unauthorized_ttl);
    set(&mut c.image_minimum_gc_age, f.minimum_image_ttl_duration);
    set_some(&mut c.cpu_cfs_quota, f.cpu_cfs_quota);
    set_some(&mut c.enable_server, f.enable_server);
    set_some(&mut c.enable_debugging_handlers, f.enable_debugging_handlers);
    set_some(&mut c.enable_controller_attach_detach, f.enable_controller_attach_detach);
    set_some(&mut c.serialize_image_pulls, f.serialize_image_pulls);
    set(&mut c.server_tls_bootstrap, f.rotate_server_certificates);
    set(&mut c.container_log_max_size, f.container_log_max_size.clone());
    set_some(&mut c.container_log_max_files, f.container_log_max_files);
    set_some(&mut c.pod_pids_limit, f.pod_max_pids);
    set(&mut c.pods_per_core, f.pods_per_core);
    set(&mut c.tls_min_version, f.tls_min_version.clone());
    c
}

impl Config {
    /// Reads the config file the flags name, and puts both together.
    pub fn load(f: &Flags) -> Result<Self, ConfigError> {
        let file = match f.config.as_str() {
            "" => KubeletConfiguration::default(),
            path => KubeletConfiguration::load(path)?,
        };
        if !file.idle.is_empty() {
            tracing::warn!("fields without effect in this kubelet: {}", file.idle.join(" "));
        }
        Self::resolve(f, file, Path::new(&f.config).parent().unwrap_or(Path::new("")))
    }

    /// Puts flags and file together; relative paths in the file start at `base`.
    pub fn resolve(f: &Flags, c: KubeletConfiguration, base: &Path) -> Result<Self, ConfigError> {
        let c = over(f, c);
        let text = |flag: &Option<String>, field: &str, default: &str| -> String {
            match flag {
                Some(v) => v.clone(),
                None if field.is_empty() => default.to_owned(),
                None => field.to_owned(),
            }
        };
        let file_path =
            |p: &str| if p.is_empty() { String::new() } else { base.join(p).to_string_lossy().into_owned() };
        let node_name = match f.hostname_override.as_str() {
            "" => sys::node::kernel().hostname,
            name => name.to_owned(),
        };
        let node_name = node_name.trim().to_ascii_lowercase();
        let mut cluster_dns = Vec::new();
        match &f.cluster_dns {
            Some(t) => {
                for a in list(t) {
                    cluster_dns.push(ip("--cluster-dns", a)?);
                }
            }
            None => {
                for a in &c.cluster_dns {
                    cluster_dns.push(ip("clusterDNS", a)?);
                }
            }
        }
        let mode = text(&f.authorization_mode, &c.authorization.mode, "Webhook");
        let webhook_authorization = match mode.as_str() {
            "Webhook" => true,
            "AlwaysAllow" => false,
            _ => {
                return Err(bad(
                    "--authorization-mode (authorization.mode)",
                    &mode,
                    "want AlwaysAllow or Webhook",
                ));
            }
        };
        let driver = text(&f.cgroup_driver, &c.cgroup_driver, "cgroupfs");
        let cgroup_driver = match driver.as_str() {
            "cgroupfs" => CgroupDriver::Cgroupfs,
            "systemd" => CgroupDriver::Systemd,
            _ => return Err(bad("--cgroup-driver (cgroupDriver)", &driver, "want cgroupfs or systemd")),
        };
        let mut taints = c.register_with_taints.clone();
        if !f.register_with_taints.is_empty() {
            taints = list(&f.register_with_taints).map(taint).collect::<Result<_, _>>()?;
        }
        let reserved = |flag: &Option<String>, what, field: &BTreeMap<String, String>| match flag {
            Some(t) => quantities(what, pairs(what, t, '=')?),
            None => quantities(what, field.clone()),
        };
        let default_eviction = || {
            [
                ("memory.available", "100Mi"),
                ("nodefs.available", "10%"),
                ("nodefs.inodesFree", "5%"),
                ("imagefs.available", "15%"),
                ("imagefs.inodesFree", "5%"),
            ]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into()
        };
        let eviction_hard = match &f.eviction_hard {
            Some(t) => pairs("--eviction-hard", t, '<')?,
            None if c.eviction_hard.is_empty() => default_eviction(),
            None => c.eviction_hard.clone(),
        };
        let mut feature_gates = c.feature_gates.clone();
        for (k, v) in pairs("--feature-gates", f.feature_gates.as_deref().unwrap_or(""), '=')? {
            let on =
                v.parse().map_err(|_| bad("--feature-gates", &format!("{k}={v}"), "want true or false"))?;
            feature_gates.insert(k, on);
        }
        let runtime_timeout = match &f.runtime_request_timeout {
            Some(t) => t.parse::<GoDuration>().map_err(|e| bad("--runtime-request-timeout", t, e))?,
            None => c.runtime_request_timeout,
        };
        let (high, low) = (
            f.image_gc_high_threshold.or(c.image_gc_high_threshold_percent).unwrap_or(85),
            f.image_gc_low_threshold.or(c.image_gc_low_threshold_percent).unwrap_or(80),
        );
        if high > 100 || low > high {
            let value = format!("{low}..{high}");
            return Err(bad(
                "imageGCHighThresholdPercent, imageGCLowThresholdPercent",
                &value,
                "want 0 <= low <= high <= 100",
            ));
        }
        let log_size = if c.container_log_max_size.is_empty() { "10Mi" } else { &c.container_log_max_size };
        let max_restart =
            c.crash_loop_back_off.max_container_restart_period.unwrap_or(GoDuration::secs(300)).0;
        if max_restart < Duration::from_secs(1) || max_restart > Duration::from_secs(300) {
            let value = GoDuration(max_restart).to_string();
            return Err(bad("crashLoopBackOff.maxContainerRestartPeriod", &value, "want 1s to 300s"));
        }
        let endpoint = text(
            &f.container_runtime_endpoint,
            &c.container_runtime_endpoint,
            "unix:///run/containerd/containerd.sock",
        );
        cri::socket_path(&endpoint)
            .map_err(|e| bad("--container-runtime-endpoint (containerRuntimeEndpoint)", &endpoint, e))?;
        let update = c.node_status_update_frequency;
        let report = match (c.node_status_report_frequency.0.is_zero(), update.0.is_zero()) {
            (false, _) => c.node_status_report_frequency.0,
            (true, true) => Duration::from_secs(300),
            (true, false) => update.0,
        };
        let address = text(&f.address, &c.address, "0.0.0.0");
        let healthz_port = f.healthz_port.or(c.healthz_port).unwrap_or(10248);
        let healthz_address = text(&f.healthz_bind_address, &c.healthz_bind_address, "127.0.0.1");
        let healthz_ip = ip("--healthz-bind-address (healthzBindAddress)", &healthz_address)?;
        let client_ca_file =
            f.client_ca_file.clone().unwrap_or_else(|| file_path(&c.authentication.x509.client_ca_file));
        let static_pod_path = f
            .pod_manifest_path
            .clone()
            .or_else(|| Some(file_path(&c.static_pod_path)))
            .filter(|p| !p.is_empty())
            .map(PathBuf::from);
        Ok(Config {
            node_ips: list(&f.node_ip).map(|a| ip("--node-ip", a)).collect::<Result<_, _>>()?,
            node_labels: pairs("--node-labels", &f.node_labels, '=')?,
            register_node: f.register_node.or(c.register_node).unwrap_or(true),
            register_with_taints: taints,
            provider_id: text(&f.provider_id, &c.provider_id, ""),
            external_cloud_provider: f.cloud_provider == "external",
            kubeconfig: f.kubeconfig.clone(),
            bootstrap_kubeconfig: f.bootstrap_kubeconfig.clone(),
            cert_dir: f.cert_dir.clone().into(),
            rotate_certificates: f.rotate_certificates.unwrap_or(c.rotate_certificates),
            root_dir: f.root_dir.clone().into(),
            log_links: "/var/log/containers".into(),
            pod_logs_dir: text(&None, &c.pod_logs_dir, "/var/log/pods").into(),
            static_pod_path,
            sync_frequency: c.sync_frequency.or(Duration::from_secs(60)),
            file_check_frequency: c.file_check_frequency.or(Duration::from_secs(20)),
            runtime_endpoint: endpoint,
            image_endpoint: text(&f.image_service_endpoint, &c.image_service_endpoint, ""),
            runtime_timeout: runtime_timeout.or(Duration::from_secs(120)),
            pause_image: f.pod_infra_container_image.clone(),
            enable_server: c.enable_server.unwrap_or(true),
            address: ip("--address (address)", &address)?,
            port: flag_or(f.port, c.port, c.port == 0, 10250),
            read_only_port: f.read_only_port.unwrap_or(c.read_only_port),
            healthz: (healthz_port != 0).then_some((healthz_ip, healthz_port)),
            debugging_handlers: c.enable_debugging_handlers.unwrap_or(true),
            tls_cert_file: f.tls_cert_file.clone().unwrap_or_else(|| file_path(&c.tls_cert_file)),
            tls_private_key_file: f
                .tls_private_key_file
                .clone()
                .unwrap_or_else(|| file_path(&c.tls_private_key_file)),
            server_tls_bootstrap: c.server_tls_bootstrap,
            client_ca_file,
            anonymous: f.anonymous_auth.or(c.authentication.anonymous.enabled).unwrap_or(false),
            webhook_authentication: f
                .authentication_token_webhook
                .or(c.authentication.webhook.enabled)
                .unwrap_or(true),
            token_ttl: c.authentication.webhook.cache_ttl.or(Duration::from_secs(120)),
            webhook_authorization,
            authorized_ttl: c.authorization.webhook.cache_authorized_ttl.or(Duration::from_secs(300)),
            unauthorized_ttl: c.authorization.webhook.cache_unauthorized_ttl.or(Duration::from_secs(30)),
            cluster_dns,
            cluster_domain: text(&f.cluster_domain, &c.cluster_domain, ""),
            resolv_conf: f.resolv_conf.clone().or(c.resolv_conf).unwrap_or_else(|| "/etc/resolv.conf".into()),
            cgroup_driver,
            cgroup_root: text(&f.cgroup_root, &c.cgroup_root, ""),
            cgroups_per_qos: f.cgroups_per_qos.or(c.cgroups_per_qos).unwrap_or(true),
            pod_pids_limit: c.pod_pids_limit.unwrap_or(-1),
            cpu_cfs_quota: c.cpu_cfs_quota.unwrap_or(true),
            cpu_cfs_quota_period: c.cpu_cfs_quota_period.unwrap_or_default().or(Duration::from_millis(100)),
            max_pods: match (flag_or(f.max_pods, c.max_pods, c.max_pods == 0, 110), c.pods_per_core) {
                (most, per_core @ 1..) => {
                    let cores = i64::try_from(sys::node::processors()).unwrap_or(1);
                    i64::from(most).min(i64::from(per_core).saturating_mul(cores))
                }
                (most, _) => most.into(),
            },
            only_tls13: match c.tls_min_version.as_str() {
                // versions before 1.2 are not spoken at all
                "" | "VersionTLS10" | "VersionTLS11" | "VersionTLS12" => false,
                "VersionTLS13" => true,
                other => {
                    return Err(bad(
                        "--tls-min-version (tlsMinVersion)",
                        other,
                        "want VersionTLS12 or VersionTLS13",
                    ));
                }
            },
            system_reserved: reserved(
                &f.system_reserved,
                "--system-reserved (systemReserved)",
                &c.system_reserved,
            )?,
            kube_reserved: reserved(&f.kube_reserved, "--kube-reserved (kubeReserved)", &c.kube_reserved)?,
            eviction_hard,
            feature_gates,
            node_status_update_frequency: update.or(Duration::from_secs(10)),
            node_status_report_frequency: report,
            node_lease_duration: Duration::from_secs(match c.node_lease_duration_seconds {
                s if s > 0 => s.unsigned_abs().into(),
                _ => 40,
            }),
            node_status_max_images: usize::try_from(
                f.node_status_max_images.or(c.node_status_max_images).unwrap_or(50),
            )
            .unwrap_or(usize::MAX),
            image_gc_high: high,
            image_gc_low: low,
            image_gc_min_age: c.image_minimum_gc_age.or(Duration::from_secs(120)),
            parallel_pulls: match (c.serialize_image_pulls, c.max_parallel_image_pulls) {
                (_, Some(n)) => n.max(1),
                (Some(true), None) => 1,
                _ => 4,
            },
            container_log_max_size: quantity::parse(log_size)
                .map(|q| q.bytes())
                .filter(|n| *n > 0)
                .ok_or_else(|| bad("containerLogMaxSize", log_size, "not a positive quantity"))?
                .unsigned_abs(),
            container_log_max_files: c
                .container_log_max_files
                .map_or(5, |n| usize::try_from(n).unwrap_or(0))
                .max(2),
            container_log_interval: c
                .container_log_monitor_interval
                .unwrap_or_default()
                .or(Duration::from_secs(10)),
            max_restart_period: max_restart,
            seccomp_default: f.seccomp_default.or(c.seccomp_default).unwrap_or(false),
            allowed_unsafe_sysctls: match &f.allowed_unsafe_sysctls {
                Some(t) => list(t).map(str::to_owned).collect(),
                None => c.allowed_unsafe_sysctls,
            },
            fail_swap_on: f.fail_swap_on.or(c.fail_swap_on).unwrap_or(true),
            fail_cgroup_v1: f.fail_cgroupv1.or(c.fail_cgroup_v1).unwrap_or(true),
            oom_score_adj: f.oom_score_adj.or(c.oom_score_adj).unwrap_or(-999),
            enable_system_logs: c.enable_system_log_handler.unwrap_or(true),
            verify_pulled_images: c.image_pull_credentials_verification_policy != "NeverVerify",
            single_process_oom_kill: c.single_process_oom_kill.unwrap_or(false),
            attach_detach_by_controller: c.enable_controller_attach_detach.unwrap_or(true),
            node_name,
        })
    }

    /// The directory that has those of pods.
    pub(crate) fn pods_dir(&self) -> PathBuf {
        self.root_dir.join("pods")
    }

    /// Where a pod's volumes and files are.
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.pods_dir().join(uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(flags: &[&str], file: &str) -> Result<Config, String> {
        let args = std::iter::once("kubelet").chain(flags.iter().copied());
        let f = <Flags as clap::Parser>::try_parse_from(args).map_err(|e| e.to_string())?;
        let text = format!("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n{file}");
        let c = KubeletConfiguration::parse(&text, "f").map_err(|e| e.to_string())?;
        Config::resolve(&f, c, Path::new("/etc/k")).map_err(|e| e.to_string())
    }

    #[test]
    fn flags_win_over_the_file_over_defaults() -> Result<(), String> {
        let c = check(&[], "")?;
        assert_eq!((c.port, c.read_only_port, c.max_pods, c.anonymous), (10250, 0, 110, false));
        let c = check(
            &["--port=1", "--max-pods", "7", "--register-node=false"],
            "port: 2\nmaxPods: 9\nstaticPodPath: manifests\n",
        )?;
        assert_eq!((c.port, c.max_pods, c.register_node), (1, 7, false));
        assert_eq!(c.static_pod_path, Some("/etc/k/manifests".into()));
        let c = check(
            &[
                "--enable-debugging-handlers=false",
                "--container-log-max-size=1Mi",
                "--pods-per-core=1",
                "--tls-min-version=VersionTLS13",
                "--rotate-server-certificates",
                "--cpu-cfs-quota=false",
            ],
            "enableDebuggingHandlers: true\nmaxPods: 100000\n",
        )?;
        assert!(!c.debugging_handlers && c.only_tls13 && c.server_tls_bootstrap && !c.cpu_cfs_quota);
        assert_eq!((c.container_log_max_size, c.max_pods), (1 << 20, sys::node::processors() as i64));
        let c = check(&["--register-with-taints=a=b:NoSchedule,c:NoExecute"], "")?;
        assert_eq!(c.register_with_taints.len(), 2);
        Ok(())
    }

    #[test]
    fn a_wrong_value_names_its_flag_or_field() {
        for (flags, file, want) in [
            (&["--node-ip=x"][..], "", "--node-ip"),
            (&["--register-with-taints=a"], "", "--register-with-taints"),
            (&["--cgroup-driver=x"], "", "--cgroup-driver"),
            (&[], "clusterDNS: [y]", "clusterDNS"),
            (&["--kube-reserved=cpu=z"], "", "--kube-reserved"),
            (&["--port=x"], "", "--port"),
            (&["--container-runtime-endpoint=tcp://x"], "", "--container-runtime-endpoint"),
            (&[], "containerLogMaxSize: tiny", "containerLogMaxSize"),
            (&["--tls-min-version=SSLv3"], "", "--tls-min-version"),
            (&["--sync-frequency=soon"], "", "--sync-frequency"),
        ] {
            let e = check(flags, file).err().unwrap_or_default();
            assert!(e.contains(want), "{flags:?} {file}: {e}");
        }
    }
}
