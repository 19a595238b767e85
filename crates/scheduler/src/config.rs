//! Flags and `KubeSchedulerConfiguration`, with upstream's names and defaults.

use crate::plugins::{BUILT_IN, DEFAULT, Plugin};
use client::leader::LeaderConfig;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The flags.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "kube-scheduler", about = "Decides where pods run", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the flags' names say it")]
pub struct Options {
    /// A file with a KubeSchedulerConfiguration
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// How to reach the API server
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    #[arg(long)]
    pub master: Option<String>,
    /// How to ask who sent a request to us; the kubeconfig if not given
    #[arg(long)]
    pub authentication_kubeconfig: Option<PathBuf>,
    /// How to ask whether they may; the kubeconfig if not given
    #[arg(long)]
    pub authorization_kubeconfig: Option<PathBuf>,
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Health and metrics are served here with TLS; 0 for not at all
    #[arg(long, default_value_t = 10259)]
    pub secure_port: u16,
    #[arg(long)]
    pub tls_cert_file: Option<PathBuf>,
    #[arg(long)]
    pub tls_private_key_file: Option<PathBuf>,
    #[arg(long)]
    pub cert_dir: Option<PathBuf>,
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub leader_elect: Option<bool>,
    #[arg(long)]
    pub leader_elect_lease_duration: Option<String>,
    #[arg(long)]
    pub leader_elect_renew_deadline: Option<String>,
    #[arg(long)]
    pub leader_elect_retry_period: Option<String>,
    #[arg(long)]
    pub leader_elect_resource_lock: Option<String>,
    #[arg(long)]
    pub leader_elect_resource_name: Option<String>,
    #[arg(long)]
    pub leader_elect_resource_namespace: Option<String>,
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub profiling: Option<bool>,
    #[arg(long)]
    pub kube_api_qps: Option<f32>,
    #[arg(long)]
    pub kube_api_burst: Option<i32>,
    #[arg(long)]
    pub feature_gates: Option<String>,
    /// How much to log
    #[arg(short, long, default_value_t = 2)]
    pub v: u8,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    parallelism: Option<i32>,
    leader_election: Election,
    client_connection: Connection,
    enable_profiling: Option<bool>,
    enable_contention_profiling: Option<bool>,
    percentage_of_nodes_to_score: Option<i32>,
    pod_initial_backoff_seconds: Option<u64>,
    pod_max_backoff_seconds: Option<u64>,
    profiles: Vec<ProfileFile>,
    extenders: Option<Vec<IgnoredAny>>,
    delay_cache_until_active: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Election {
    leader_elect: Option<bool>,
    lease_duration: Option<String>,
    renew_deadline: Option<String>,
    retry_period: Option<String>,
    resource_lock: Option<String>,
    resource_name: Option<String>,
    resource_namespace: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Connection {
    kubeconfig: String,
    accept_content_types: String,
    content_type: String,
    qps: Option<f32>,
    burst: Option<i32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ProfileFile {
    scheduler_name: Option<String>,
    percentage_of_nodes_to_score: Option<i32>,
    plugins: HashMap<String, PluginSet>,
    plugin_config: Vec<PluginConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct PluginSet {
    enabled: Vec<PluginRef>,
    disabled: Vec<PluginRef>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct PluginRef {
    name: String,
    weight: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct PluginConfig {
    name: String,
    args: Option<IgnoredAny>,
}

/// A scheduler by name, and the plugins it has.
#[derive(Clone)]
pub struct Profile {
    /// What pods call it in `spec.schedulerName`.
    pub name: String,
    /// Its plugins.
    pub plugins: Vec<Plugin>,
}

/// What file and flags come to.
#[derive(Clone)]
pub struct Config {
    /// How to reach the API server.
    pub kubeconfig: Option<PathBuf>,
    /// The API server, if not the kubeconfig's.
    pub master: Option<String>,
    /// The schedulers we are.
    pub profiles: Vec<Profile>,
    /// The election, if we take part in one.
    pub election: Option<LeaderConfig>,
    /// Where health and metrics are served.
    pub serve: Option<SocketAddr>,
    /// A pod that failed is tried again after this, doubled each time.
    pub first_backoff: Duration,
    /// Up to this.
    pub max_backoff: Duration,
}

/// Why the configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("--config {0}: {1}")]
    Unreadable(PathBuf, std::io::Error),
    /// The file is not a KubeSchedulerConfiguration.
    #[error("--config {0}: {1}")]
    Malformed(PathBuf, serde_norway::Error),
    /// A field's or flag's value is not one.
    #[error("{0}: invalid value {1:?}: {2}")]
    Invalid(String, String, &'static str),
}

fn invalid(what: impl Into<String>, value: impl Into<String>, why: &'static str) -> ConfigError {
    ConfigError::Invalid(what.into(), value.into(), why)
}

impl Config {
    /// Reads the file, if there is one, and the flags.
    pub fn load(o: &Options) -> Result<Config, ConfigError> {
        match &o.config {
            None => Config::merge(File::default(), o),
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|e| ConfigError::Unreadable(path.clone(), e))?;
                Config::parse(&text, path, o)
            }
        }
    }

    /// Reads a file's text, and the flags.
    pub fn parse(text: &str, path: &Path, o: &Options) -> Result<Config, ConfigError> {
        let file: File = serde_norway::from_str(text).map_err(|e| ConfigError::Malformed(path.into(), e))?;
        if file.kind != "KubeSchedulerConfiguration" {
            return Err(invalid("kind", file.kind, "must be KubeSchedulerConfiguration"));
        }
        if file.api_version != "kubescheduler.config.k8s.io/v1" {
            return Err(invalid("apiVersion", file.api_version, "must be kubescheduler.config.k8s.io/v1"));
        }
        Config::merge(file, o)
    }

    fn merge(f: File, o: &Options) -> Result<Config, ConfigError> {
        if f.extenders.is_some_and(|e| !e.is_empty()) {
            return Err(invalid("extenders", "", "extenders are not supported"));
        }
        let mut profiles: Vec<Profile> = Vec::new();
        for (i, p) in f.profiles.iter().enumerate() {
            let profile = profile(i, p)?;
            if profiles.iter().any(|other| other.name == profile.name) {
                return Err(invalid(format!("profiles[{i}].schedulerName"), profile.name, "duplicate"));
            }
            profiles.push(profile);
        }
        if profiles.is_empty() {
            profiles.push(Profile { name: "default-scheduler".into(), plugins: DEFAULT.to_vec() });
        }
        let e = &f.leader_election;
        let election = match o.leader_elect.or(e.leader_elect).unwrap_or(true) {
            false => None,
            true => {
                let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
                let identity = format!("{}_{:032x}", host.trim(), rand::random::<u128>());
                let pick = |flag: &Option<String>, field: &Option<String>, default: &str| {
                    flag.clone().or(field.clone()).unwrap_or_else(|| default.into())
                };
                let lock = pick(&o.leader_elect_resource_lock, &e.resource_lock, "leases");
                if lock != "leases" {
                    return Err(invalid(
                        "leaderElection.resourceLock (--leader-elect-resource-lock)",
                        lock,
                        "must be leases",
                    ));
                }
                let mut c = LeaderConfig::new(
                    &pick(&o.leader_elect_resource_namespace, &e.resource_namespace, "kube-system"),
                    &pick(&o.leader_elect_resource_name, &e.resource_name, "kube-scheduler"),
                    &identity,
                );
                let times = [
                    (
                        "leaseDuration (--leader-elect-lease-duration)",
                        &o.leader_elect_lease_duration,
                        &e.lease_duration,
                        &mut c.lease_duration,
                    ),
                    (
                        "renewDeadline (--leader-elect-renew-deadline)",
                        &o.leader_elect_renew_deadline,
                        &e.renew_deadline,
                        &mut c.renew_deadline,
                    ),
                    (
                        "retryPeriod (--leader-elect-retry-period)",
                        &o.leader_elect_retry_period,
                        &e.retry_period,
                        &mut c.retry_period,
                    ),
                ];
                for (what, flag, field, to) in times {
                    if let Some(text) = flag.as_ref().or(field.as_ref()) {
                        *to = duration(text).ok_or_else(|| {
                            invalid(format!("leaderElection.{what}"), text, "must be a duration such as 15s")
                        })?;
                    }
                }
                Some(c)
            }
        };
        let connection = f.client_connection.kubeconfig;
        Ok(Config {
            kubeconfig: o.kubeconfig.clone().or((!connection.is_empty()).then(|| connection.into())),
            master: o.master.clone(),
            profiles,
            election,
            serve: (o.secure_port != 0).then(|| SocketAddr::new(o.bind_address, o.secure_port)),
            first_backoff: Duration::from_secs(f.pod_initial_backoff_seconds.unwrap_or(1)),
            max_backoff: Duration::from_secs(f.pod_max_backoff_seconds.unwrap_or(10)),
        })
    }
}

/// The default plugins, without those that are disabled, with the weights that are given. All other
/// extension points of a plugin go with its Filter or Score.
fn profile(i: usize, p: &ProfileFile) -> Result<Profile, ConfigError> {
    let name = p.scheduler_name.clone().unwrap_or_else(|| "default-scheduler".into());
    let mut plugins = DEFAULT.to_vec();
    let known = |name: &str| DEFAULT.iter().any(|p| p.name == name) || BUILT_IN.contains(&name);
    const POINTS: [&str; 14] = [
        "preEnqueue",
        "queueSort",
        "preFilter",
        "filter",
        "postFilter",
        "preScore",
        "score",
        "reserve",
        "permit",
        "preBind",
        "bind",
        "postBind",
        "multiPoint",
        "placementGenerate",
    ];
    for (point, set) in &p.plugins {
        let at = format!("profiles[{i}].plugins.{point}");
        if !POINTS.contains(&point.as_str()) {
            return Err(invalid(at, point, "no such extension point"));
        }
        for d in &set.disabled {
            if d.name != "*" && !known(&d.name) {
                return Err(invalid(format!("{at}.disabled"), &d.name, "no such plugin"));
            }
            for plugin in plugins.iter_mut().filter(|p| d.name == "*" || d.name == p.name) {
                if matches!(point.as_str(), "filter" | "multiPoint" | "preFilter") {
                    plugin.filter = |_, _| crate::framework::Prepared::Skip;
                }
                if matches!(point.as_str(), "score" | "multiPoint" | "preScore") {
                    plugin.weight = 0;
                }
            }
        }
        for e in &set.enabled {
            let Some(default) = DEFAULT.iter().find(|p| p.name == e.name) else {
                if known(&e.name) {
                    continue;
                }
                return Err(invalid(format!("{at}.enabled"), &e.name, "no such plugin"));
            };
            for plugin in plugins.iter_mut().filter(|p| p.name == e.name) {
                if matches!(point.as_str(), "filter" | "multiPoint") {
                    plugin.filter = default.filter;
                }
                if matches!(point.as_str(), "score" | "multiPoint") {
                    plugin.weight = e.weight.filter(|w| *w > 0).unwrap_or(default.weight);
                }
            }
        }
    }
    for c in &p.plugin_config {
        if !known(&c.name) {
            return Err(invalid(format!("profiles[{i}].pluginConfig"), &c.name, "no such plugin"));
        }
        if c.args.is_some() {
            tracing::warn!("profiles[{i}].pluginConfig: arguments of {} are not used", c.name);
        }
    }
    Ok(Profile { name, plugins })
}

/// A duration as Go writes it.
fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(end)?;
        let factor = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * factor;
        rest = tail;
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(sum).ok() }
}
