//! Flags and `KubeSchedulerConfiguration`, with upstream's names and defaults.

use crate::plugins::{ABSENT, BUILT_IN, DEFAULT, Plugin};
use client::leader::LeaderConfig;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
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
    plugins: Points,
    plugin_config: Vec<PluginConfig>,
}

/// The extension points, by upstream's names.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Points {
    pre_enqueue: PluginSet,
    queue_sort: PluginSet,
    pre_filter: PluginSet,
    filter: PluginSet,
    post_filter: PluginSet,
    pre_score: PluginSet,
    score: PluginSet,
    reserve: PluginSet,
    permit: PluginSet,
    pre_bind: PluginSet,
    bind: PluginSet,
    post_bind: PluginSet,
    multi_point: PluginSet,
    placement_generate: PluginSet,
    placement_score: PluginSet,
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
    args: Option<Value>,
}

/// A scheduler by name, and the plugins it has.
#[derive(Clone)]
pub struct Profile {
    /// What pods call it in `spec.schedulerName`.
    pub name: String,
    /// Its plugins.
    pub plugins: Vec<Plugin>,
    /// Whether pods may be preempted for its pods (DefaultPreemption).
    pub preempts: bool,
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
        let sampling =
            std::iter::once(("percentageOfNodesToScore".to_owned(), f.percentage_of_nodes_to_score)).chain(
                f.profiles.iter().enumerate().map(|(i, p)| {
                    (format!("profiles[{i}].percentageOfNodesToScore"), p.percentage_of_nodes_to_score)
                }),
            );
        for (at, percent) in sampling {
            if let Some(percent) = percent.filter(|p| *p != 0) {
                return Err(invalid(
                    at,
                    percent.to_string(),
                    "is not supported yet: leave it out, or 0, for what fits the cluster's size",
                ));
            }
        }
        let (first, last) =
            (f.pod_initial_backoff_seconds.unwrap_or(1), f.pod_max_backoff_seconds.unwrap_or(10));
        if first == 0 || last < first {
            return Err(invalid(
                "podInitialBackoffSeconds",
                first.to_string(),
                "must be above 0 and not above podMaxBackoffSeconds",
            ));
        }
        // What concerns the speed of upstream's client and threads means nothing here.
        let idle = [
            ("parallelism", f.parallelism.is_some()),
            ("enableContentionProfiling", f.enable_contention_profiling == Some(true)),
            ("enableProfiling", f.enable_profiling == Some(true)),
            ("delayCacheUntilActive", f.delay_cache_until_active.is_some()),
            ("clientConnection.qps", f.client_connection.qps.is_some()),
            ("clientConnection.burst", f.client_connection.burst.is_some()),
            ("clientConnection.contentType", !f.client_connection.content_type.is_empty()),
            ("clientConnection.acceptContentTypes", !f.client_connection.accept_content_types.is_empty()),
        ];
        let idle: Vec<&str> = idle.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
        if !idle.is_empty() {
            tracing::warn!("fields without effect in this scheduler: {}", idle.join(" "));
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
            profiles.push(Profile {
                name: "default-scheduler".into(),
                plugins: DEFAULT.to_vec(),
                preempts: true,
            });
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
            first_backoff: Duration::from_secs(first),
            max_backoff: Duration::from_secs(last),
        })
    }
}

/// What `set` and behind it `multiPoint` say of a plugin at one extension point: `None` if it is off, else its weight if one is
/// given. The point's own words count more, and what is enabled by name counts more than `*` (upstream: expandMultiPointPlugins).
fn at_point(name: &str, set: &PluginSet, multi: &PluginSet) -> Option<Option<i64>> {
    let weight =
        |refs: &[PluginRef]| refs.iter().find(|r| r.name == name).map(|r| r.weight.filter(|w| *w > 0));
    let off = |refs: &[PluginRef]| refs.iter().any(|r| r.name == name || r.name == "*");
    if let Some(weight_here) = weight(&set.enabled) {
        return Some(weight_here.or_else(|| weight(&multi.enabled).flatten()));
    }
    if off(&set.disabled) {
        return None;
    }
    if let Some(weight) = weight(&multi.enabled) {
        return Some(weight);
    }
    (!off(&multi.disabled)).then_some(None)
}

/// The default plugins, without those that are disabled, with the weights that are given.
fn profile(i: usize, p: &ProfileFile) -> Result<Profile, ConfigError> {
    let name = p.scheduler_name.clone().unwrap_or_else(|| "default-scheduler".into());
    let points = &p.plugins;
    let at = |point: &str| format!("profiles[{i}].plugins.{point}");
    for (point, set) in [
        ("preFilter", &points.pre_filter),
        ("filter", &points.filter),
        ("postFilter", &points.post_filter),
        ("preScore", &points.pre_score),
        ("score", &points.score),
        ("multiPoint", &points.multi_point),
        ("preEnqueue", &points.pre_enqueue),
        ("queueSort", &points.queue_sort),
        ("reserve", &points.reserve),
        ("permit", &points.permit),
        ("preBind", &points.pre_bind),
        ("bind", &points.bind),
        ("postBind", &points.post_bind),
        ("placementGenerate", &points.placement_generate),
        ("placementScore", &points.placement_score),
    ] {
        let known = |name: &str| DEFAULT.iter().any(|p| p.name == name) || BUILT_IN.contains(&name);
        for r in &set.enabled {
            if !known(&r.name) {
                return Err(invalid(at(point) + ".enabled", &r.name, "no such plugin"));
            }
            if r.weight.is_some_and(|w| !(0..=100).contains(&w)) {
                return Err(invalid(at(point) + ".enabled", &r.name, "its weight must be from 0 to 100"));
            }
            if ABSENT.contains(&r.name.as_str()) {
                return Err(invalid(at(point) + ".enabled", &r.name, "this plugin is not supported yet"));
            }
        }
        for r in &set.disabled {
            if r.name != "*" && !known(&r.name) {
                return Err(invalid(at(point) + ".disabled", &r.name, "no such plugin"));
            }
        }
        // What a plugin does at these points can't be taken from it here.
        let fixed = match point {
            "preEnqueue" => &["SchedulingGates"][..],
            "queueSort" => &["PrioritySort"],
            "reserve" | "preBind" => &["VolumeBinding"],
            "bind" => &["DefaultBinder"],
            "multiPoint" => &["SchedulingGates", "PrioritySort", "DefaultBinder"],
            _ => &[],
        };
        let gone = |name: &&&str| {
            set.disabled.iter().any(|r| r.name == "*" || r.name == **name)
                && !set.enabled.iter().chain(&points.multi_point.enabled).any(|r| r.name == **name)
        };
        if let Some(name) = fixed.iter().find(gone) {
            return Err(invalid(
                at(point) + ".disabled",
                *name,
                "this plugin can't be disabled here; name it among the enabled ones if all others are to go",
            ));
        }
    }
    let mut plugins = DEFAULT.to_vec();
    for plugin in &mut plugins {
        let on = |set| at_point(plugin.name, set, &points.multi_point);
        let (prepares, filters) = (on(&points.pre_filter).is_some(), on(&points.filter).is_some());
        if filters && !prepares {
            return Err(invalid(
                at("preFilter") + ".disabled",
                plugin.name,
                "its filter needs it: disable both",
            ));
        }
        if !filters {
            plugin.filter = |_, _| crate::framework::Prepared::Skip;
        }
        plugin.weight = match (on(&points.score), on(&points.pre_score)) {
            (Some(weight), Some(_)) => weight.unwrap_or(plugin.weight),
            _ => 0,
        };
    }
    let preempts = at_point("DefaultPreemption", &points.post_filter, &points.multi_point).is_some();
    for c in &p.plugin_config {
        plugin_arguments(&format!("profiles[{i}].pluginConfig"), c)?;
    }
    Ok(Profile { name, plugins, preempts })
}

/// Arguments that plugins have by themselves (upstream: apis/config/v1/defaults.go). Other values are not supported yet.
const ARGUMENTS: &str = r#"{
    "DefaultPreemption": {"minCandidateNodesPercentage": 10, "minCandidateNodesAbsolute": 100},
    "InterPodAffinity": {"hardPodAffinityWeight": 1, "ignorePreferredTermsOfExistingPods": false},
    "NodeAffinity": {"addedAffinity": null},
    "NodeResourcesBalancedAllocation": {"resources": [{"name": "cpu", "weight": 1}, {"name": "memory", "weight": 1}]},
    "NodeResourcesFit": {"ignoredResources": [], "ignoredResourceGroups": [], "scoringStrategy":
        {"type": "LeastAllocated", "resources": [{"name": "cpu", "weight": 1}, {"name": "memory", "weight": 1}], "requestedToCapacityRatio": null}},
    "PodTopologySpread": {"defaultConstraints": [], "defaultingType": "System"},
    "VolumeBinding": {"bindTimeoutSeconds": 600, "shape": []}
}"#;

fn plugin_arguments(at: &str, c: &PluginConfig) -> Result<(), ConfigError> {
    let all: Value = serde_json::from_str(ARGUMENTS).unwrap_or_default();
    let Some(known) = all.get(&c.name) else {
        return match c.args {
            Some(_) => Err(invalid(at, &c.name, "this plugin takes no arguments here")),
            None => Ok(()),
        };
    };
    fn differs(at: &str, given: &Value, known: &Value) -> Result<(), ConfigError> {
        match (given, known) {
            (Value::Null, _) => Ok(()),
            (Value::Object(given), Value::Object(known)) => given.iter().try_for_each(|(name, value)| {
                if matches!(name.as_str(), "apiVersion" | "kind") {
                    return Ok(());
                }
                let at = format!("{at}.{name}");
                known.get(name).map_or_else(
                    || Err(invalid(&at, value.to_string(), "no such argument")),
                    |known| differs(&at, value, known),
                )
            }),
            (given, known) if given == known => Ok(()),
            (given, _) => Err(invalid(at, given.to_string(), "only the default is supported yet")),
        }
    }
    c.args.as_ref().map_or(Ok(()), |args| differs(&format!("{at}[{}].args", c.name), args, known))
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn parse(profile: &str) -> Result<Profile, String> {
        let text = format!(
            "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles:\n- {}",
            profile.replace('\n', "\n  ")
        );
        let options = Options::parse_from(["kube-scheduler"]);
        let config = Config::parse(&text, Path::new("file"), &options).map_err(|e| e.to_string())?;
        config.profiles.into_iter().next().ok_or_else(|| "no profile".to_owned())
    }

    /// Names of plugins that filter; names and weights of those that score.
    fn shown(profile: &Profile) -> (String, String, bool) {
        let scores =
            profile.plugins.iter().filter(|p| p.weight != 0).map(|p| format!("{}={}", p.name, p.weight));
        let filters = profile
            .plugins
            .iter()
            .filter(|p| DEFAULT.iter().any(|d| d.name == p.name && std::ptr::fn_addr_eq(d.filter, p.filter)));
        (
            filters.map(|p| p.name).collect::<Vec<_>>().join(" "),
            scores.collect::<Vec<_>>().join(" "),
            profile.preempts,
        )
    }

    #[test]
    fn a_profile_means_the_same_each_time() {
        for _ in 0..20 {
            let profile = parse(
                "plugins:\n  multiPoint: {disabled: [{name: '*'}], enabled: [{name: PrioritySort}, {name: SchedulingGates}, {name: DefaultBinder}]}\n  \
                 score: {enabled: [{name: NodeResourcesFit, weight: 3}]}\n  preScore: {enabled: [{name: NodeResourcesFit}]}",
            )
            .unwrap();
            assert_eq!(shown(&profile), (String::new(), "NodeResourcesFit=3".to_owned(), false));
        }
    }

    #[test]
    fn a_points_own_words_count_more() {
        let profile = parse(
            "plugins:\n  multiPoint: {enabled: [{name: TaintToleration, weight: 9}]}\n  score: {disabled: [{name: ImageLocality}]}\n  \
             postFilter: {disabled: [{name: DefaultPreemption}]}",
        )
        .unwrap();
        let (_, scores, preempts) = shown(&profile);
        assert!(scores.contains("TaintToleration=9") && !scores.contains("ImageLocality"), "{scores}");
        assert!(!preempts);
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for (profile, word) in [
            ("percentageOfNodesToScore: 50", "percentageOfNodesToScore"),
            ("plugins: {bind: {disabled: [{name: '*'}]}}", "DefaultBinder"),
            ("plugins: {preFilter: {disabled: [{name: NodePorts}]}}", "disable both"),
            ("plugins: {score: {enabled: [{name: Nobodys}]}}", "no such plugin"),
            ("plugins: {multiPoint: {enabled: [{name: GangScheduling}]}}", "not supported yet"),
            ("plugins: {nowhere: {}}", "nowhere"),
            (
                "pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: MostAllocated}}}]",
                "scoringStrategy.type",
            ),
            (
                "pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 5}}]",
                "hardPodAffinityWeight",
            ),
        ] {
            let error = parse(profile).map(|p| p.name).unwrap_err();
            assert!(error.contains(word), "{profile}: {error}");
        }
        parse("pluginConfig: [{name: DefaultPreemption, args: {apiVersion: a, kind: DefaultPreemptionArgs, minCandidateNodesAbsolute: 100}}]").unwrap();
    }
}
