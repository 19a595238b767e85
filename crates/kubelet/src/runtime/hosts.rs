//! A pod's /etc/hosts, which the kubelet writes.

use crate::pod::PodExt;
use k8s_openapi::api::core::v1::Pod;

/// The names a pod has: its host name, and its domain when it has one.
pub fn names(pod: &Pod, node_name: &str, cluster_domain: &str) -> (String, String) {
    let spec = pod.spec();
    if let Some(own) = spec.hostname_override.as_deref().filter(|h| !h.is_empty()) {
        return (own.to_owned(), String::new());
    }
    if pod.host_network() {
        return (node_name.to_owned(), String::new());
    }
    let mut host = match spec.hostname.as_deref() {
        Some(h) if !h.is_empty() => h.to_owned(),
        // a host name has at most 63 characters and does not end in a dash or dot
        _ => pod.name().chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned(),
    };
    let domain = match spec.subdomain.as_deref() {
        Some(sub) if !sub.is_empty() => format!("{sub}.{}.svc.{cluster_domain}", pod.namespace()),
        _ => String::new(),
    };
    if spec.set_hostname_as_fqdn == Some(true) && !domain.is_empty() {
        host = format!("{host}.{domain}");
    }
    (host, domain)
}

/// The file's content; `node_file` is the node's own, for pods in its network.
pub fn file(pod: &Pod, ips: &[String], host: &str, domain: &str, node_file: &str) -> String {
    let mut out = String::new();
    if pod.host_network() {
        out.push_str("# Kubernetes-managed hosts file (host network).\n");
        out.push_str(node_file);
    } else {
        out.push_str("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        out.push_str("fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n");
        for ip in ips {
            if domain.is_empty() || host.ends_with(domain) {
                out.push_str(&format!("{ip}\t{host}\n"));
            } else {
                out.push_str(&format!("{ip}\t{host}.{domain}\t{host}\n"));
            }
        }
    }
    let aliases = pod.spec().host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
        for a in aliases {
            out.push_str(&format!("{}\t{}\n", a.ip, a.hostnames.as_deref().unwrap_or_default().join("\t")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_and_file() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "web-0", "namespace": "ns"}, "spec": {"subdomain": "web", "containers": [], "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}})).unwrap_or_else(|e| panic!("{e}"));
        let (host, domain) = names(&pod, "n", "cluster.local");
        assert_eq!((host.as_str(), domain.as_str()), ("web-0", "web.ns.svc.cluster.local"));
        let text = file(&pod, &["10.0.0.9".into()], &host, &domain, "");
        assert!(text.contains("10.0.0.9\tweb-0.web.ns.svc.cluster.local\tweb-0\n"), "{text}");
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
    }
}
