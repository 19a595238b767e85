//! UDP flows that the kernel remembers keep going where they went, even to an endpoint that is gone:
//! those are made to be forgotten.

use crate::model::{Endpoint, Family, Protocol, ServicePort};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Where each UDP service may lead to.
#[derive(Debug, Default)]
pub struct Frontends {
    addresses: BTreeMap<(IpAddr, u16), BTreeSet<(IpAddr, u16)>>,
    node_ports: BTreeMap<u16, BTreeSet<(IpAddr, u16)>>,
}

impl Frontends {
    /// Adds a service port. One without serving endpoints is left out: its flows have nowhere better to go.
    pub fn add(&mut self, port: &ServicePort, endpoints: &[Endpoint]) {
        let serving: BTreeSet<_> = endpoints.iter().filter(|e| e.serving).map(|e| (e.ip, e.port)).collect();
        if port.protocol != Protocol::Udp || serving.is_empty() {
            return;
        }
        for ip in port.external_ips.iter().chain(&port.lb_ips).chain([&port.cluster_ip]) {
            self.addresses.insert((*ip, port.port), serving.clone());
        }
        if port.node_port != 0 {
            self.node_ports.insert(port.node_port, serving);
        }
    }

    /// Whether there are no UDP services.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// The flows, of those that `conntrack -L -p udp` prints, that lead to no endpoint of their service.
    pub fn stale(&self, listing: &str) -> Vec<Flow> {
        let stale = |(flow, replier): &(Flow, (IpAddr, u16))| {
            let by_address = self.addresses.get(&(flow.to, flow.to_port));
            by_address.or_else(|| self.node_ports.get(&flow.to_port)).is_some_and(|ok| !ok.contains(replier))
        };
        listing.lines().filter_map(read).filter(stale).map(|(flow, _)| flow).collect()
    }
}

/// A flow, by what its first packet said.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    from: IpAddr,
    from_port: u16,
    to: IpAddr,
    to_port: u16,
}

impl Flow {
    /// Arguments that make `conntrack` forget it.
    pub fn delete(&self) -> Vec<String> {
        let family = if Family::of(self.to) == Family::V6 { "ipv6" } else { "ipv4" };
        let (from, to) = (self.from.to_string(), self.to.to_string());
        let (sport, dport) = (self.from_port.to_string(), self.to_port.to_string());
        ["-D", "-f", family, "-p", "udp", "-s", &from, "-d", &to, "--sport", &sport, "--dport", &dport]
            .map(Into::into)
            .to_vec()
    }
}

/// A line has the first packet's addresses and ports, then those of the reply.
fn read(line: &str) -> Option<(Flow, (IpAddr, u16))> {
    let values = |key: &str| {
        let found: Vec<&str> = line.split_whitespace().filter_map(|w| w.strip_prefix(key)).collect();
        match found.as_slice() {
            [first, reply, ..] => Some((first.to_string(), reply.to_string())),
            _ => None,
        }
    };
    let (src, dst, sport, dport) = (values("src=")?, values("dst=")?, values("sport=")?, values("dport=")?);
    let flow = Flow {
        from: src.0.parse().ok()?,
        from_port: sport.0.parse().ok()?,
        to: dst.0.parse().ok()?,
        to_port: dport.0.parse().ok()?,
    };
    Some((flow, (src.1.parse().ok()?, sport.1.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_to_endpoints_that_are_gone_are_stale() {
        let line = |to: &str, dport: u16, replier: &str| {
            format!(
                "udp      17 29 src=10.1.0.9 dst={to} sport=4000 dport={dport} [UNREPLIED] src={replier} dst=10.1.0.9 sport=53 dport=4000 mark=0 use=1\n"
            )
        };
        let ends = BTreeSet::from([("10.1.0.1".parse().unwrap(), 53)]);
        let mut frontends = Frontends::default();
        frontends.addresses.insert(("10.0.0.10".parse().unwrap(), 53), ends.clone());
        frontends.node_ports.insert(30_053, ends);
        for (listing, stale) in [
            (line("10.0.0.10", 53, "10.1.0.1"), 0),
            (line("10.0.0.10", 53, "10.1.0.2"), 1),
            (line("10.0.0.10", 53, "10.0.0.10"), 1), // it was never sent anywhere
            (line("10.0.0.11", 53, "10.1.0.2"), 0),  // not a service of ours
            (line("192.168.0.1", 30_053, "10.1.0.2"), 1),
            ("conntrack v1.4.7: 0 flow entries\nudp 17 src=x\n".into(), 0),
        ] {
            assert_eq!(frontends.stale(&listing).len(), stale, "{listing}");
        }
    }
}
