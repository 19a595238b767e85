//! Services and endpoints as the rules see them: one family's addresses, parsed.

use client::ObjectExt;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// The label of an EndpointSlice that names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// An address family; each has its own tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// As the API and the metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// Its first address.
    pub ip: IpAddr,
    /// How many leading bits all have in common.
    pub bits: u8,
}

impl Cidr {
    /// Reads `address/bits`.
    pub fn parse(text: &str) -> Option<Cidr> {
        let (ip, bits) = text.trim().split_once('/')?;
        let (ip, bits) = (ip.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?);
        if bits > if ip.is_ipv4() { 32 } else { 128 } {
            return None;
        }
        let ip = match ip {
            IpAddr::V4(v4) => {
                IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)).into())
            }
            IpAddr::V6(v6) => {
                IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)).into())
            }
        };
        Some(Cidr { ip, bits })
    }

    /// Whether an address is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        Family::of(ip) == Family::of(self.ip) && Cidr::parse(&format!("{ip}/{}", self.bits)) == Some(*self)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    fn read(name: Option<&str>) -> Option<Protocol> {
        match name.unwrap_or("TCP") {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// As rules write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// One port of one Service, in one family.
#[derive(Clone, Debug, PartialEq)]
pub struct ServicePort {
    /// `namespace/name:port`, or without `:port` if the port has no name.
    pub name: String,
    /// The port's name.
    pub port_name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// The Service's cluster address.
    pub cluster_ip: IpAddr,
    /// The port at that address.
    pub port: u16,
    /// The port on every node; 0 if none.
    pub node_port: u16,
    /// `externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// Addresses of the load balancer whose packets arrive with that destination.
    pub lb_ips: Vec<IpAddr>,
    /// Who may use the load balancer; empty is everyone.
    pub source_ranges: Vec<Cidr>,
    /// How long, in seconds, a client stays with its endpoint.
    pub affinity: Option<u32>,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// Where load balancers ask whether this node has endpoints; 0 if they don't.
    pub health_port: u16,
}

impl ServicePort {
    /// Whether anything but its cluster address leads to it.
    pub fn externally_accessible(&self) -> bool {
        self.node_port != 0 || !self.lb_ips.is_empty() || !self.external_ips.is_empty()
    }

    /// Whether endpoints of all nodes are used. With external traffic they always are: traffic that starts
    /// in the cluster is not bound to local endpoints.
    pub fn uses_cluster(&self) -> bool {
        !self.internal_local || self.externally_accessible()
    }

    /// Whether this node's endpoints are used on their own.
    pub fn uses_local(&self) -> bool {
        self.internal_local || (self.external_local && self.externally_accessible())
    }
}

/// Where a service port's traffic can go.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
    /// Whether it is on this node.
    pub local: bool,
    /// Whether it takes new connections.
    pub ready: bool,
    /// Whether it answers.
    pub serving: bool,
    /// Whether it is going away.
    pub terminating: bool,
    /// Zones it should be used from.
    pub zones: Vec<String>,
    /// Nodes it should be used from.
    pub nodes: Vec<String>,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            IpAddr::V4(ip) => write!(f, "{ip}:{}", self.port),
            IpAddr::V6(ip) => write!(f, "[{ip}]:{}", self.port),
        }
    }
}

/// The ports of a Service in a family; none if it is not for us.
pub fn service_ports(service: &Service, family: Family) -> Vec<ServicePort> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let Some(cluster_ip) = cluster_ip(spec, family) else { return Vec::new() };
    let external = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
    let external_local = spec.external_traffic_policy.as_deref() == Some("Local")
        && (external || spec.external_ips.iter().flatten().next().is_some());
    let health_port = match (spec.type_.as_deref(), external_local) {
        (Some("LoadBalancer"), true) => spec.health_check_node_port.and_then(port).unwrap_or(0),
        _ => 0,
    };
    let of_family = |ip: &IpAddr| Family::of(*ip) == family;
    let mut source_ranges: Vec<Cidr> = spec
        .load_balancer_source_ranges
        .iter()
        .flatten()
        .filter_map(|s| Cidr::parse(s))
        .filter(|c| of_family(&c.ip))
        .collect();
    if source_ranges.iter().any(|c| c.bits == 0) {
        source_ranges.clear();
    }
    let ingress = service.status.iter().filter_map(|s| s.load_balancer.as_ref()?.ingress.as_ref()).flatten();
    let lb_ips: Vec<IpAddr> = ingress
        .filter(|i| i.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"))
        .filter_map(|i| i.ip.as_deref()?.parse().ok())
        .filter(of_family)
        .collect();
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let seconds =
            spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
        seconds.and_then(|s| u32::try_from(s).ok()).unwrap_or(10_800)
    });
    let mut ports = Vec::new();
    for p in spec.ports.iter().flatten() {
        let (Some(protocol), Some(number)) = (Protocol::read(p.protocol.as_deref()), port(p.port)) else {
            continue;
        };
        let port_name = p.name.clone().unwrap_or_default();
        let colon = if port_name.is_empty() { "" } else { ":" };
        ports.push(ServicePort {
            name: format!("{}/{}{colon}{port_name}", service.namespace(), service.name()),
            port_name,
            protocol,
            cluster_ip,
            port: number,
            node_port: p.node_port.and_then(port).unwrap_or(0),
            external_ips: spec
                .external_ips
                .iter()
                .flatten()
                .filter_map(|s| s.parse().ok())
                .filter(of_family)
                .collect(),
            lb_ips: lb_ips.clone(),
            source_ranges: source_ranges.clone(),
            affinity,
            external_local,
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            health_port,
        });
    }
    ports
}

fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|n| *n != 0)
}

fn cluster_ip(spec: &ServiceSpec, family: Family) -> Option<IpAddr> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    all.filter_map(|ip| ip.parse().ok()).find(|ip| Family::of(*ip) == family)
}

/// The endpoints of one port of a Service, by address and port, from its slices.
pub fn endpoints(
    slices: &[Arc<EndpointSlice>],
    family: Family,
    port: &ServicePort,
    node: &str,
) -> Vec<Endpoint> {
    let mut found: BTreeMap<(IpAddr, u16), Endpoint> = BTreeMap::new();
    for slice in slices.iter().filter(|s| s.address_type == family.as_str()) {
        for p in slice.ports.iter().flatten() {
            let Some(number) = p.port.and_then(self::port) else { continue };
            let same = p.name.as_deref().unwrap_or_default() == port.port_name
                && Protocol::read(p.protocol.as_deref()) == Some(port.protocol);
            if !same {
                continue;
            }
            for e in slice.endpoints.iter().flatten() {
                let Some(ip) = e.addresses.first().and_then(|a| a.parse::<IpAddr>().ok()) else { continue };
                let is =
                    |c: fn(&k8s_openapi::api::discovery::v1::EndpointConditions) -> Option<bool>,
                     or: bool| { e.conditions.as_ref().and_then(c).unwrap_or(or) };
                let hints = e.hints.as_ref();
                let endpoint = Endpoint {
                    ip,
                    port: number,
                    local: !node.is_empty() && e.node_name.as_deref() == Some(node),
                    ready: is(|c| c.ready, true),
                    serving: is(|c| c.serving, true),
                    terminating: is(|c| c.terminating, false),
                    zones: hints
                        .and_then(|h| h.for_zones.as_ref())
                        .into_iter()
                        .flatten()
                        .map(|z| z.name.clone())
                        .collect(),
                    nodes: hints
                        .and_then(|h| h.for_nodes.as_ref())
                        .into_iter()
                        .flatten()
                        .map(|n| n.name.clone())
                        .collect(),
                };
                // A network may give a terminating pod's address to a new pod: the new one counts.
                if !endpoint.terminating || !found.contains_key(&(ip, number)) {
                    found.insert((ip, number), endpoint);
                }
            }
        }
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (range, ip, inside) in [
            ("10.0.0.0/8", "10.200.1.1", true),
            ("10.0.0.7/8", "11.0.0.1", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("1.2.3.4/32", "1.2.3.4", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "10.0.0.1", false),
        ] {
            assert_eq!(
                Cidr::parse(range).is_some_and(|c| c.contains(ip.parse().unwrap())),
                inside,
                "{ip} in {range}"
            );
        }
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0.0/-1"] {
            assert_eq!(Cidr::parse(bad), None, "{bad}");
        }
    }
}
