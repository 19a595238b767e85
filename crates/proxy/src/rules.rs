//! What the tables say about one service port: a pure function of the port, its endpoints and the settings.
//! Chains and their names are upstream's, so that tools and people who know them find their way.

use crate::model::{Cidr, Endpoint, Family, ServicePort};
use ring::digest;
use std::net::IpAddr;

/// How this node tells traffic of its pods from other traffic.
#[derive(Clone, Debug, PartialEq)]
pub enum LocalTraffic {
    /// It does not.
    Unknown,
    /// By its source.
    Cidr(Cidr),
    /// By the interface that it came in on, as rules write it (`br0`, `veth+`).
    Interface(String),
}

impl LocalTraffic {
    fn matches(&self, local: bool) -> Option<String> {
        let not = if local { "" } else { "! " };
        match self {
            LocalTraffic::Unknown => None,
            LocalTraffic::Cidr(cidr) => Some(format!("{not}-s {cidr}")),
            LocalTraffic::Interface(name) => Some(format!("{not}-i {name}")),
        }
    }
}

/// What is the same for all services of a family.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Which tables.
    pub family: Family,
    /// This node's name.
    pub node: String,
    /// This node's zone.
    pub zone: String,
    /// This node's address.
    pub node_ip: Option<IpAddr>,
    /// How pods' traffic is told.
    pub local: LocalTraffic,
    /// Whether all traffic to cluster addresses is masqueraded.
    pub masquerade_all: bool,
    /// The bit that marks what is to be masqueraded.
    pub masquerade_bit: u8,
    /// Whether node ports answer at 127.0.0.1.
    pub localhost_node_ports: bool,
    /// At which of the node's addresses node ports answer; empty is all.
    pub node_port_addresses: Vec<Cidr>,
    /// Whether packets that the connection tracker finds invalid may pass.
    pub tcp_be_liberal: bool,
    /// Leave out comments on endpoints: with many they cost more than they help.
    pub large: bool,
}

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// What may pass.
    Filter,
    /// Where it goes.
    Nat,
}

/// A chain that many services have rules in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Shared {
    FilterServices,
    FilterExternal,
    FilterNodePorts,
    FilterFirewall,
    NatServices,
    NatNodePorts,
}

impl Shared {
    /// All of them.
    pub const ALL: [Shared; 6] = [
        Shared::FilterServices,
        Shared::FilterExternal,
        Shared::FilterNodePorts,
        Shared::FilterFirewall,
        Shared::NatServices,
        Shared::NatNodePorts,
    ];

    /// Its table and its name.
    pub fn chain(self) -> (Table, &'static str) {
        match self {
            Shared::FilterServices => (Table::Filter, "KUBE-SERVICES"),
            Shared::FilterExternal => (Table::Filter, "KUBE-EXTERNAL-SERVICES"),
            Shared::FilterNodePorts => (Table::Filter, "KUBE-NODEPORTS"),
            Shared::FilterFirewall => (Table::Filter, "KUBE-PROXY-FIREWALL"),
            Shared::NatServices => (Table::Nat, "KUBE-SERVICES"),
            Shared::NatNodePorts => (Table::Nat, "KUBE-NODEPORTS"),
        }
    }
}

/// The rules of one or more service ports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// Rules in chains that others use too.
    pub shared: Vec<(Shared, String)>,
    /// Chains of their own, in the nat table, with all their rules.
    pub own: Vec<(String, Vec<String>)>,
}

/// A chain's name: a kind, and sixteen characters of a hash.
pub fn chain_name(kind: &str, port: &ServicePort, endpoint: &str) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let text = format!("{}{}{endpoint}", port.name, port.protocol.as_str());
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    let bits = hash.as_ref().iter().take(10).fold(0u128, |n, b| n << 8 | u128::from(*b));
    let letters = (0..16).rev().map(|i| char::from(ALPHABET[(bits >> (5 * i) & 31) as usize]));
    format!("KUBE-{kind}-{}", letters.collect::<String>())
}

/// Whether a chain's name is one that [`chain_name`] makes.
pub fn is_service_chain(name: &str) -> bool {
    ["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-"].iter().any(|p| name.starts_with(p))
}

/// The endpoints that a service port's traffic goes to, from here.
struct Usable<'a> {
    cluster: Vec<&'a Endpoint>,
    local: Vec<&'a Endpoint>,
    /// Both, each once.
    reachable: Vec<&'a Endpoint>,
    /// Whether there are any, here or elsewhere.
    any: bool,
}

fn usable<'a>(all: &'a [Endpoint], port: &ServicePort, s: &Settings) -> Usable<'a> {
    let last_resort = |e: &&Endpoint| e.serving && e.terminating;
    let mut u = Usable { cluster: Vec::new(), local: Vec::new(), reachable: Vec::new(), any: false };
    if port.uses_cluster() {
        let near = near(all, s);
        u.cluster = all.iter().filter(|e| e.ready && near(e)).collect();
        if u.cluster.is_empty() {
            u.cluster = all.iter().filter(last_resort).collect();
        }
        u.any = !u.cluster.is_empty();
    }
    if port.uses_local() {
        u.any |= all.iter().any(|e| e.ready || last_resort(&e));
        u.local = all.iter().filter(|e| e.local && e.ready).collect();
        if u.local.is_empty() {
            u.local = all.iter().filter(|e| e.local).filter(last_resort).collect();
        }
    }
    let is_in = |e: &Endpoint, list: &[&Endpoint]| list.iter().any(|o| std::ptr::eq(*o, e));
    u.reachable = if u.local.is_empty() {
        u.cluster.clone()
    } else if u.cluster.is_empty() {
        u.local.clone()
    } else {
        all.iter().filter(|e| is_in(e, &u.cluster) || is_in(e, &u.local)).collect()
    };
    u
}

/// Hints count only if all ready endpoints have them and one of them is for us: first nodes, then zones.
fn near<'a>(all: &[Endpoint], s: &'a Settings) -> Box<dyn Fn(&Endpoint) -> bool + 'a> {
    let mut ready = all.iter().filter(|e| e.ready).peekable();
    if ready.peek().is_none() {
        return Box::new(|_| true);
    }
    let ready: Vec<&Endpoint> = ready.collect();
    let for_node = |e: &Endpoint| e.nodes.contains(&s.node);
    let for_zone = |e: &Endpoint| e.zones.contains(&s.zone);
    if ready.iter().all(|e| !e.nodes.is_empty()) && ready.iter().any(|e| for_node(e)) {
        return Box::new(for_node);
    }
    if ready.iter().all(|e| !e.zones.is_empty()) && ready.iter().any(|e| for_zone(e)) {
        return Box::new(for_zone);
    }
    Box::new(|_| true)
}

/// Writes the rules of one service port.
pub fn service_port(port: &ServicePort, endpoints: &[Endpoint], s: &Settings, out: &mut Piece) {
    let u = usable(endpoints, port, s);
    let (name, protocol) = (&port.name, port.protocol.as_str());
    let cluster_chain = chain_name("SVC", port, "");
    let local_chain = chain_name("SVL", port, "");
    let external_chain = chain_name("EXT", port, "");
    let firewall_chain = chain_name("FW", port, "");

    let internal_chain = if port.internal_local { &local_chain } else { &cluster_chain };
    let has_internal = u.any && !(port.internal_local && u.local.is_empty());
    let external_policy_chain = if port.external_local { &local_chain } else { &cluster_chain };
    let has_external = u.any && !(port.external_local && u.local.is_empty());
    let uses_external = u.any && port.externally_accessible();
    let uses_firewall = u.any && !port.lb_ips.is_empty() && !port.source_ranges.is_empty();
    let lb_chain = if uses_firewall { &firewall_chain } else { &external_chain };
    // Without endpoints anywhere clients are told at once; without local ones others may still answer them.
    let (refusal, why) = if u.any { ("DROP", "no local endpoints") } else { ("REJECT", "no endpoints") };
    let refused = format!("-m comment --comment \"{name} has {why}\"");
    let to = |ip: IpAddr| format!("-m {protocol} -p {protocol} -d {ip} --dport {}", port.port);
    let comment = |text: &str| format!("-m comment --comment \"{name} {text}\"");

    if has_internal {
        let rule = format!("{} {} -j {internal_chain}", comment("cluster IP"), to(port.cluster_ip));
        out.shared.push((Shared::NatServices, rule));
    } else {
        out.shared.push((Shared::FilterServices, format!("{refused} {} -j {refusal}", to(port.cluster_ip))));
    }
    let vips = port.external_ips.iter().map(|ip| (ip, "external IP", &external_chain));
    for (ip, what, chain) in vips.chain(port.lb_ips.iter().map(|ip| (ip, "loadbalancer IP", lb_chain))) {
        if u.any {
            out.shared.push((Shared::NatServices, format!("{} {} -j {chain}", comment(what), to(*ip))));
        }
        if !has_external {
            out.shared.push((Shared::FilterExternal, format!("{refused} {} -j {refusal}", to(*ip))));
        }
    }
    if uses_firewall {
        for ip in &port.lb_ips {
            let comment = comment(&format!("traffic not accepted by {firewall_chain}"));
            out.shared.push((Shared::FilterFirewall, format!("{comment} {} -j DROP", to(*ip))));
        }
    }
    if port.node_port != 0 {
        let at = format!("-m {protocol} -p {protocol} --dport {}", port.node_port);
        if u.any {
            let rule = format!("-m comment --comment {} {at} -j {external_chain}", quoted(name));
            out.shared.push((Shared::NatNodePorts, rule));
        }
        if !has_external {
            let rule = format!("{refused} -m addrtype --dst-type LOCAL {at} -j {refusal}");
            out.shared.push((Shared::FilterExternal, rule));
        }
    }
    if port.health_port != 0 {
        let rule = format!(
            "{} -m tcp -p tcp --dport {} -j ACCEPT",
            comment("health check node port"),
            port.health_port
        );
        out.shared.push((Shared::FilterNodePorts, rule));
    }

    // Traffic to the cluster address that does not come from a pod goes back through this node.
    let outsiders = match (s.masquerade_all, s.local.matches(false)) {
        (true, _) => Some(String::new()),
        (false, not_local) => not_local.map(|m| format!("{m} ")),
    };
    let masquerade = outsiders
        .filter(|_| has_internal)
        .map(|from| format!("{} {} {from}-j KUBE-MARK-MASQ", comment("cluster IP"), to(port.cluster_ip)));
    if uses_external {
        let rules = external(port, s, &cluster_chain, has_external.then_some(external_policy_chain));
        out.own.push((external_chain.clone(), rules));
    }
    if uses_firewall {
        out.own.push((firewall_chain, firewall(port, s, &external_chain)));
    }
    for (chain, used, targets) in
        [(&cluster_chain, port.uses_cluster(), &u.cluster), (&local_chain, port.uses_local(), &u.local)]
    {
        if used && !targets.is_empty() {
            let mut rules = Vec::with_capacity(targets.len() + 1);
            rules.extend(masquerade.clone().filter(|_| chain == internal_chain));
            balance(port, s, targets, &mut rules);
            out.own.push((chain.clone(), rules));
        }
    }
    for e in &u.reachable {
        let chain = chain_name("SEP", port, &e.to_string());
        let comment = endpoint_comment(s, || name.clone());
        let keep = match port.affinity {
            Some(_) => format!("-m recent --name {chain} --set "),
            None => String::new(),
        };
        let rules = vec![
            format!("{comment}-s {} -j KUBE-MARK-MASQ", e.ip), // a pod that reaches itself
            format!("{comment}{keep}-m {protocol} -p {protocol} -j DNAT --to-destination {e}"),
        ];
        out.own.push((chain, rules));
    }
}

fn quoted(text: &str) -> String {
    if text.contains(' ') { format!("\"{text}\"") } else { text.into() }
}

fn endpoint_comment(s: &Settings, text: impl FnOnce() -> String) -> String {
    if s.large { String::new() } else { format!("-m comment --comment {} ", quoted(&text())) }
}

/// What all traffic from outside goes through, whatever it was sent to.
fn external(port: &ServicePort, s: &Settings, cluster: &str, policy: Option<&String>) -> Vec<String> {
    let comment =
        |what: &str| format!("-m comment --comment \"{what} for {} external destinations\"", port.name);
    let mut rules = Vec::new();
    if port.external_local {
        if let Some(from_pods) = s.local.matches(true) {
            rules.push(format!("{} {from_pods} -j {cluster}", comment("pod traffic")));
        }
        let from_node = "-m addrtype --src-type LOCAL";
        rules.push(format!("{} {from_node} -j KUBE-MARK-MASQ", comment("masquerade LOCAL traffic")));
        rules.push(format!("{} {from_node} -j {cluster}", comment("route LOCAL traffic")));
    } else {
        rules.push(format!("{} -j KUBE-MARK-MASQ", comment("masquerade traffic")));
    }
    rules.extend(policy.map(|chain| format!("-j {chain}")));
    rules
}

/// Who may use the load balancer's addresses. What falls out at the end keeps its destination, and
/// KUBE-PROXY-FIREWALL drops that.
fn firewall(port: &ServicePort, s: &Settings, external: &str) -> Vec<String> {
    let comment = format!("-m comment --comment \"{} loadbalancer IP\"", port.name);
    let mut rules: Vec<String> =
        port.source_ranges.iter().map(|range| format!("{comment} -s {range} -j {external}")).collect();
    // A balancer's address may be local to the node; then the node's own requests have it as their source.
    if s.node_ip.is_some_and(|ip| port.source_ranges.iter().any(|r| r.contains(ip))) {
        rules.extend(port.lb_ips.iter().map(|ip| format!("{comment} -s {ip} -j {external}")));
    }
    rules.push(format!(
        "-m comment --comment \"other traffic to {} will be dropped by KUBE-PROXY-FIREWALL\"",
        port.name
    ));
    rules
}

/// First to the endpoint that the client had before, then to any, all equally likely.
fn balance(port: &ServicePort, s: &Settings, targets: &[&Endpoint], rules: &mut Vec<String>) {
    let chains: Vec<String> = targets.iter().map(|e| chain_name("SEP", port, &e.to_string())).collect();
    let comment = |e: &Endpoint| endpoint_comment(s, || format!("{} -> {e}", port.name));
    if let Some(seconds) = port.affinity {
        for (e, chain) in targets.iter().zip(&chains) {
            rules.push(format!(
                "{}-m recent --name {chain} --rcheck --seconds {seconds} --reap -j {chain}",
                comment(e)
            ));
        }
    }
    for (i, (e, chain)) in targets.iter().zip(&chains).enumerate() {
        let left = targets.len() - i;
        let chance = match left {
            1 => String::new(),
            n => format!("-m statistic --mode random --probability {:.10} ", 1.0 / n as f64),
        };
        rules.push(format!("{}{chance}-j {chain}", comment(e)));
    }
}

/// The rules that do not depend on services: chain by chain, complete but for [`Shared`] ones, of which these
/// are the last rules.
pub fn base(s: &Settings) -> Vec<(Table, &'static str, Vec<String>)> {
    let mark = format!("{:#010x}", 1u32.checked_shl(s.masquerade_bit.into()).unwrap_or_default());
    let note = "kubernetes service nodeports; NOTE: this must be the last rule in this chain";
    let note = format!("-m comment --comment \"{note}\"");
    let loopback = match (s.family, s.localhost_node_ports) {
        (Family::V6, _) => " ! -d ::1/128",
        (Family::V4, false) => " ! -d 127.0.0.0/8",
        (Family::V4, true) => "",
    };
    let local = "-m addrtype --dst-type LOCAL";
    // A family that is not named has its ports on all addresses (upstream: NewNodePortAddresses).
    let addresses: Vec<_> = s.node_port_addresses.iter().filter(|c| Family::of(c.ip) == s.family).collect();
    let to_node_ports = if addresses.is_empty() || addresses.iter().any(|c| c.bits == 0) {
        vec![format!("{note} {local}{loopback} -j KUBE-NODEPORTS")]
    } else {
        let open = addresses.iter().filter(|c| s.localhost_node_ports || !c.ip.is_loopback());
        open.map(|c| format!("{note} -d {c} {local} -j KUBE-NODEPORTS")).collect()
    };
    let mut forward = Vec::new();
    if !s.tcp_be_liberal {
        forward.push("-m conntrack --ctstate INVALID -j DROP".to_string());
    }
    forward.push(format!(
        "-m comment --comment \"kubernetes forwarding rules\" -m mark --mark {mark}/{mark} -j ACCEPT"
    ));
    forward.push(
        "-m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".into(),
    );
    let postrouting = vec![
        format!("-m mark ! --mark {mark}/{mark} -j RETURN"),
        format!("-j MARK --xor-mark {mark}"),
        "-m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully"
            .into(),
    ];
    let mut chains = vec![
        (Table::Filter, "KUBE-FORWARD", forward),
        (Table::Nat, "KUBE-POSTROUTING", postrouting),
        (Table::Nat, "KUBE-MARK-MASQ", vec![format!("-j MARK --or-mark {mark}")]),
        (Table::Nat, "KUBE-SERVICES", to_node_ports),
        (Table::Nat, "KUBE-PROXY-CANARY", Vec::new()),
    ];
    if s.family == Family::V4 && s.localhost_node_ports {
        // route_localnet would let neighbours reach what listens on 127.0.0.1.
        let rule = "-m comment --comment \"block incoming localnet connections\" -d 127.0.0.0/8 ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP";
        chains.push((Table::Filter, "KUBE-FIREWALL", vec![rule.into()]));
    }
    chains
}

/// How packets get to our chains: table, the kernel's chain, match, our chain.
pub fn jumps(s: &Settings) -> Vec<(Table, &'static str, String, &'static str)> {
    use Table::{Filter, Nat};
    let new = |text: &str| format!("-m conntrack --ctstate NEW -m comment --comment \"kubernetes {text}\"");
    let any = |text: &str| format!("-m comment --comment \"kubernetes {text}\"");
    let external = || new("externally-visible service portals");
    let firewall = || new("load balancer firewall");
    let mut jumps = vec![
        (Filter, "INPUT", external(), "KUBE-EXTERNAL-SERVICES"),
        (Filter, "FORWARD", external(), "KUBE-EXTERNAL-SERVICES"),
        (Filter, "INPUT", any("health check service ports"), "KUBE-NODEPORTS"),
        (Filter, "FORWARD", new("service portals"), "KUBE-SERVICES"),
        (Filter, "OUTPUT", new("service portals"), "KUBE-SERVICES"),
        (Filter, "FORWARD", any("forwarding rules"), "KUBE-FORWARD"),
        (Filter, "INPUT", firewall(), "KUBE-PROXY-FIREWALL"),
        (Filter, "OUTPUT", firewall(), "KUBE-PROXY-FIREWALL"),
        (Filter, "FORWARD", firewall(), "KUBE-PROXY-FIREWALL"),
        (Nat, "OUTPUT", any("service portals"), "KUBE-SERVICES"),
        (Nat, "PREROUTING", any("service portals"), "KUBE-SERVICES"),
        (Nat, "POSTROUTING", any("postrouting rules"), "KUBE-POSTROUTING"),
    ];
    if s.family == Family::V4 && s.localhost_node_ports {
        jumps.push((Filter, "INPUT", String::new(), "KUBE-FIREWALL"));
        jumps.push((Filter, "OUTPUT", String::new(), "KUBE-FIREWALL"));
    }
    jumps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;
    use crate::tables::{Found, Tables};
    use expect_test::{Expect, expect};
    use std::collections::BTreeMap;

    fn settings() -> Settings {
        Settings {
            family: Family::V4,
            node: "n1".into(),
            zone: "z1".into(),
            node_ip: "192.168.0.1".parse().ok(),
            local: LocalTraffic::Cidr(Cidr::parse("10.244.0.0/16").unwrap()),
            masquerade_all: false,
            masquerade_bit: 14,
            localhost_node_ports: true,
            node_port_addresses: Vec::new(),
            tcp_be_liberal: false,
            large: false,
        }
    }

    fn port() -> ServicePort {
        ServicePort {
            name: "ns/svc:p".into(),
            port_name: "p".into(),
            protocol: Protocol::Tcp,
            cluster_ip: [10, 0, 0, 1].into(),
            port: 80,
            node_port: 0,
            external_ips: Vec::new(),
            lb_ips: Vec::new(),
            source_ranges: Vec::new(),
            affinity: None,
            external_local: false,
            internal_local: false,
            health_port: 0,
        }
    }

    /// `10.1.0.1 local`, a word for each thing that is not usual.
    fn endpoint(text: &str) -> Endpoint {
        let mut words = text.split(' ');
        let ip = words.next().unwrap().parse().unwrap();
        let words: Vec<&str> = words.collect();
        let zones = words.iter().filter_map(|w| w.strip_prefix("zone=")).map(Into::into).collect();
        let terminating = words.contains(&"terminating");
        let local = words.contains(&"local");
        Endpoint {
            ip,
            port: 8080,
            local,
            ready: !terminating,
            serving: true,
            terminating,
            zones,
            nodes: Vec::new(),
        }
    }

    fn piece(port: &ServicePort, endpoints: &[&str]) -> Piece {
        let endpoints: Vec<_> = endpoints.iter().map(|e| endpoint(e)).collect();
        let mut piece = Piece::default();
        service_port(port, &endpoints, &settings(), &mut piece);
        piece
    }

    fn check(port: &ServicePort, endpoints: &[&str], expected: Expect) {
        let piece = piece(port, endpoints);
        let mut text = String::new();
        for (shared, rule) in piece.shared {
            text += &format!("{shared:?}: {rule}\n");
        }
        for (chain, rules) in piece.own {
            text += &format!("{chain}\n");
            rules.iter().for_each(|rule| text += &format!("  {rule}\n"));
        }
        expected.assert_eq(&text);
    }

    #[test]
    fn cluster_address() {
        check(
            &port(),
            &["10.1.0.1", "10.1.0.2 local", "10.1.0.3 terminating"],
            expect![[r#"
            NatServices: -m comment --comment "ns/svc:p cluster IP" -m tcp -p tcp -d 10.0.0.1 --dport 80 -j KUBE-SVC-G2XI3FWALOWGEAFL
            KUBE-SVC-G2XI3FWALOWGEAFL
              -m comment --comment "ns/svc:p cluster IP" -m tcp -p tcp -d 10.0.0.1 --dport 80 ! -s 10.244.0.0/16 -j KUBE-MARK-MASQ
              -m comment --comment "ns/svc:p -> 10.1.0.1:8080" -m statistic --mode random --probability 0.5000000000 -j KUBE-SEP-VRNWFNIKBI27RY4T
              -m comment --comment "ns/svc:p -> 10.1.0.2:8080" -j KUBE-SEP-52BTULT3DYJMPUDA
            KUBE-SEP-VRNWFNIKBI27RY4T
              -m comment --comment ns/svc:p -s 10.1.0.1 -j KUBE-MARK-MASQ
              -m comment --comment ns/svc:p -m tcp -p tcp -j DNAT --to-destination 10.1.0.1:8080
            KUBE-SEP-52BTULT3DYJMPUDA
              -m comment --comment ns/svc:p -s 10.1.0.2 -j KUBE-MARK-MASQ
              -m comment --comment ns/svc:p -m tcp -p tcp -j DNAT --to-destination 10.1.0.2:8080
        "#]],
        );
    }

    #[test]
    fn nothing_behind_it() {
        let port = ServicePort { node_port: 30_000, external_ips: vec![[1, 2, 3, 4].into()], ..port() };
        check(
            &port,
            &[],
            expect![[r#"
            FilterServices: -m comment --comment "ns/svc:p has no endpoints" -m tcp -p tcp -d 10.0.0.1 --dport 80 -j REJECT
            FilterExternal: -m comment --comment "ns/svc:p has no endpoints" -m tcp -p tcp -d 1.2.3.4 --dport 80 -j REJECT
            FilterExternal: -m comment --comment "ns/svc:p has no endpoints" -m addrtype --dst-type LOCAL -m tcp -p tcp --dport 30000 -j REJECT
        "#]],
        );
    }

    #[test]
    fn only_endpoints_that_leave() {
        check(
            &port(),
            &["10.1.0.1 terminating"],
            expect![[r#"
            NatServices: -m comment --comment "ns/svc:p cluster IP" -m tcp -p tcp -d 10.0.0.1 --dport 80 -j KUBE-SVC-G2XI3FWALOWGEAFL
            KUBE-SVC-G2XI3FWALOWGEAFL
              -m comment --comment "ns/svc:p cluster IP" -m tcp -p tcp -d 10.0.0.1 --dport 80 ! -s 10.244.0.0/16 -j KUBE-MARK-MASQ
              -m comment --comment "ns/svc:p -> 10.1.0.1:8080" -j KUBE-SEP-VRNWFNIKBI27RY4T
            KUBE-SEP-VRNWFNIKBI27RY4T
              -m comment --comment ns/svc:p -s 10.1.0.1 -j KUBE-MARK-MASQ
              -m comment --comment ns/svc:p -m tcp -p tcp -j DNAT --to-destination 10.1.0.1:8080
        "#]],
        );
    }

    #[test]
    fn everything_at_once() {
        let port = ServicePort {
            node_port: 30_000,
            external_ips: vec![[1, 2, 3, 4].into()],
            lb_ips: vec![[5, 6, 7, 8].into()],
            source_ranges: vec![Cidr::parse("192.168.0.0/16").unwrap()],
            affinity: Some(10_800),
            external_local: true,
            health_port: 31_000,
            ..port()
        };
        check(
            &port,
            &["10.1.0.1", "10.1.0.2 local"],
            expect![[r#"
            NatServices: -m comment --comment "ns/svc:p cluster IP" -m tcp -p tcp -d 10.0.0.1 --dport 80 -j KUBE-SVC-G2XI3FWALOWGEAFL
            NatServices: -m comment --comment "ns/svc:p external IP" -m tcp -p tcp -d 1.2.3.4 --dport 80 -j KUBE-EXT-G2XI3FWALOWGEAFL
            NatServices: -m comment --comment "ns/svc:p loadbalancer IP" -m tcp -p tcp -d 5.6.7.8 --dport 80 -j KUBE-FW-G2XI3FWALOWGEAFL
            FilterFirewall: -m comment --comment "ns/svc:p traffic not accepted by KUBE-FW-G2XI3FWALOWGEAFL" -m tcp -p tcp -d 5.6.7.8 --dport 80 -j DROP
            NatNodePorts: -m comment --comment ns/svc:p -m tcp -p tcp --dport 30000 -j KUBE-EXT-G2XI3FWALOWGEAFL
            FilterNodePorts: -m comment --comment "ns/svc:p health check node port" -m tcp -p tcp --dport 31000 -j ACCEPT
            KUBE-EXT-G2XI3FWALOWGEAFL
              -m comment --comment "pod traffic for ns/svc:p external destinations" -s 10.244.0.0/16 -j KUBE-SVC-G2XI3FWALOWGEAFL
              -m comment --comment "masquerade LOCAL traffic for ns/svc:p external destinations" -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ
              -m comment --comment "route LOCAL traffic for ns/svc:p external destinations" -m addrtype --src-type LOCAL -j KUBE-SVC-G2XI3FWALOWGEAFL
              -j KUBE-SVL-G2XI3FWALOWGEAFL
            KUBE-FW-G2XI3FWALOWGEAFL
              -m comment --comment "ns/svc:p loadbalancer IP" -s 192.168.0.0/16 -j KUBE-EXT-G2XI3FWALOWGEAFL
              -m comment --comment "ns/svc:p loadbalancer IP" -s 5.6.7.8 -j KUBE-EXT-G2XI3FWALOWGEAFL
              -m comment --comment "other traffic to ns/svc:p will be dropped by KUBE-PROXY-FIREWALL"
            KUBE-SVC-G2XI3FWALOWGEAFL
              -m comment --comment "ns/svc:p cluster IP" -m tcp -p tcp -d 10.0.0.1 --dport 80 ! -s 10.244.0.0/16 -j KUBE-MARK-MASQ
              -m comment --comment "ns/svc:p -> 10.1.0.1:8080" -m recent --name KUBE-SEP-VRNWFNIKBI27RY4T --rcheck --seconds 10800 --reap -j KUBE-SEP-VRNWFNIKBI27RY4T
              -m comment --comment "ns/svc:p -> 10.1.0.2:8080" -m recent --name KUBE-SEP-52BTULT3DYJMPUDA --rcheck --seconds 10800 --reap -j KUBE-SEP-52BTULT3DYJMPUDA
              -m comment --comment "ns/svc:p -> 10.1.0.1:8080" -m statistic --mode random --probability 0.5000000000 -j KUBE-SEP-VRNWFNIKBI27RY4T
              -m comment --comment "ns/svc:p -> 10.1.0.2:8080" -j KUBE-SEP-52BTULT3DYJMPUDA
            KUBE-SVL-G2XI3FWALOWGEAFL
              -m comment --comment "ns/svc:p -> 10.1.0.2:8080" -m recent --name KUBE-SEP-52BTULT3DYJMPUDA --rcheck --seconds 10800 --reap -j KUBE-SEP-52BTULT3DYJMPUDA
              -m comment --comment "ns/svc:p -> 10.1.0.2:8080" -j KUBE-SEP-52BTULT3DYJMPUDA
            KUBE-SEP-VRNWFNIKBI27RY4T
              -m comment --comment ns/svc:p -s 10.1.0.1 -j KUBE-MARK-MASQ
              -m comment --comment ns/svc:p -m recent --name KUBE-SEP-VRNWFNIKBI27RY4T --set -m tcp -p tcp -j DNAT --to-destination 10.1.0.1:8080
            KUBE-SEP-52BTULT3DYJMPUDA
              -m comment --comment ns/svc:p -s 10.1.0.2 -j KUBE-MARK-MASQ
              -m comment --comment ns/svc:p -m recent --name KUBE-SEP-52BTULT3DYJMPUDA --set -m tcp -p tcp -j DNAT --to-destination 10.1.0.2:8080
        "#]],
        );
    }

    #[test]
    fn local_without_local_endpoints() {
        let port = ServicePort { internal_local: true, external_local: true, node_port: 30_000, ..port() };
        check(
            &port,
            &["10.1.0.1"],
            expect![[r#"
            FilterServices: -m comment --comment "ns/svc:p has no local endpoints" -m tcp -p tcp -d 10.0.0.1 --dport 80 -j DROP
            NatNodePorts: -m comment --comment ns/svc:p -m tcp -p tcp --dport 30000 -j KUBE-EXT-G2XI3FWALOWGEAFL
            FilterExternal: -m comment --comment "ns/svc:p has no local endpoints" -m addrtype --dst-type LOCAL -m tcp -p tcp --dport 30000 -j DROP
            KUBE-EXT-G2XI3FWALOWGEAFL
              -m comment --comment "pod traffic for ns/svc:p external destinations" -s 10.244.0.0/16 -j KUBE-SVC-G2XI3FWALOWGEAFL
              -m comment --comment "masquerade LOCAL traffic for ns/svc:p external destinations" -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ
              -m comment --comment "route LOCAL traffic for ns/svc:p external destinations" -m addrtype --src-type LOCAL -j KUBE-SVC-G2XI3FWALOWGEAFL
            KUBE-SVC-G2XI3FWALOWGEAFL
              -m comment --comment "ns/svc:p -> 10.1.0.1:8080" -j KUBE-SEP-VRNWFNIKBI27RY4T
            KUBE-SEP-VRNWFNIKBI27RY4T
              -m comment --comment ns/svc:p -s 10.1.0.1 -j KUBE-MARK-MASQ
              -m comment --comment ns/svc:p -m tcp -p tcp -j DNAT --to-destination 10.1.0.1:8080
        "#]],
        );
    }

    #[test]
    fn hints() {
        let near = piece(&port(), &["10.1.0.1 zone=z1", "10.1.0.2 zone=z2"]);
        assert_eq!(near.own.len(), 2); // one service chain, one endpoint
        let unhinted = piece(&port(), &["10.1.0.1 zone=z1", "10.1.0.2"]);
        assert_eq!(unhinted.own.len(), 3);
    }

    #[test]
    fn names_are_upstreams() {
        let port = ServicePort { name: "default/kubernetes:https".into(), ..port() };
        assert_eq!(chain_name("SVC", &port, ""), "KUBE-SVC-NPX46M4PTMTKRN6Y");
    }

    #[test]
    fn only_what_differs_is_written() {
        let key = |name: &str| ("ns".to_string(), name.to_string());
        let s = settings();
        let pieces = BTreeMap::from([(key("svc"), piece(&port(), &["10.1.0.1"]))]);
        let (mut tables, first) =
            Tables::full(&s, pieces, &Found::read("*nat\n:KUBE-SVC-OLD - [0:0]\nCOMMIT\n"));
        assert!(first.text.contains("-X KUBE-SVC-OLD\n") && first.text.contains("-I PREROUTING"));
        let same = tables.update(&s, vec![(key("svc"), Some(piece(&port(), &["10.1.0.1"])))]);
        assert_eq!(same.text, "");
        let moved = tables.update(&s, vec![(key("svc"), Some(piece(&port(), &["10.1.0.2"])))]);
        expect![[r#"
            *nat
            :KUBE-SVC-G2XI3FWALOWGEAFL - [0:0]
            :KUBE-SEP-52BTULT3DYJMPUDA - [0:0]
            :KUBE-SEP-VRNWFNIKBI27RY4T - [0:0]
            -A KUBE-SVC-G2XI3FWALOWGEAFL -m comment --comment "ns/svc:p cluster IP" -m tcp -p tcp -d 10.0.0.1 --dport 80 ! -s 10.244.0.0/16 -j KUBE-MARK-MASQ
            -A KUBE-SVC-G2XI3FWALOWGEAFL -m comment --comment "ns/svc:p -> 10.1.0.2:8080" -j KUBE-SEP-52BTULT3DYJMPUDA
            -A KUBE-SEP-52BTULT3DYJMPUDA -m comment --comment ns/svc:p -s 10.1.0.2 -j KUBE-MARK-MASQ
            -A KUBE-SEP-52BTULT3DYJMPUDA -m comment --comment ns/svc:p -m tcp -p tcp -j DNAT --to-destination 10.1.0.2:8080
            -X KUBE-SEP-VRNWFNIKBI27RY4T
            COMMIT
        "#]].assert_eq(&moved.text);
        let gone = tables.update(&s, vec![(key("svc"), None)]);
        expect![[r#"
            *nat
            :KUBE-SERVICES - [0:0]
            :KUBE-SEP-52BTULT3DYJMPUDA - [0:0]
            :KUBE-SVC-G2XI3FWALOWGEAFL - [0:0]
            -A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
            -X KUBE-SEP-52BTULT3DYJMPUDA
            -X KUBE-SVC-G2XI3FWALOWGEAFL
            COMMIT
        "#]].assert_eq(&gone.text);
    }
}
