//! Warnings about pods and templates that are valid and hardly meant so.

use crate::check::{amount, list, text};
use crate::core::pod_spec::containers;
use api::field::FieldPath;
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, EphemeralContainer, NodeSelectorTerm, PersistentVolumeClaimSpec, Pod,
    PodSpec, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::net::IpAddr;

/// Labels of nodes that have another name now.
const LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];
/// Annotations that mean nothing any more.
const ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Of a label of nodes that has another name now, which.
pub fn deprecated_node_label(key: &str) -> Option<&'static str> {
    LABELS.iter().find(|(name, _)| *name == key).map(|(_, why)| *why)
}

/// Warnings about a new pod.
pub fn of_pod(p: &Pod) -> Vec<String> {
    let mut out = Vec::new();
    let faults = api::names::dns1123_label(text(&p.metadata.name));
    if !faults.is_empty() {
        out.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]",
            faults.join(" ")
        ));
    }
    if let Some(spec) = &p.spec {
        of_spec(spec, &p.metadata, FieldPath::root(""), &mut out);
    }
    out
}

/// Warnings about a pod template.
pub fn of_template(t: &PodTemplateSpec, at: FieldPath<'_>) -> Vec<String> {
    let mut out = Vec::new();
    let none = ObjectMeta::default();
    if let Some(spec) = &t.spec {
        let meta = t.metadata.as_ref().unwrap_or(&none);
        of_spec(spec, meta, at, &mut out);
        for c in spec.containers.iter().chain(list(&spec.init_containers)) {
            let key = format!("{APP_ARMOR}{}", c.name);
            let has = |key: &String| meta.annotations.as_ref().is_some_and(|a| a.contains_key(key));
            let context = c.security_context.as_ref();
            if has(&key) && context.is_none_or(|s| s.app_armor_profile.is_none()) {
                let metadata = at.child("metadata");
                let annotations = metadata.child("annotations");
                out.push(format!(
                    "{}: deprecated since v1.30; use the \"appArmorProfile\" field instead",
                    annotations.key(&key)
                ));
            }
        }
    }
    out
}

fn of_spec(spec: &PodSpec, meta: &ObjectMeta, root: FieldPath<'_>, out: &mut Vec<String>) {
    let at = root.child("spec");
    scheduling(spec, at, out);
    let metadata = root.child("metadata");
    let annotations_at = metadata.child("annotations");
    let annotated = |key: &str| meta.annotations.as_ref().is_some_and(|a| a.contains_key(key));
    for (key, why) in ANNOTATIONS.iter().filter(|(key, _)| annotated(key)) {
        out.push(format!("{}: {why}", annotations_at.key(key)));
    }
    volumes(list(&spec.volumes), at.child("volumes"), out);
    let aliases = list(&spec.host_aliases);
    let path = at.child("hostAliases");
    for (i, alias) in aliases.iter().enumerate() {
        let here = path.index(i);
        if aliases[..i].iter().any(|a| a.ip == alias.ip) {
            out.push(format!("{}: duplicate ip {:?}", here.child("ip"), alias.ip));
        }
        address(&alias.ip, here.child("ip"), out);
    }
    let secrets = list(&spec.image_pull_secrets);
    let path = at.child("imagePullSecrets");
    for (i, secret) in secrets.iter().enumerate() {
        let here = path.index(i);
        if secrets[..i].iter().any(|s| s.name == secret.name) {
            out.push(format!("{}: duplicate name {:?}", here.child("name"), secret.name));
        }
        if secret.name.is_empty() {
            out.push(format!("{}: invalid empty name \"\"", here.child("name")));
        }
    }
    let overhead = at.child("overhead");
    fractions(spec.overhead.as_ref(), overhead, out);
    let functionless = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
    if spec.security_context.as_ref().is_none_or(|s| s.seccomp_profile.is_none()) && annotated(SECCOMP_POD) {
        out.push(format!("{}: {functionless}", annotations_at.key(SECCOMP_POD)));
    }
    containers::each(spec, at, |c, at| {
        if meta.annotations.is_some() && c.security.is_none_or(|s| s.seccomp_profile.is_none()) {
            let key = format!("{SECCOMP_CONTAINER}{}", c.name);
            if annotated(&key) {
                out.push(format!("{}: {functionless}", annotations_at.key(&key)));
            }
        }
        let resources = at.child("resources");
        let (limits, requests) = (resources.child("limits"), resources.child("requests"));
        fractions(c.resources.and_then(|r| r.limits.as_ref()), limits, out);
        fractions(c.resources.and_then(|r| r.requests.as_ref()), requests, out);
        hidden(c.env, at.child("env"), out);
    });
    ports(spec, at, out);
    if spec.termination_grace_period_seconds.is_some_and(|s| s < 0) {
        let at = at.child("terminationGracePeriodSeconds");
        out.push(format!("{at}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    if let Some(dns) = &spec.dns_config {
        let config = at.child("dnsConfig");
        let servers = config.child("nameservers");
        for (i, server) in list(&dns.nameservers).iter().enumerate() {
            address(server, servers.index(i), out);
        }
    }
}

fn scheduling(spec: &PodSpec, at: FieldPath<'_>, out: &mut Vec<String>) {
    let selector = at.child("nodeSelector");
    for key in spec.node_selector.iter().flatten().map(|(key, _)| key) {
        if let Some(why) = deprecated_node_label(key) {
            out.push(format!("{}: {why}", selector.key(key)));
        }
    }
    let affinity_at = at.child("affinity");
    let matches_none = "a null labelSelector results in matching no pod";
    if let Some(affinity) = &spec.affinity {
        let (must, may) = (
            "requiredDuringSchedulingIgnoredDuringExecution",
            "preferredDuringSchedulingIgnoredDuringExecution",
        );
        if let Some(node) = &affinity.node_affinity {
            let at = affinity_at.child("nodeAffinity");
            let required = at.child(must);
            let terms_at = required.child("nodeSelectorTerms");
            let selector = node.required_during_scheduling_ignored_during_execution.as_ref();
            for (i, term) in selector.map_or(&[][..], |s| &s.node_selector_terms).iter().enumerate() {
                node_term(term, false, terms_at.index(i), out);
            }
            let preferred = at.child(may);
            let terms = list(&node.preferred_during_scheduling_ignored_during_execution);
            for (i, term) in terms.iter().enumerate() {
                let here = preferred.index(i);
                node_term(&term.preference, true, here.child("preference"), out);
            }
        }
        let (near, far) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
        for (name, required, preferred) in [
            (
                "podAffinity",
                near.map(|a| list(&a.required_during_scheduling_ignored_during_execution)),
                near.map(|a| list(&a.preferred_during_scheduling_ignored_during_execution)),
            ),
            (
                "podAntiAffinity",
                far.map(|a| list(&a.required_during_scheduling_ignored_during_execution)),
                far.map(|a| list(&a.preferred_during_scheduling_ignored_during_execution)),
            ),
        ] {
            let at = affinity_at.child(name);
            let path = at.child(must);
            for (i, t) in required.unwrap_or_default().iter().enumerate() {
                if t.label_selector.is_none() {
                    let here = path.index(i);
                    out.push(format!("{}: {matches_none}", here.child("labelSelector")));
                }
            }
            let path = at.child(may);
            for (i, t) in preferred.unwrap_or_default().iter().enumerate() {
                if t.pod_affinity_term.label_selector.is_none() {
                    let here = path.index(i);
                    let term = here.child("podAffinityTerm");
                    out.push(format!("{}: {matches_none}", term.child("labelSelector")));
                }
            }
        }
    }
    let path = at.child("topologySpreadConstraints");
    for (i, c) in list(&spec.topology_spread_constraints).iter().enumerate() {
        let here = path.index(i);
        if let Some(why) = deprecated_node_label(&c.topology_key) {
            out.push(format!("{}: {} is {why}", here.child("topologyKey"), c.topology_key));
        }
        if c.label_selector.is_none() {
            out.push(format!("{}: {matches_none}", here.child("labelSelector")));
        }
    }
}

/// Warnings about a term that selects nodes; `weighted` if it is no demand.
pub fn node_term(t: &NodeSelectorTerm, weighted: bool, at: FieldPath<'_>, out: &mut Vec<String>) {
    let path = at.child("matchExpressions");
    for (i, e) in list(&t.match_expressions).iter().enumerate() {
        let here = path.index(i);
        if let Some(why) = deprecated_node_label(&e.key) {
            out.push(format!("{}: {} is {why}", here.child("key"), e.key));
        }
        let values = here.child("values");
        for (i, value) in list(&e.values).iter().enumerate().filter(|_| weighted) {
            if let Some(fault) = api::names::label_value(value).first() {
                out.push(format!("{}: {value} is invalid, {fault}", values.index(i)));
            }
        }
    }
}

fn volumes(volumes: &[Volume], at: FieldPath<'_>, out: &mut Vec<String>) {
    for (i, v) in volumes.iter().enumerate() {
        let here = at.index(i);
        for (name, set, why) in [
            (
                "photonPersistentDisk",
                v.photon_persistent_disk.is_some(),
                "deprecated in v1.11, non-functional in v1.16+",
            ),
            ("gitRepo", v.git_repo.is_some(), "deprecated in v1.11, and disabled by default in v1.33+"),
            ("scaleIO", v.scale_io.is_some(), "deprecated in v1.16, non-functional in v1.22+"),
            ("flocker", v.flocker.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
            ("storageOS", v.storageos.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
            ("quobyte", v.quobyte.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
            ("glusterfs", v.glusterfs.is_some(), "deprecated in v1.25, non-functional in v1.26+"),
            ("cephfs", v.cephfs.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
            ("rbd", v.rbd.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
        ] {
            if set {
                out.push(format!("{}: {why}", here.child(name)));
            }
        }
        if let Some(template) = v.ephemeral.as_ref().and_then(|e| e.volume_claim_template.as_ref()) {
            let ephemeral = here.child("ephemeral");
            let claim = ephemeral.child("volumeClaimTemplate");
            of_claim(&template.spec, claim.child("spec"), out);
        }
        overlaps(v, out);
    }
}

/// Warnings about a claim's amounts.
pub fn of_claim(c: &PersistentVolumeClaimSpec, at: FieldPath<'_>, out: &mut Vec<String>) {
    let resources = at.child("resources");
    let r = c.resources.as_ref();
    for (name, amounts) in
        [("requests", r.and_then(|r| r.requests.as_ref())), ("limits", r.and_then(|r| r.limits.as_ref()))]
    {
        let at = resources.child(name);
        if let Some(value) = amounts.and_then(|a| a.get("storage")).map(amount)
            && value.milli_value() % 1000 != 0
        {
            out.push(fraction(at.key("storage"), value));
        }
    }
}

fn fraction(at: FieldPath<'_>, value: api::quantity::Quantity) -> String {
    format!("{at}: fractional byte value \"{value}\" is invalid, must be an integer")
}

fn fractions(
    amounts: Option<&crate::core::pod_spec::resources::Amounts>,
    at: FieldPath<'_>,
    out: &mut Vec<String>,
) {
    for name in ["memory", "ephemeral-storage"] {
        // Whole amounts are written without `m`.
        let text = amounts.and_then(|a| a.get(name)).filter(|q| q.0.ends_with('m'));
        if let Some(value) = text.map(amount).filter(|v| v.milli_value() % 1000 != 0) {
            out.push(fraction(at.key(name), value));
        }
    }
}

/// Paths of one volume's files, of which one is another or lies in it.
fn overlaps(v: &Volume, out: &mut Vec<String>) {
    let mut say = |what: String, paths: Vec<(&str, String)>| {
        let shown = |(path, source): &(&str, String)| match source.as_str() {
            "" => format!("{path:?}"),
            source => format!("{path:?} ({source})"),
        };
        let within = |a: &str, b: &str| a == b || a.strip_prefix(b).is_some_and(|r| r.starts_with('/'));
        let trimmed = |p: &(&str, String)| p.0.trim_end_matches('/').len();
        for (i, one) in paths.iter().enumerate() {
            let path = &one.0[..trimmed(one)];
            for other in &paths[..i] {
                let before = &other.0[..trimmed(other)];
                if !path.is_empty() && !before.is_empty() && (within(path, before) || within(before, path)) {
                    let (one, other) = (shown(&(path, one.1.clone())), shown(&(before, other.1.clone())));
                    out.push(format!("volume {:?} ({what}): overlapping paths: {one} with {other}", v.name));
                }
            }
        }
    };
    let none = String::new;
    if let Some(c) = &v.config_map {
        let items = list(&c.items).iter().map(|i| (i.path.as_str(), none())).collect();
        say(format!("ConfigMap {:?}", c.name), items);
    }
    if let Some(s) = &v.secret {
        let items = list(&s.items).iter().map(|i| (i.path.as_str(), none())).collect();
        say(format!("Secret {:?}", text(&s.secret_name)), items);
    }
    if let Some(d) = &v.downward_api {
        say("DownwardAPI".into(), list(&d.items).iter().map(|i| (i.path.as_str(), none())).collect());
    }
    let Some(projected) = &v.projected else { return };
    let mut all: Vec<(&str, String)> = Vec::new();
    let mut empty = 0;
    for s in list(&projected.sources) {
        empty += usize::from(*s == Default::default());
        if let Some(c) = &s.config_map {
            all.extend(list(&c.items).iter().map(|i| (i.path.as_str(), format!("ConfigMap {:?}", c.name))));
        }
        if let Some(c) = &s.secret {
            all.extend(list(&c.items).iter().map(|i| (i.path.as_str(), format!("Secret {:?}", c.name))));
        }
        if let Some(d) = &s.downward_api {
            all.extend(list(&d.items).iter().map(|i| (i.path.as_str(), "DownwardAPI".into())));
        }
        if let Some(t) = &s.service_account_token {
            all.push((&t.path, "ServiceAccountToken".into()));
        }
        if let Some(b) = &s.cluster_trust_bundle {
            let name = b.name.as_ref().or(b.signer_name.as_ref()).cloned().unwrap_or_default();
            all.push((&b.path, format!("ClusterTrustBundle {name:?}")));
        }
        if let Some(c) = &s.pod_certificate {
            let files = [
                (&c.certificate_chain_path, "PodCertificate chain"),
                (&c.key_path, "PodCertificate key"),
                (&c.credential_bundle_path, "PodCertificate credential bundle"),
            ];
            all.extend(files.into_iter().map(|(p, what)| (text(p), what.to_string())));
        }
    }
    say("Projected".into(), all);
    for _ in 0..empty {
        out.push(format!("volume {:?} (Projected) has no sources provided", v.name));
    }
}

fn hidden(env: &[EnvVar], at: FieldPath<'_>, out: &mut Vec<String>) {
    for (i, var) in env.iter().enumerate() {
        if !env[..i].iter().any(|before| before.name == var.name) {
            continue;
        }
        let reference = format!("$({})", var.name);
        let value = text(&var.value);
        if var.value_from.is_some() || value == reference || !value.contains(&reference) {
            out.push(format!(
                "{}: hides previous definition of {:?}, which may be dropped when using apply",
                at.index(i),
                var.name
            ));
        }
    }
}

fn ports(spec: &PodSpec, at: FieldPath<'_>, out: &mut Vec<String>) {
    struct Seen<'a> {
        container: &'static str,
        index: usize,
        port: usize,
        it: &'a ContainerPort,
    }
    let of = |c: &'static str, n: usize, ports: &'static str| (c, n, ports);
    let mut seen: Vec<Seen<'_>> = Vec::new();
    let inits = list(&spec.init_containers).iter().map(|c: &Container| list(&c.ports));
    let regular = spec.containers.iter().map(|c| list(&c.ports));
    let ephemeral = list(&spec.ephemeral_containers).iter().map(|c: &EphemeralContainer| list(&c.ports));
    let all = inits
        .enumerate()
        .map(|(i, p)| (of("initContainers", i, "ports"), p))
        .chain(regular.enumerate().map(|(i, p)| (of("containers", i, "ports"), p)))
        .chain(ephemeral.enumerate().map(|(i, p)| (of("ephemeralContainers", i, "ports"), p)));
    let path = |container: &str, index: usize, port: usize| {
        let list = at.child(container);
        let one = list.index(index);
        let ports = one.child("ports");
        ports.index(port).to_string()
    };
    let mut names = Vec::new();
    for ((container, index, _), ports) in all {
        for (n, p) in ports.iter().enumerate() {
            let here = || path(container, index, n);
            let (host, ip) = (p.host_port.unwrap_or(0), text(&p.host_ip));
            if !ip.is_empty() && host == 0 {
                out.push(format!(
                    "{}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{ip}}}",
                    here(),
                    text(&p.name),
                    p.container_port,
                    text(&p.protocol)
                ));
            }
            for s in &seen {
                if s.it.container_port != p.container_port || text(&s.it.protocol) != text(&p.protocol) {
                    continue;
                }
                let (other_host, other_ip) = (s.it.host_port.unwrap_or(0), text(&s.it.host_ip));
                let what = if (ip, host) == (other_ip, other_host) {
                    "duplicate"
                } else if host == 0 || other_host == 0 {
                    "overlapping"
                } else if host == other_host && ip.is_empty() != other_ip.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                let other = path(s.container, s.index, s.port);
                out.push(format!("{}: {what} port definition with {other}", here()));
            }
            let named = |s: &&Seen<'_>| !text(&p.name).is_empty() && s.it.name == p.name;
            if let Some(s) = seen.iter().find(named) {
                let (name, other) = (text(&p.name), path(s.container, s.index, s.port));
                names.push(format!(
                    "{}: duplicate port name {name:?} with {other}, services and probes that select ports by name will use {other}",
                    here()
                ));
            }
            seen.push(Seen { container, index, port: n, it: p });
        }
    }
    out.extend(names);
}

/// Warns of an address in a form that is not the usual.
pub fn address(value: &str, at: FieldPath<'_>, out: &mut Vec<String>) {
    match value.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
            let usual = ip.to_ipv4_mapped().map(|v4| v4.to_string()).unwrap_or_default();
            out.push(format!("{at}: non-standard IP address {value:?} is invalid: use {usual:?}"));
        }
        Ok(IpAddr::V6(ip)) if ip.to_string() != value => {
            let usual = ip.to_string();
            out.push(format!(
                "{at}: IPv6 address {value:?} should be in RFC 5952 canonical format ({usual:?})"
            ));
        }
        _ => {}
    }
}
