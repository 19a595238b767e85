//! Flags and `KubeProxyConfiguration`, with upstream's names and defaults.

use crate::model::Cidr;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The flags.
#[derive(Clone, Debug, Default, clap::Parser)]
#[command(name = "kube-proxy", about = "Makes Services work on this node", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the flags' names say it")]
pub struct Options {
    /// A file with a KubeProxyConfiguration; most other flags do not count then
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// How to reach the API server
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// The API server, instead of the kubeconfig's
    #[arg(long)]
    pub master: Option<String>,
    /// The Node's name, if it is not the host's
    #[arg(long)]
    pub hostname_override: Option<String>,
    /// The addresses of all pods, one range a family
    #[arg(long, value_delimiter = ',')]
    pub cluster_cidr: Vec<String>,
    /// iptables
    #[arg(long)]
    pub proxy_mode: Option<String>,
    /// ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix
    #[arg(long)]
    pub detect_local_mode: Option<String>,
    #[arg(long)]
    pub pod_bridge_interface: Option<String>,
    #[arg(long)]
    pub pod_interface_name_prefix: Option<String>,
    /// Addresses of the node where node ports answer; all if none is given
    #[arg(long, value_delimiter = ',')]
    pub nodeport_addresses: Vec<String>,
    #[arg(long)]
    pub bind_address: Option<String>,
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub bind_address_hard_fail: Option<bool>,
    #[arg(long)]
    pub healthz_bind_address: Option<String>,
    #[arg(long)]
    pub metrics_bind_address: Option<String>,
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub masquerade_all: Option<bool>,
    #[arg(long)]
    pub iptables_masquerade_bit: Option<u8>,
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub iptables_localhost_nodeports: Option<bool>,
    #[arg(long)]
    pub iptables_sync_period: Option<String>,
    #[arg(long)]
    pub iptables_min_sync_period: Option<String>,
    #[arg(long)]
    pub conntrack_max_per_core: Option<u32>,
    #[arg(long)]
    pub conntrack_min: Option<u32>,
    #[arg(long)]
    pub conntrack_tcp_timeout_established: Option<String>,
    #[arg(long)]
    pub conntrack_tcp_timeout_close_wait: Option<String>,
    #[arg(long)]
    pub conntrack_udp_timeout: Option<String>,
    #[arg(long)]
    pub conntrack_udp_timeout_stream: Option<String>,
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub conntrack_tcp_be_liberal: Option<bool>,
    #[arg(long, allow_hyphen_values = true)]
    pub oom_score_adj: Option<i32>,
    #[arg(long)]
    pub config_sync_period: Option<String>,
    #[arg(long)]
    pub feature_gates: Option<String>,
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub profiling: Option<bool>,
    #[arg(long)]
    pub kube_api_qps: Option<f32>,
    #[arg(long)]
    pub kube_api_burst: Option<i32>,
    #[arg(long)]
    pub kube_api_content_type: Option<String>,
    /// Prepares the node and exits
    #[arg(long)]
    pub init_only: bool,
    /// Removes what a proxy has programmed, and exits
    #[arg(long)]
    pub cleanup: bool,
    /// How much to log
    #[arg(short, long, default_value_t = 2)]
    pub v: u8,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    feature_gates: Option<IgnoredAny>,
    client_connection: ClientConnection,
    logging: Option<IgnoredAny>,
    hostname_override: String,
    bind_address: String,
    healthz_bind_address: String,
    metrics_bind_address: String,
    bind_address_hard_fail: Option<bool>,
    enable_profiling: Option<bool>,
    show_hidden_metrics_for_version: String,
    mode: String,
    iptables: IpTables,
    ipvs: Option<IgnoredAny>,
    nftables: Option<IgnoredAny>,
    winkernel: Option<IgnoredAny>,
    detect_local_mode: String,
    detect_local: DetectLocal,
    #[serde(rename = "clusterCIDR")]
    cluster_cidr: String,
    node_port_addresses: Option<Vec<String>>,
    oom_score_adj: Option<i32>,
    conntrack: Conntrack,
    config_sync_period: Option<IgnoredAny>,
    port_range: Option<IgnoredAny>,
    windows_run_as_service: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ClientConnection {
    kubeconfig: String,
    accept_content_types: String,
    content_type: String,
    qps: Option<f32>,
    burst: Option<i32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct IpTables {
    masquerade_bit: Option<u8>,
    masquerade_all: Option<bool>,
    localhost_node_ports: Option<bool>,
    sync_period: Option<String>,
    min_sync_period: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct DetectLocal {
    bridge_interface: String,
    interface_name_prefix: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Conntrack {
    max_per_core: Option<u32>,
    min: Option<u32>,
    tcp_established_timeout: Option<String>,
    tcp_close_wait_timeout: Option<String>,
    tcp_be_liberal: Option<bool>,
    udp_timeout: Option<String>,
    udp_stream_timeout: Option<String>,
}

/// How pods' traffic is to be told from other traffic.
#[derive(Clone, Debug, PartialEq)]
pub enum LocalMode {
    /// By the ranges of all pods; if there are none, it is not told.
    Cluster(Vec<Cidr>),
    /// By the range of this node's pods.
    Node,
    /// By the interface, as rules write it.
    Interface(String),
}

/// What file and flags come to.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "upstream's names")]
pub struct Config {
    pub kubeconfig: Option<PathBuf>,
    pub master: Option<String>,
    /// This node's name.
    pub node: String,
    pub bind_address: Option<std::net::IpAddr>,
    pub bind_address_hard_fail: bool,
    pub healthz: Option<SocketAddr>,
    pub metrics: Option<SocketAddr>,
    pub local_mode: LocalMode,
    pub masquerade_all: bool,
    pub masquerade_bit: u8,
    pub localhost_node_ports: bool,
    pub node_port_addresses: Vec<Cidr>,
    /// Whether `nodePortAddresses: [primary]` was asked for.
    pub node_ports_at_primary: bool,
    pub sync_period: Duration,
    pub min_sync_period: Duration,
    pub oom_score_adj: i32,
    pub tcp_be_liberal: bool,
    /// Kernel settings to make, as a path below /proc/sys and a value.
    pub sysctls: Vec<(&'static str, u64)>,
}

/// Why the configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("--config {0}: {1}")]
    Unreadable(PathBuf, std::io::Error),
    /// The file is not a KubeProxyConfiguration.
    #[error("--config {0}: {1}")]
    Malformed(PathBuf, serde_norway::Error),
    /// A field's or flag's value is not one.
    #[error("{0}: invalid value {1:?}: {2}")]
    Invalid(&'static str, String, &'static str),
    /// The node has no name.
    #[error("--hostname-override: cannot find out this host's name: {0}")]
    NoHostname(std::io::Error),
}

impl Config {
    /// Reads the file, if there is one, and the flags.
    pub fn load(o: &Options) -> Result<Config, ConfigError> {
        let file = match &o.config {
            None => File::default(),
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|e| ConfigError::Unreadable(path.clone(), e))?;
                let file: File =
                    serde_norway::from_str(&text).map_err(|e| ConfigError::Malformed(path.clone(), e))?;
                check_kind(&file)?;
                file
            }
        };
        Config::merge(file, o)
    }

    fn merge(f: File, o: &Options) -> Result<Config, ConfigError> {
        let mode = pick(&o.proxy_mode, &f.mode);
        match mode.as_str() {
            "" | "iptables" => {}
            "nftables" | "ipvs" => {
                return Err(ConfigError::Invalid(
                    "mode (--proxy-mode)",
                    mode,
                    "this proxy programs iptables only",
                ));
            }
            _ => return Err(ConfigError::Invalid("mode (--proxy-mode)", mode, "must be iptables")),
        }
        let node = pick(&o.hostname_override, &f.hostname_override);
        let node = if node.is_empty() { hostname()? } else { node };
        let cidrs: Vec<String> = match o.cluster_cidr.is_empty() {
            true => f.cluster_cidr.split(',').filter(|s| !s.is_empty()).map(Into::into).collect(),
            false => o.cluster_cidr.clone(),
        };
        let bit = o.iptables_masquerade_bit.or(f.iptables.masquerade_bit).unwrap_or(14);
        if bit > 31 {
            let field = "iptables.masqueradeBit (--iptables-masquerade-bit)";
            return Err(ConfigError::Invalid(field, bit.to_string(), "must be within the range [0, 31]"));
        }
        let bridge = pick(&o.pod_bridge_interface, &f.detect_local.bridge_interface);
        let prefix = pick(&o.pod_interface_name_prefix, &f.detect_local.interface_name_prefix);
        let local_mode = match pick(&o.detect_local_mode, &f.detect_local_mode).as_str() {
            "" | "ClusterCIDR" => LocalMode::Cluster(ranges("clusterCIDR (--cluster-cidr)", &cidrs)?),
            "NodeCIDR" => LocalMode::Node,
            "BridgeInterface" if !bridge.is_empty() => LocalMode::Interface(bridge),
            "InterfaceNamePrefix" if !prefix.is_empty() => LocalMode::Interface(format!("{prefix}+")),
            "BridgeInterface" => {
                return Err(ConfigError::Invalid(
                    "detectLocal.bridgeInterface (--pod-bridge-interface)",
                    bridge,
                    "required",
                ));
            }
            "InterfaceNamePrefix" => {
                let field = "detectLocal.interfaceNamePrefix (--pod-interface-name-prefix)";
                return Err(ConfigError::Invalid(field, prefix, "required"));
            }
            other => {
                let modes = "must be ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix";
                return Err(ConfigError::Invalid(
                    "detectLocalMode (--detect-local-mode)",
                    other.into(),
                    modes,
                ));
            }
        };
        let addresses = match o.nodeport_addresses.is_empty() {
            true => f.node_port_addresses.clone().unwrap_or_default(),
            false => o.nodeport_addresses.clone(),
        };
        let primary = addresses == ["primary"];
        let node_port_addresses = if primary {
            Vec::new()
        } else {
            ranges("nodePortAddresses (--nodeport-addresses)", &addresses)?
        };
        // Node ports on 127.0.0.1 need a setting of the kernel that opens that address to the node's neighbours a little.
        let at_loopback = !primary
            && (node_port_addresses.iter().all(|c| c.ip.is_ipv6())
                || node_port_addresses.iter().any(|c| c.contains(Ipv4Addr::LOCALHOST.into())));
        let sync_period = duration(
            "iptables.syncPeriod (--iptables-sync-period)",
            &o.iptables_sync_period,
            &f.iptables.sync_period,
        )?;
        let min_sync_period = duration(
            "iptables.minSyncPeriod (--iptables-min-sync-period)",
            &o.iptables_min_sync_period,
            &f.iptables.min_sync_period,
        )?;
        let healthz = address(
            "healthzBindAddress (--healthz-bind-address)",
            o.healthz_bind_address.as_ref(),
            &f.healthz_bind_address,
            "0.0.0.0:10256",
        )?;
        let metrics = address(
            "metricsBindAddress (--metrics-bind-address)",
            o.metrics_bind_address.as_ref(),
            &f.metrics_bind_address,
            "127.0.0.1:10249",
        )?;
        let bind_address = pick(&o.bind_address, &f.bind_address);
        let bind_address = match bind_address.as_str() {
            "" | "0.0.0.0" | "::" => None,
            ip => Some(ip.parse().map_err(|_| {
                ConfigError::Invalid("bindAddress (--bind-address)", ip.into(), "must be an IP address")
            })?),
        };
        let kubeconfig = match (&o.kubeconfig, f.client_connection.kubeconfig.as_str()) {
            (Some(path), _) => Some(path.clone()),
            (None, "") => None,
            (None, path) => Some(path.into()),
        };
        Ok(Config {
            kubeconfig,
            master: o.master.clone(),
            node,
            bind_address,
            bind_address_hard_fail: o.bind_address_hard_fail.or(f.bind_address_hard_fail).unwrap_or(false),
            healthz,
            metrics,
            local_mode,
            masquerade_all: o.masquerade_all.or(f.iptables.masquerade_all).unwrap_or(false),
            masquerade_bit: bit,
            localhost_node_ports: o
                .iptables_localhost_nodeports
                .or(f.iptables.localhost_node_ports)
                .unwrap_or(true)
                && at_loopback,
            node_port_addresses,
            node_ports_at_primary: primary,
            sync_period: sync_period.filter(|d| !d.is_zero()).unwrap_or(Duration::from_secs(30)),
            min_sync_period: min_sync_period.unwrap_or(Duration::from_secs(1)),
            oom_score_adj: o.oom_score_adj.or(f.oom_score_adj).unwrap_or(-999),
            tcp_be_liberal: o.conntrack_tcp_be_liberal.or(f.conntrack.tcp_be_liberal).unwrap_or(false),
            sysctls: sysctls(o, &f.conntrack)?,
        })
    }
}

fn check_kind(f: &File) -> Result<(), ConfigError> {
    if f.kind != "KubeProxyConfiguration" {
        return Err(ConfigError::Invalid("kind", f.kind.clone(), "must be KubeProxyConfiguration"));
    }
    if f.api_version != "kubeproxy.config.k8s.io/v1alpha1" {
        let version = "must be kubeproxy.config.k8s.io/v1alpha1";
        return Err(ConfigError::Invalid("apiVersion", f.api_version.clone(), version));
    }
    Ok(())
}

fn pick(flag: &Option<String>, field: &str) -> String {
    flag.clone().unwrap_or_else(|| field.into())
}

fn hostname() -> Result<String, ConfigError> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").map_err(ConfigError::NoHostname)?;
    Ok(name.trim().to_lowercase())
}

fn ranges(what: &'static str, texts: &[String]) -> Result<Vec<Cidr>, ConfigError> {
    let range = |t: &String| {
        Cidr::parse(t)
            .ok_or_else(|| ConfigError::Invalid(what, t.clone(), "must be ranges such as 10.0.0.0/8"))
    };
    texts.iter().map(range).collect()
}

/// An address to listen on; without a port it gets the default one. An empty flag means not to listen.
fn address(
    what: &'static str,
    flag: Option<&String>,
    field: &str,
    default: &str,
) -> Result<Option<SocketAddr>, ConfigError> {
    let text = match (flag, field) {
        (Some(flag), _) if flag.is_empty() => return Ok(None),
        (Some(flag), _) => flag,
        (None, "") => default,
        (None, field) => field,
    };
    let port = default.rsplit(':').next().unwrap_or_default();
    let bracketed =
        |ip: std::net::IpAddr| if ip.is_ipv6() { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
    let full = text.parse::<std::net::IpAddr>().map_or_else(|_| text.to_string(), bracketed);
    full.parse().map(Some).map_err(|_| ConfigError::Invalid(what, text.into(), "must be address:port"))
}

fn duration(
    what: &'static str,
    flag: &Option<String>,
    field: &Option<String>,
) -> Result<Option<Duration>, ConfigError> {
    let Some(text) = flag.as_ref().or(field.as_ref()) else { return Ok(None) };
    parse_duration(text)
        .map(Some)
        .ok_or_else(|| ConfigError::Invalid(what, text.clone(), "must be a duration such as 30s or 1m30s"))
}

/// A duration as Go writes it: `1h2m3.5s`.
fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
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
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * factor;
        rest = tail;
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(sum).ok() }
}

fn sysctls(o: &Options, f: &Conntrack) -> Result<Vec<(&'static str, u64)>, ConfigError> {
    let mut out = Vec::new();
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let per_core = u64::from(o.conntrack_max_per_core.or(f.max_per_core).unwrap_or(32 * 1024));
    let min = u64::from(o.conntrack_min.or(f.min).unwrap_or(128 * 1024));
    if per_core > 0 {
        out.push(("net/netfilter/nf_conntrack_max", min.max(per_core * cores)));
    }
    let times = [
        (
            "conntrack.tcpEstablishedTimeout (--conntrack-tcp-timeout-established)",
            &o.conntrack_tcp_timeout_established,
            &f.tcp_established_timeout,
            86_400,
            "net/netfilter/nf_conntrack_tcp_timeout_established",
        ),
        (
            "conntrack.tcpCloseWaitTimeout (--conntrack-tcp-timeout-close-wait)",
            &o.conntrack_tcp_timeout_close_wait,
            &f.tcp_close_wait_timeout,
            3600,
            "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
        ),
        (
            "conntrack.udpTimeout (--conntrack-udp-timeout)",
            &o.conntrack_udp_timeout,
            &f.udp_timeout,
            0,
            "net/netfilter/nf_conntrack_udp_timeout",
        ),
        (
            "conntrack.udpStreamTimeout (--conntrack-udp-timeout-stream)",
            &o.conntrack_udp_timeout_stream,
            &f.udp_stream_timeout,
            0,
            "net/netfilter/nf_conntrack_udp_timeout_stream",
        ),
    ];
    for (what, flag, field, default, path) in times {
        let seconds = duration(what, flag, field)?.map_or(default, |d| d.as_secs());
        if seconds > 0 {
            out.push((path, seconds));
        }
    }
    if o.conntrack_tcp_be_liberal.or(f.tcp_be_liberal).unwrap_or(false) {
        out.push(("net/netfilter/nf_conntrack_tcp_be_liberal", 1));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("30s", Some(30_000)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("0", Some(0)),
            ("10ms", Some(10)),
            ("", None),
            ("5", None),
            ("x", None),
        ] {
            assert_eq!(parse_duration(text).map(|d| d.as_millis()), millis, "{text}");
        }
    }

    #[test]
    fn refused() {
        let load = |yaml: &str| {
            let file = serde_norway::from_str::<File>(yaml).map_err(|e| e.to_string())?;
            check_kind(&file).map_err(|e| e.to_string())?;
            Config::merge(file, &Options { hostname_override: Some("a".into()), ..Options::default() })
                .map_err(|e| e.to_string())
        };
        let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        for (yaml, word) in [
            ("mode: nftables", "mode"),
            ("mod: x", "mod"),
            ("clusterCIDR: x", "clusterCIDR"),
            ("metricsBindAddress: nowhere", "metricsBindAddress"),
            ("iptables: {syncPeriod: x}", "syncPeriod"),
            ("iptables: {masqueradeBit: 32}", "masqueradeBit"),
            ("detectLocalMode: Bridge", "detectLocalMode"),
        ] {
            let error = load(&format!("{head}{yaml}\n")).expect_err(yaml);
            assert!(error.contains(word), "{yaml}: {error}");
        }
        assert!(load("kind: x").is_err());
        let good = load(&format!(
            "{head}clusterCIDR: 10.244.0.0/16\nconntrack: {{maxPerCore: 0}}\nmetricsBindAddress: \"\"\n"
        ));
        let good = good.expect("a good file");
        assert_eq!(good.local_mode, LocalMode::Cluster(vec![Cidr::parse("10.244.0.0/16").unwrap()]));
        assert_eq!(good.metrics, "127.0.0.1:10249".parse().ok());
    }
}
