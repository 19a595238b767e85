//! A pod as the scheduler sees it: what it asks for, read once.

use api::quantity::Quantity;
use api::selector::LabelSelector;
use client::ObjectExt;
use k8s_openapi::api::core::v1::{
    Affinity, Container, NodeSelector, Pod, PodAffinityTerm, PodSpec, ResourceRequirements,
    TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a container that asks for nothing is taken to use when nodes are compared.
const DEFAULT_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 << 20;

/// Amounts of resources: processor time in thousandths, the rest in units.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// `cpu`.
    pub cpu: i64,
    /// `memory`.
    pub memory: i64,
    /// `ephemeral-storage`.
    pub storage: i64,
    /// Everything else, by name.
    pub other: BTreeMap<String, i64>,
}

impl Resources {
    /// Reads amounts.
    pub fn read(list: Option<&BTreeMap<String, Text>>) -> Self {
        let mut out = Resources::default();
        for (name, text) in list.into_iter().flatten() {
            let quantity = Quantity::lenient(text);
            match name.as_str() {
                "cpu" => out.cpu = quantity.milli_value(),
                "memory" => out.memory = quantity.value(),
                "ephemeral-storage" => out.storage = quantity.value(),
                _ => {
                    out.other.insert(name.clone(), quantity.value());
                }
            }
        }
        out
    }

    fn combine(&mut self, with: &Resources, f: fn(i64, i64) -> i64) {
        self.cpu = f(self.cpu, with.cpu);
        self.memory = f(self.memory, with.memory);
        self.storage = f(self.storage, with.storage);
        for (name, amount) in &with.other {
            let mine = self.other.entry(name.clone()).or_default();
            *mine = f(*mine, *amount);
        }
    }

    /// Adds others.
    pub fn add(&mut self, with: &Resources) {
        self.combine(with, i64::saturating_add);
    }

    /// Takes others away.
    pub fn subtract(&mut self, with: &Resources) {
        self.combine(with, i64::saturating_sub);
    }

    fn at_least(&mut self, with: &Resources) {
        self.combine(with, i64::max);
    }
}

/// A term of pod affinity or anti-affinity.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    selector: LabelSelector,
    namespaces: BTreeSet<String>,
    namespace_selector: Option<LabelSelector>,
    /// The node label that says which nodes belong together.
    pub topology_key: String,
    /// What it counts, if it is only preferred.
    pub weight: i64,
}

impl Term {
    fn read(term: &PodAffinityTerm, pod: &Pod, weight: i32) -> Term {
        let mut selector = selector(term.label_selector.as_ref());
        for (keys, negate) in [(&term.match_label_keys, false), (&term.mismatch_label_keys, true)] {
            add_label_keys(&mut selector, keys.iter().flatten(), pod, negate);
        }
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(pod.namespace().into());
        }
        Term {
            selector,
            namespaces,
            namespace_selector: term.namespace_selector.as_ref().map(|s| self::selector(Some(s))),
            topology_key: term.topology_key.clone(),
            weight: weight.into(),
        }
    }

    /// Whether a pod is one that the term speaks of; `namespace` are the labels of its namespace.
    pub fn matches(&self, pod: &Pod, namespace: Option<&BTreeMap<String, String>>) -> bool {
        let of_namespace = || self.namespace_selector.as_ref().is_some_and(|s| s.matches_labels(namespace));
        (self.namespaces.contains(pod.namespace()) || of_namespace())
            && self.selector.matches_labels(pod.metadata.labels.as_ref())
    }
}

/// A selector that is absent matches nothing, and so does one that can't be read.
fn selector(of: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>) -> LabelSelector {
    use api::selector::{Operator, Requirement};
    let nothing = || LabelSelector {
        requirements: vec![Requirement { key: String::new(), operator: Operator::In(Vec::new()) }],
    };
    of.map_or_else(nothing, |s| LabelSelector::from_object(s).unwrap_or_else(|_| nothing()))
}

fn add_label_keys<'a>(
    to: &mut LabelSelector,
    keys: impl Iterator<Item = &'a String>,
    pod: &Pod,
    negate: bool,
) {
    use api::selector::{Operator, Requirement};
    for key in keys {
        if let Some(value) = pod.label(key) {
            let values = vec![value.to_string()];
            let operator = if negate { Operator::NotIn(values) } else { Operator::In(values) };
            to.requirements.push(Requirement { key: key.clone(), operator });
        }
    }
}

/// How evenly pods are to be spread.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// How much more than the least a domain may have.
    pub max_skew: i64,
    /// The node label whose values are the domains.
    pub topology_key: String,
    /// Fewer domains than this count as if one were empty.
    pub min_domains: i64,
    /// Which pods are counted.
    pub selector: LabelSelector,
    /// Whether only nodes that the pod's node affinity allows are counted.
    pub honor_affinity: bool,
    /// Whether only nodes whose taints the pod tolerates are counted.
    pub honor_taints: bool,
}

impl Spread {
    fn read(c: &TopologySpreadConstraint, pod: &Pod) -> Spread {
        let mut selector = selector(c.label_selector.as_ref());
        add_label_keys(&mut selector, c.match_label_keys.iter().flatten(), pod, false);
        Spread {
            max_skew: c.max_skew.into(),
            topology_key: c.topology_key.clone(),
            min_domains: c.min_domains.map_or(1, i64::from),
            selector,
            honor_affinity: c.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: c.node_taints_policy.as_deref() == Some("Honor"),
        }
    }
}

/// A port of the host that a pod takes: address, protocol, number.
pub type HostPort = (String, String, i32);

/// What a pod asks for.
#[derive(Debug)]
pub struct PodInfo {
    /// The pod.
    pub pod: Arc<Pod>,
    /// The sum of what its containers ask for.
    pub requests: Resources,
    /// Processor time and memory, with something assumed for containers that ask for none.
    pub assumed: (i64, i64),
    /// Ports of the host.
    pub ports: Vec<HostPort>,
    /// Terms of required affinity.
    pub affinity: Vec<Term>,
    /// Terms of required anti-affinity.
    pub anti_affinity: Vec<Term>,
    /// Terms of preferred affinity, and of anti-affinity with negative weights.
    pub preferred: Vec<Term>,
    /// Constraints that must be kept.
    pub spread: Vec<Spread>,
    /// Constraints that should be kept.
    pub soft_spread: Vec<Spread>,
    /// `spec.priority`.
    pub priority: i32,
}

impl PodInfo {
    /// Reads a pod.
    pub fn new(pod: Arc<Pod>) -> PodInfo {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let affinity = spec.affinity.as_ref();
        let required = |terms: Option<&Vec<PodAffinityTerm>>| -> Vec<Term> {
            terms.into_iter().flatten().map(|t| Term::read(t, &pod, 0)).collect()
        };
        let together = affinity.and_then(|a| a.pod_affinity.as_ref());
        let apart = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
        let attract = together
            .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref())
            .into_iter()
            .flatten();
        let repel = apart
            .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref())
            .into_iter()
            .flatten();
        let preferred = attract
            .map(|t| Term::read(&t.pod_affinity_term, &pod, t.weight))
            .chain(repel.map(|t| Term::read(&t.pod_affinity_term, &pod, -t.weight)))
            .collect();
        let spreads = |when: &str| -> Vec<Spread> {
            let all = spec.topology_spread_constraints.iter().flatten();
            all.filter(|c| c.when_unsatisfiable == when).map(|c| Spread::read(c, &pod)).collect()
        };
        PodInfo {
            requests: requests(spec, |c| container_requests(&pod, c)),
            assumed: assumed(&pod, spec),
            ports: host_ports(spec),
            affinity: required(
                together.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
            ),
            anti_affinity: required(
                apart.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
            ),
            preferred,
            spread: spreads("DoNotSchedule"),
            soft_spread: spreads("ScheduleAnyway"),
            priority: spec.priority.unwrap_or(0),
            pod: pod.clone(),
        }
    }

    /// The pod's specification.
    pub fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    /// What it demands of nodes.
    pub fn node_affinity(&self) -> Option<&Affinity> {
        self.spec()?.affinity.as_ref()
    }

    /// The part of node affinity that must be met.
    pub fn required_nodes(&self) -> Option<&NodeSelector> {
        self.node_affinity()?
            .node_affinity
            .as_ref()?
            .required_during_scheduling_ignored_during_execution
            .as_ref()
    }

    /// Whether its place depends on other pods, or theirs on it.
    pub fn has_affinity(&self) -> bool {
        !self.affinity.is_empty() || !self.anti_affinity.is_empty() || !self.preferred.is_empty()
    }
}

/// Containers together, or the largest init container with those that stay beside it: whichever is more;
/// then what the pod costs as such.
fn requests(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut sum = Resources::default();
    for c in &spec.containers {
        sum.add(&of(c));
    }
    let (mut stays, mut most) = (Resources::default(), Resources::default());
    for c in spec.init_containers.iter().flatten() {
        let mut now = of(c);
        if c.restart_policy.as_deref() == Some("Always") {
            sum.add(&now);
            stays.add(&now);
            now = stays.clone();
        } else {
            now.add(&stays);
        }
        most.at_least(&now);
    }
    sum.at_least(&most);
    if let Some(ResourceRequirements { requests: Some(of_pod), .. }) = &spec.resources {
        let of_pod_amounts = Resources::read(Some(of_pod));
        for name in of_pod.keys() {
            match name.as_str() {
                "cpu" => sum.cpu = of_pod_amounts.cpu,
                "memory" => sum.memory = of_pod_amounts.memory,
                name if name.starts_with("hugepages-") => {
                    sum.other.insert(name.into(), of_pod_amounts.other.get(name).copied().unwrap_or(0));
                }
                _ => {}
            }
        }
    }
    sum.add(&Resources::read(spec.overhead.as_ref()));
    sum
}

/// What a container asks for. One that is resized in place counts with the most of what it asks for, what its kubelet has allocated and
/// what it has; without what it asks for if the node can never give it (upstream: PodRequests with UseStatusResources).
fn container_requests(pod: &Pod, c: &Container) -> Resources {
    let asked = Resources::read(c.resources.as_ref().and_then(|r| r.requests.as_ref()));
    let assigned = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).is_some_and(|n| !n.is_empty());
    let Some(status) = pod.status.as_ref().filter(|_| assigned) else { return asked };
    let mut statuses = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let Some(found) = statuses.find(|s| s.name == c.name) else { return asked };
    let given =
        [found.allocated_resources.as_ref(), found.resources.as_ref().and_then(|r| r.requests.as_ref())];
    let infeasible = status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == "PodResizePending" && c.reason.as_deref() == Some("Infeasible"));
    if given.iter().all(Option::is_none) {
        return asked;
    }
    let mut most = if infeasible { Resources::default() } else { asked };
    for list in given.into_iter().flatten() {
        most.at_least(&Resources::read(Some(list)));
    }
    most
}

fn assumed(pod: &Pod, spec: &PodSpec) -> (i64, i64) {
    let sum = requests(spec, |c| {
        let given = c.resources.as_ref().and_then(|r| r.requests.as_ref());
        let mut amounts = container_requests(pod, c);
        let has = |name| given.is_some_and(|g| g.contains_key(name));
        if !has("cpu") {
            amounts.cpu = DEFAULT_CPU;
        }
        if !has("memory") {
            amounts.memory = DEFAULT_MEMORY;
        }
        amounts
    });
    (sum.cpu, sum.memory)
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let taken = ports.filter(|p| p.host_port.is_some_and(|n| n > 0));
    taken
        .map(|p| {
            let ip = p.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into());
            (ip, p.protocol.clone().unwrap_or_else(|| "TCP".into()), p.host_port.unwrap_or(0))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_that_is_resized_counts_with_the_most() {
        for (asked, allocated, actual, reason, want) in [
            ("1", Some("2"), Some("2"), None, 2000), // smaller, not yet done
            ("3", Some("2"), Some("2"), Some("Deferred"), 3000), // larger, waits
            ("3", Some("2"), Some("2"), Some("Infeasible"), 2000), // larger, never
            ("1", None, None, None, 1000),
        ] {
            let list = |cpu: Option<&str>| cpu.map(|cpu| json!({"cpu": cpu}));
            let conditions: Vec<_> = reason
                .iter()
                .map(|r| json!({"type": "PodResizePending", "status": "True", "reason": r}))
                .collect();
            let pod: Pod = serde_json::from_value(json!({
                "spec": {"nodeName": "n", "containers": [{"name": "c", "resources": {"requests": {"cpu": asked}}}]},
                "status": {"conditions": conditions, "containerStatuses": [{"name": "c", "ready": true, "restartCount": 0, "image": "", "imageID": "",
                    "allocatedResources": list(allocated), "resources": {"requests": list(actual)}}]},
            }))
            .unwrap();
            let info = PodInfo::new(Arc::new(pod));
            assert_eq!((info.requests.cpu, info.assumed.0), (want, want), "{asked} {reason:?}");
        }
    }
}
