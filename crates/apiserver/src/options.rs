//! The flags, by upstream's names.

use auth::authn::front_proxy::FrontProxy;
use clap::Parser;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A range of addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct Cidr {
    base: IpAddr,
    bits: u8,
}

impl FromStr for Cidr {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let (base, bits) =
            s.split_once('/').ok_or_else(|| format!("{s:?} is not an address range such as 10.96.0.0/12"))?;
        let base: IpAddr = base.parse().map_err(|_| format!("{base:?} is not an IP address"))?;
        let max = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits
            .parse()
            .ok()
            .filter(|b| *b <= max)
            .ok_or_else(|| format!("{bits:?} is not a prefix length"))?;
        Ok(Cidr { base, bits })
    }
}

impl Cidr {
    /// Whether it is of IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.base.is_ipv4()
    }

    fn number(address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(a) => u32::from(a).into(),
            IpAddr::V6(a) => a.into(),
        }
    }

    fn host_bits(&self) -> u32 {
        if self.is_ipv4() { 32 - u32::from(self.bits) } else { 128 - u32::from(self.bits) }
    }

    /// How many addresses there are; of a large IPv6 range 2^16, as upstream's allocator uses.
    pub fn size(&self) -> u64 {
        1 << self.host_bits().min(if self.is_ipv4() { 32 } else { 16 })
    }

    /// Addresses at the start that are handed out only on demand: min(max(16, size / 16), 256).
    pub fn reserved(&self) -> u64 {
        (self.size() / 16).clamp(16, 256)
    }

    /// The n-th address.
    pub fn nth(&self, n: u64) -> IpAddr {
        let mask = if self.host_bits() >= 128 { 0 } else { u128::MAX << self.host_bits() };
        let number = (Self::number(self.base) & mask).wrapping_add(n.into());
        if self.is_ipv4() { IpAddr::V4((number as u32).into()) } else { IpAddr::V6(number.into()) }
    }

    /// Whether it has an address, which is neither its own nor the one that means all of them.
    pub fn hands_out(&self, address: IpAddr) -> bool {
        let small = self.host_bits() < 2;
        let last = self.is_ipv4() && address == self.nth(self.size() - 1);
        self.contains(address) && (small || address != self.nth(0) && !last)
    }

    /// Whether it has an address.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_ipv4()
            && (Self::number(address) ^ Self::number(self.base)).checked_shr(self.host_bits()).unwrap_or(0)
                == 0
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

fn port_range(s: &str) -> Result<(u16, u16), String> {
    let bad = || format!("{s:?} is not a port range such as 30000-32767");
    let (low, high) = s.split_once('-').ok_or_else(bad)?;
    let (low, high) = (low.parse().map_err(|_| bad())?, high.parse().map_err(|_| bad())?);
    if low <= high && low > 0 { Ok((low, high)) } else { Err(bad()) }
}

/// The API server.
#[derive(Clone, Debug, Parser)]
#[command(name = "kube-apiserver", disable_version_flag = true)]
pub struct Options {
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Port to listen on, with TLS.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// Address under which other members of the cluster reach this server.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// Directory for the certificate and key that are made if none are given.
    #[arg(long, default_value = "/var/run/kubernetes")]
    pub cert_dir: PathBuf,
    /// Certificate of this server, with those of its issuers.
    #[arg(long, requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Key of this server's certificate.
    #[arg(long, requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// Authorities whose client certificates are accepted.
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// File of static tokens: token,user,uid,"group1,group2".
    #[arg(long)]
    pub token_auth_file: Option<PathBuf>,
    /// Whether requests without credentials are let in as system:anonymous.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = truth)]
    pub anonymous_auth: bool,
    /// Whether bootstrap tokens are accepted.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = truth)]
    pub enable_bootstrap_token_auth: bool,
    /// Issuer of service account tokens; the first issues, all are accepted.
    #[arg(long, default_value = "https://kubernetes.default.svc.cluster.local")]
    pub service_account_issuer: Vec<String>,
    /// Keys that check service account tokens.
    #[arg(long)]
    pub service_account_key_file: Vec<PathBuf>,
    /// Key that signs service account tokens.
    #[arg(long)]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// Audiences of this server; the issuer if none is given.
    #[arg(long, value_delimiter = ',', value_name = "AUDIENCES")]
    pub api_audiences: Vec<String>,
    /// Whether tokens of pods live on for a year for those who do not read them anew.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = truth)]
    pub service_account_extend_token_expiration: bool,
    /// Authorizers, in order: Node, RBAC, AlwaysAllow, AlwaysDeny.
    #[arg(long, value_delimiter = ',', default_value = "AlwaysAllow")]
    pub authorization_mode: Vec<String>,
    /// Range of services' addresses; two for dual stack.
    #[arg(long, value_delimiter = ',', default_value = "10.0.0.0/24")]
    pub service_cluster_ip_range: Vec<Cidr>,
    /// Range of services' node ports.
    #[arg(long, default_value = "30000-32767", value_parser = port_range)]
    pub service_node_port_range: (u16, u16),
    /// etcd's servers. Without them objects are kept in --data-dir.
    #[arg(long, value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// What all keys in etcd begin with.
    #[arg(long, default_value = "/registry")]
    pub etcd_prefix: String,
    /// Authority of etcd's certificates.
    #[arg(long)]
    pub etcd_cafile: Option<PathBuf>,
    /// Certificate for etcd.
    #[arg(long)]
    pub etcd_certfile: Option<PathBuf>,
    /// Key of the certificate for etcd.
    #[arg(long)]
    pub etcd_keyfile: Option<PathBuf>,
    /// Directory of the embedded store.
    #[arg(long, default_value = "/var/lib/ferrokube")]
    pub data_dir: PathBuf,
    /// Admission plugins to turn on beside those that are on by default.
    #[arg(long, value_delimiter = ',')]
    pub enable_admission_plugins: Vec<String>,
    /// Admission plugins to turn off.
    #[arg(long, value_delimiter = ',')]
    pub disable_admission_plugins: Vec<String>,
    /// File that configures admission plugins.
    #[arg(long)]
    pub admission_control_config_file: Option<PathBuf>,
    /// Certificate with which this server speaks to kubelets.
    #[arg(long)]
    pub kubelet_client_certificate: Option<PathBuf>,
    /// Key of that certificate.
    #[arg(long)]
    pub kubelet_client_key: Option<PathBuf>,
    /// Authority of kubelets' certificates; without it they are not checked.
    #[arg(long)]
    pub kubelet_certificate_authority: Option<PathBuf>,
    /// Which of a node's addresses to use, by preference.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP"
    )]
    pub kubelet_preferred_address_types: Vec<String>,
    /// The store is compacted this often: seconds, or as 5m0s; 0 for never.
    #[arg(long, default_value = "5m0s", value_parser = duration)]
    pub etcd_compaction_interval: Duration,
    /// How long events are kept: seconds, or as 1h0m0s.
    #[arg(long, default_value = "1h0m0s", value_parser = duration)]
    pub event_ttl: Duration,
    /// Requests that may be under way at once, changes apart.
    #[arg(long, default_value_t = 400)]
    pub max_requests_inflight: usize,
    /// Changes that may be under way at once.
    #[arg(long, default_value_t = 200)]
    pub max_mutating_requests_inflight: usize,
    /// How long a request may take that does not watch or follow: seconds, or as 1m0s.
    #[arg(long, default_value = "1m0s", value_parser = duration)]
    pub request_timeout: Duration,
    /// Seconds after which a watch ends that sets no limit of its own, or up to twice that.
    #[arg(long, default_value_t = 1800)]
    pub min_request_timeout: u32,
    /// Streams that one HTTP/2 connection may have open; 0 for 100.
    #[arg(long, default_value_t = 0)]
    pub http2_max_streams_per_connection: u32,
    /// Authority of the front proxy's certificates.
    #[arg(long)]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Names a front proxy's certificate may have.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers in which a front proxy names the user.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_username_headers: Vec<String>,
    /// Headers in which a front proxy says the user's uid.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,
    /// Headers in which a front proxy names the groups.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_group_headers: Vec<String>,
    /// Prefixes of headers in which a front proxy tells more of the user.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// Certificate with which this server speaks to aggregated ones.
    #[arg(long)]
    pub proxy_client_cert_file: Option<PathBuf>,
    /// Key of that certificate.
    #[arg(long)]
    pub proxy_client_key_file: Option<PathBuf>,
    /// Whether pods may have privileged containers.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = truth)]
    pub allow_privileged: bool,
    /// Longest life of a service account's token; 0 for upstream's.
    #[arg(long, default_value = "0", value_parser = token_expiration)]
    pub service_account_max_token_expiration: Duration,
    /// Where others find the keys that check service account tokens.
    #[arg(long)]
    pub service_account_jwks_uri: Option<String>,
    /// Name under which others reach this server, where addresses are told to them.
    #[arg(long)]
    pub external_hostname: Option<String>,
    /// Least version of TLS that is spoken: VersionTLS12 or VersionTLS13.
    #[arg(long, default_value = "VersionTLS12", value_parser = tls_version)]
    pub tls_min_version: TlsVersion,
    /// Cipher suites of TLS 1.2, by their IANA names; those of 1.3 are always there.
    #[arg(long, value_delimiter = ',')]
    pub tls_cipher_suites: Vec<String>,
    /// Whether HTTP/2 is off.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = truth)]
    pub disable_http2_serving: bool,
    /// What the header Strict-Transport-Security says.
    #[arg(long, value_delimiter = ',', value_parser = hsts)]
    pub strict_transport_security_directives: Vec<String>,
    /// How long a pod stays on a node that is not ready, unless it says otherwise: seconds.
    #[arg(long, default_value_t = 300, allow_negative_numbers = true)]
    pub default_not_ready_toleration_seconds: i64,
    /// The same of a node that can't be reached.
    #[arg(long, default_value_t = 300, allow_negative_numbers = true)]
    pub default_unreachable_toleration_seconds: i64,
    /// For so long after the start /livez does not wait for what has to be made.
    #[arg(long, default_value = "0", value_parser = duration)]
    pub livez_grace_period: Duration,
    /// For so long requests are still served after the server was told to end and says so.
    #[arg(long, default_value = "0", value_parser = duration)]
    pub shutdown_delay_duration: Duration,
    /// Watches have so long to end at a shutdown.
    #[arg(long, default_value = "0", value_parser = duration)]
    pub shutdown_watch_termination_grace_period: Duration,
    /// Who looks after the endpoints of the kubernetes service: lease or none.
    #[arg(long, default_value = "lease", value_parser = reconciler)]
    pub endpoint_reconciler_type: Reconciler,
    /// APIs that are turned on or off: GROUP/VERSION=false, api/beta=false.
    #[arg(long, value_delimiter = ',', value_parser = served)]
    pub runtime_config: Vec<(String, bool)>,
    /// Verbosity of the log.
    #[arg(short, long = "v", default_value_t = 2)]
    pub v: u8,
}

/// A duration; a number alone is of seconds.
fn duration(s: &str) -> Result<Duration, String> {
    match s.parse::<u32>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds.into())),
        Err(_) => api::duration::parse(s).map_err(|e| e.to_string()),
    }
}

/// A truth as Go reads it.
fn truth(s: &str) -> Result<bool, String> {
    match s {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("{other:?} is neither true nor false")),
    }
}

/// Longest life of a token that can be asked for: between these.
const TOKEN_LIFE: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(1 << 32));

fn token_expiration(s: &str) -> Result<Duration, String> {
    let life = duration(s)?;
    if life.is_zero() || (TOKEN_LIFE.0..=TOKEN_LIFE.1).contains(&life) {
        Ok(life)
    } else {
        Err("it must be between 1 hour and 2^32 seconds".into())
    }
}

fn reconciler(s: &str) -> Result<Reconciler, String> {
    match s {
        "lease" => Ok(Reconciler::Lease),
        "none" => Ok(Reconciler::None),
        other => Err(format!("{other:?} is none of lease, none")),
    }
}

/// Who looks after the endpoints of the `kubernetes` service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconciler {
    /// All servers, each with a lease in the store.
    Lease,
    /// Nobody here.
    None,
}

/// A version of TLS, by Go's name. Those before 1.2 are never spoken.
fn tls_version(s: &str) -> Result<TlsVersion, String> {
    match s {
        "VersionTLS10" | "VersionTLS11" | "VersionTLS12" => Ok(TlsVersion::Tls12),
        "VersionTLS13" => Ok(TlsVersion::Tls13),
        other => Err(format!("{other:?} is none of VersionTLS10, VersionTLS11, VersionTLS12, VersionTLS13")),
    }
}

/// The least version of TLS that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2.
    Tls12,
    /// 1.3.
    Tls13,
}

/// `KEY=VALUE` of `--runtime-config`.
fn served(s: &str) -> Result<(String, bool), String> {
    let (name, on) = s.split_once('=').unwrap_or((s, "true"));
    let on = if on.is_empty() { true } else { truth(on)? };
    Ok((name.trim().into(), on))
}

fn hsts(s: &str) -> Result<String, String> {
    let known = matches!(s, "includeSubDomains" | "preload")
        || s.strip_prefix("max-age=").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    if known {
        Ok(s.into())
    } else {
        Err(format!("{s:?} is none of max-age=SECONDS, includeSubDomains, preload"))
    }
}

impl Options {
    /// `--requestheader-...`.
    pub fn front_proxy(&self) -> FrontProxy {
        let clean = |list: &[String]| {
            list.iter().map(|s| s.trim()).filter(|s| !s.is_empty()).map(String::from).collect()
        };
        let names = self.requestheader_allowed_names.iter().filter(|n| !n.is_empty());
        FrontProxy {
            allowed_names: names.cloned().collect(),
            user: clean(&self.requestheader_username_headers),
            uid: clean(&self.requestheader_uid_headers),
            groups: clean(&self.requestheader_group_headers),
            extra: clean(&self.requestheader_extra_headers_prefix),
        }
    }

    /// `--api-audiences`, or the issuers.
    pub fn api_audiences(&self) -> Vec<String> {
        if self.api_audiences.is_empty() {
            self.service_account_issuer.clone()
        } else {
            self.api_audiences.clone()
        }
    }

    /// Whether strangers are let in. Never where everyone may do everything: that would be an open cluster.
    pub fn anonymous_auth(&self) -> bool {
        self.anonymous_auth && !self.authorization_mode.iter().any(|m| m == "AlwaysAllow")
    }

    /// `--etcd-prefix`, as all keys begin: with a slash at both ends.
    pub fn etcd_root(&self) -> String {
        format!("/{}/", self.etcd_prefix.trim_matches('/'))
    }

    /// `--request-timeout`.
    pub fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// The address other members reach this server under.
    pub fn advertised(&self) -> IpAddr {
        // Nobody else reaches a loopback address, and endpoints may have none.
        let bound = Some(self.bind_address).filter(|a| !a.is_unspecified() && !a.is_loopback());
        self.advertise_address.or(bound).or_else(default_address).unwrap_or(IpAddr::from([127, 0, 0, 1]))
    }

    /// The authorizers named.
    pub fn modes(&self) -> Result<Vec<auth::authz::Mode>, String> {
        use auth::authz::Mode;
        let read = |m: &String| match m.as_str() {
            "Node" => Ok(Mode::Node),
            "RBAC" => Ok(Mode::Rbac),
            "AlwaysAllow" => Ok(Mode::AlwaysAllow),
            "AlwaysDeny" => Ok(Mode::AlwaysDeny),
            other => {
                Err(format!("--authorization-mode: {other:?} is none of Node, RBAC, AlwaysAllow, AlwaysDeny"))
            }
        };
        self.authorization_mode.iter().map(read).collect()
    }
}

/// The address this machine sends from by default. Nothing is sent: a datagram socket that is connected knows it.
fn default_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|a| a.ip()).filter(|a| !a.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let c: Cidr = "10.96.0.0/12".parse().unwrap();
        assert_eq!(c.nth(1).to_string(), "10.96.0.1");
        assert!(c.contains("10.111.255.255".parse().unwrap()) && !c.contains("10.112.0.0".parse().unwrap()));
        assert_eq!((c.size(), c.reserved()), (1 << 20, 256));
        let given = ["10.96.0.1", "10.111.255.254", "10.96.0.0", "10.111.255.255", "10.112.0.1"];
        assert_eq!(given.map(|a| c.hands_out(a.parse().unwrap())), [true, true, false, false, false]);
        let last: Cidr = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128".parse().unwrap();
        assert!(!last.contains(last.nth(1)), "there is only one");
        let c: Cidr = "fd00::/108".parse().unwrap();
        assert_eq!(c.nth(10).to_string(), "fd00::a");
        assert!("10.0.0.0".parse::<Cidr>().is_err() && "10.0.0.0/33".parse::<Cidr>().is_err());
        assert_eq!(duration("1h0m5s"), Ok(Duration::from_secs(3605)));
        assert_eq!(
            (duration("90"), duration("500ms")),
            (Ok(Duration::from_secs(90)), Ok(Duration::from_millis(500)))
        );
        assert!(
            duration("1h5").is_err() && token_expiration("59m").is_err() && token_expiration("1h").is_ok()
        );
        assert!(port_range("5-4").is_err());
    }

    #[test]
    fn flags_are_written_as_go_takes_them() {
        let parse =
            |args: &[&str]| Options::try_parse_from(["x"].iter().chain(args)).map_err(|e| e.to_string());
        assert!(parse(&[]).unwrap().anonymous_auth && !parse(&[]).unwrap().allow_privileged);
        assert!(!parse(&["--anonymous-auth=False"]).unwrap().anonymous_auth);
        assert!(parse(&["--allow-privileged", "--v=4"]).unwrap().allow_privileged);
        assert!(parse(&["--allow-privileged=1"]).unwrap().allow_privileged);
        for bad in
            ["--allow-privileged=yes", "--tls-min-version=1.3", "--strict-transport-security-directives=off"]
        {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
        let config = parse(&["--runtime-config=api/beta=false,batch/v1,apps/v1="]).unwrap().runtime_config;
        let config: Vec<(&str, bool)> = config.iter().map(|(n, on)| (n.as_str(), *on)).collect();
        assert_eq!(config, [("api/beta", false), ("batch/v1", true), ("apps/v1", true)]);
    }
}
