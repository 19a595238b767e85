//! What a pod's /etc/resolv.conf says.

use crate::config::Config;
use crate::pod::PodExt;
use cri::types::DnsConfig;
use k8s_openapi::api::core::v1::Pod;
use std::net::IpAddr;

/// Resolvers read no more name servers than this.
const MAX_SERVERS: usize = 3;
/// Upstream's bounds on search domains.
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_LENGTH: usize = 2048;

/// What could not be done as asked, for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Cluster names asked for, and no name server of the cluster known.
    MissingClusterDns(String),
    /// Some were left out.
    Forming(String),
}

/// Reads a resolver file.
pub fn parse(text: &str) -> DnsConfig {
    let mut c = DnsConfig::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or("");
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => c.servers.extend(words.next()),
            Some("search" | "domain") => {
                c.searches =
                    words.map(|w| if w == "." { w } else { w.trim_end_matches('.').to_owned() }).collect();
            }
            Some("options") => c.options = words.collect(),
            _ => {}
        }
    }
    c
}

/// The resolver configuration of a pod, given the node's own.
pub fn for_pod(pod: &Pod, config: &Config, node: &DnsConfig) -> (DnsConfig, Vec<Note>) {
    let spec = pod.spec();
    let mut notes = Vec::new();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "None" | "Default" => false,
        "ClusterFirstWithHostNet" => true,
        _ => !pod.host_network(),
    };
    let mut c = match (policy, cluster) {
        ("None", _) => DnsConfig::default(),
        (_, true) if !config.cluster_dns.is_empty() => of_cluster(pod, config, node),
        (_, true) => {
            notes.push(Note::MissingClusterDns(format!(
                "pod: \"{}/{}\". kubelet does not have ClusterDNS IP configured and cannot create Pod using \"{policy}\" policy. Falling back to \"Default\" policy.",
                pod.namespace(),
                pod.name()
            )));
            node.clone()
        }
        _ => node.clone(),
    };
    if policy != "None" && config.resolv_conf.is_empty() && !cluster {
        c = DnsConfig { servers: vec!["127.0.0.1".into()], searches: vec![".".into()], options: Vec::new() };
    }
    if let Some(own) = &spec.dns_config {
        extend(&mut c.servers, own.nameservers.iter().flatten());
        extend(&mut c.searches, own.searches.iter().flatten());
        for o in own.options.iter().flatten() {
            let Some(name) = &o.name else { continue };
            c.options.retain(|have| have.split(':').next() != Some(name.as_str()));
            c.options.push(match o.value.as_deref() {
                Some(v) if !v.is_empty() => format!("{name}:{v}"),
                _ => name.clone(),
            });
        }
    }
    limit(&mut c, &mut notes);
    (c, notes)
}

fn of_cluster(pod: &Pod, config: &Config, node: &DnsConfig) -> DnsConfig {
    let mut searches = Vec::new();
    if !config.cluster_domain.is_empty() {
        let d = &config.cluster_domain;
        searches.extend([format!("{}.svc.{d}", pod.namespace()), format!("svc.{d}"), d.clone()]);
    }
    extend(&mut searches, node.searches.iter());
    DnsConfig {
        servers: config.cluster_dns.iter().map(IpAddr::to_string).collect(),
        searches,
        options: vec!["ndots:5".into()],
    }
}

fn extend<'a>(list: &mut Vec<String>, more: impl Iterator<Item = &'a String>) {
    for m in more {
        if !list.contains(m) {
            list.push(m.clone());
        }
    }
}

fn limit(c: &mut DnsConfig, notes: &mut Vec<Note>) {
    if c.servers.len() > MAX_SERVERS {
        c.servers.truncate(MAX_SERVERS);
        notes.push(Note::Forming(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            c.servers.join(" ")
        )));
    }
    let before = c.searches.len();
    c.searches.truncate(MAX_SEARCHES);
    while c.searches.join(" ").len() > MAX_SEARCH_LENGTH {
        c.searches.pop();
    }
    if c.searches.len() < before {
        notes.push(Note::Forming(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            c.searches.join(" ")
        )));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, KubeletConfiguration};
    use serde_json::json;

    #[test]
    fn policies() {
        let flags = Flags {
            cluster_dns: Some("10.96.0.10".into()),
            cluster_domain: Some("cluster.local".into()),
            ..test_flags()
        };
        let config = Config::resolve(&flags, KubeletConfiguration::default(), "".as_ref())
            .unwrap_or_else(|e| panic!("{e}"));
        let node = parse("# x\nnameserver 1.1.1.1\nsearch corp.\noptions edns0\n");
        for (spec, want) in [
            (json!({}), "10.96.0.10|ns.svc.cluster.local svc.cluster.local cluster.local corp|ndots:5"),
            (json!({"hostNetwork": true}), "1.1.1.1|corp|edns0"),
            (
                json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
                "10.96.0.10|ns.svc.cluster.local svc.cluster.local cluster.local corp|ndots:5",
            ),
            (json!({"dnsPolicy": "Default"}), "1.1.1.1|corp|edns0"),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"], "searches": ["a.b"], "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}]}}),
                "9.9.9.9|a.b|ndots:2 rotate",
            ),
            (
                json!({"dnsPolicy": "Default", "dnsConfig": {"nameservers": ["2.2.2.2", "1.1.1.1"], "options": [{"name": "edns0"}]}}),
                "1.1.1.1 2.2.2.2|corp|edns0",
            ),
        ] {
            let mut pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}}))
                .unwrap_or_else(|e| panic!("{e}"));
            let mut spec = spec;
            spec["containers"] = json!([]);
            pod.spec = serde_json::from_value(spec).ok();
            let (c, _) = for_pod(&pod, &config, &node);
            assert_eq!(
                format!("{}|{}|{}", c.servers.join(" "), c.searches.join(" "), c.options.join(" ")),
                want
            );
        }
    }

    fn test_flags() -> Flags {
        <Flags as clap::Parser>::parse_from(["kubelet"])
    }
}
