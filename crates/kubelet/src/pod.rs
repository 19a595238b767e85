//! What the kubelet asks of a pod object, in one place.

use crate::quantity::{self, Amount, Resources};
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec, PodStatus};
use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

/// Where a pod came from: `file`, `api`.
pub const SOURCE_ANNOTATION: &str = "kubernetes.io/config.source";
/// The hash of a static pod's manifest, which is its uid on this node.
pub const HASH_ANNOTATION: &str = "kubernetes.io/config.hash";
/// On the API server's copy of a static pod: the hash of what it mirrors.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// When the kubelet first saw the pod.
pub const SEEN_ANNOTATION: &str = "kubernetes.io/config.seen";

/// How well a pod is treated when the node runs short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// Every container has equal requests and limits.
    Guaranteed,
    /// Some request or limit is set.
    Burstable,
    /// None is.
    BestEffort,
}

impl Qos {
    /// As the status has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
}

/// The kinds of containers a pod has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Runs to its end before the others start.
    Init,
    /// An init container that keeps running beside the others.
    Sidecar,
    /// What the pod is for.
    Regular,
    /// Added to a running pod to look around in it.
    Ephemeral,
}

static NO_SPEC: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);
static NO_STATUS: LazyLock<PodStatus> = LazyLock::new(PodStatus::default);
static NO_MAP: BTreeMap<String, String> = BTreeMap::new();

/// Short ways to a pod's fields.
pub trait PodExt {
    /// The pod itself.
    fn pod(&self) -> &Pod;

    /// Its unique id.
    fn uid(&self) -> &str {
        self.pod().metadata.uid.as_deref().unwrap_or("")
    }
    /// Its name.
    fn name(&self) -> &str {
        self.pod().metadata.name.as_deref().unwrap_or("")
    }
    /// Its namespace.
    fn namespace(&self) -> &str {
        self.pod().metadata.namespace.as_deref().unwrap_or("default")
    }
    /// namespace/name.
    fn key(&self) -> api::ObjectKey {
        api::ObjectKey::new(self.namespace(), self.name())
    }
    /// Its spec.
    fn spec(&self) -> &PodSpec {
        self.pod().spec.as_ref().unwrap_or(&NO_SPEC)
    }
    /// Its status as the API server has it.
    fn api_status(&self) -> &PodStatus {
        self.pod().status.as_ref().unwrap_or(&NO_STATUS)
    }
    /// Its annotations.
    fn annotations(&self) -> &BTreeMap<String, String> {
        self.pod().metadata.annotations.as_ref().unwrap_or(&NO_MAP)
    }
    /// Its labels.
    fn labels(&self) -> &BTreeMap<String, String> {
        self.pod().metadata.labels.as_ref().unwrap_or(&NO_MAP)
    }
    /// Whether it came from a file on this node.
    fn is_static(&self) -> bool {
        self.annotations().get(SOURCE_ANNOTATION).is_some_and(|s| s != "api")
    }
    /// Whether it only shows a static pod to the API.
    fn is_mirror(&self) -> bool {
        self.annotations().contains_key(MIRROR_ANNOTATION)
    }
    /// Whether it is to be deleted.
    fn is_deleted(&self) -> bool {
        self.pod().metadata.deletion_timestamp.is_some()
    }
    /// `Always`, `OnFailure` or `Never`.
    fn restart_policy(&self) -> &str {
        self.spec().restart_policy.as_deref().unwrap_or("Always")
    }
    /// Whether it shares the node's network.
    fn host_network(&self) -> bool {
        self.spec().host_network == Some(true)
    }
    /// The phase in the API.
    fn phase(&self) -> &str {
        self.api_status().phase.as_deref().unwrap_or("Pending")
    }
    /// Whether the API has it as done for good.
    fn is_terminal(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }
    /// How long its containers may take to end.
    fn grace(&self) -> Duration {
        let m = &self.pod().metadata;
        let secs =
            m.deletion_grace_period_seconds.or(self.spec().termination_grace_period_seconds).unwrap_or(30);
        // a hundred years and more are as good as any
        Duration::from_secs(u64::try_from(secs).unwrap_or(0).min(u64::from(u32::MAX)))
    }
    /// All containers that are not ephemeral, with their kinds, in starting order.
    fn containers(&self) -> impl Iterator<Item = (Kind, &Container)> {
        let init = self.spec().init_containers.iter().flatten().map(|c| (init_kind(c), c));
        init.chain(self.spec().containers.iter().map(|c| (Kind::Regular, c)))
    }
    /// Init containers, sidecars among them.
    fn init_containers(&self) -> &[Container] {
        self.spec().init_containers.as_deref().unwrap_or_default()
    }
    /// The names of all containers, ephemeral ones last.
    fn container(&self, name: &str) -> Option<(Kind, Container)> {
        if let Some((kind, c)) = self.containers().find(|(_, c)| c.name == name) {
            return Some((kind, c.clone()));
        }
        let e = self.spec().ephemeral_containers.iter().flatten().find(|c| c.name == name)?;
        Some((Kind::Ephemeral, from_ephemeral(e)))
    }
    /// How well it is treated.
    fn qos(&self) -> Qos {
        match self.api_status().qos_class.as_deref() {
            Some("Guaranteed") => Qos::Guaranteed,
            Some("Burstable") => Qos::Burstable,
            Some("BestEffort") => Qos::BestEffort,
            _ => compute_qos(self.spec()),
        }
    }
}

impl PodExt for Pod {
    fn pod(&self) -> &Pod {
        self
    }
}

/// Whether an init container is a sidecar.
pub fn init_kind(c: &Container) -> Kind {
    if c.restart_policy.as_deref() == Some("Always") { Kind::Sidecar } else { Kind::Init }
}

/// An ephemeral container as an ordinary one.
pub fn from_ephemeral(e: &EphemeralContainer) -> Container {
    let e = e.clone();
    Container {
        args: e.args,
        command: e.command,
        env: e.env,
        env_from: e.env_from,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        lifecycle: e.lifecycle,
        liveness_probe: None,
        name: e.name,
        ports: e.ports,
        readiness_probe: None,
        resize_policy: e.resize_policy,
        resources: e.resources,
        restart_policy: None,
        restart_policy_rules: None,
        security_context: e.security_context,
        startup_probe: None,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        tty: e.tty,
        volume_devices: e.volume_devices,
        volume_mounts: e.volume_mounts,
        working_dir: e.working_dir,
    }
}

/// Works out the quality of service from requests and limits.
pub fn compute_qos(spec: &PodSpec) -> Qos {
    let pod_level = spec.resources.as_ref().filter(|r| r.requests.is_some() || r.limits.is_some());
    let lists: Vec<_> = match pod_level {
        Some(r) => vec![(r.requests.as_ref(), r.limits.as_ref())],
        None => spec
            .init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
            .map(|c| c.resources.as_ref().map_or((None, None), |r| (r.requests.as_ref(), r.limits.as_ref())))
            .collect(),
    };
    let set = |l: Option<&Resources>| ["cpu", "memory"].iter().any(|r| !quantity::of(l, r).is_zero());
    if !lists.iter().any(|(requests, limits)| set(*requests) || set(*limits)) {
        return Qos::BestEffort;
    }
    let guaranteed = lists.iter().all(|(requests, limits)| {
        ["cpu", "memory"].iter().all(|r| {
            let limit = quantity::of(*limits, r);
            let request =
                if requests.is_some_and(|l| l.contains_key(*r)) { quantity::of(*requests, r) } else { limit };
            !limit.is_zero() && request == limit
        })
    });
    if guaranteed { Qos::Guaranteed } else { Qos::Burstable }
}

/// What a pod asks for of one resource in all: its containers and sidecars together, or the largest
/// init container with the sidecars before it if that is more, and the overhead.
pub fn requests(spec: &PodSpec, name: &str) -> Amount {
    total(spec, name, |c| {
        let r = c.resources.as_ref();
        match r.and_then(|r| r.requests.as_ref()).filter(|l| l.contains_key(name)) {
            Some(l) => Some(quantity::of(Some(l), name)),
            None => r
                .and_then(|r| r.limits.as_ref())
                .filter(|l| l.contains_key(name))
                .map(|l| quantity::of(Some(l), name)),
        }
    })
    .unwrap_or_default()
}

/// What a pod is bounded by, `None` when any of its containers is not.
pub fn limits(spec: &PodSpec, name: &str) -> Option<Amount> {
    if let Some(l) = spec.resources.as_ref().and_then(|r| r.limits.as_ref()).filter(|l| l.contains_key(name))
    {
        return Some(quantity::of(Some(l), name));
    }
    let limit = |c: &Container| {
        let l = c.resources.as_ref()?.limits.as_ref()?;
        l.contains_key(name).then(|| quantity::of(Some(l), name)).filter(|a| !a.is_zero())
    };
    let all = spec.init_containers.iter().flatten().chain(&spec.containers).all(|c| limit(c).is_some());
    if all { total(spec, name, limit) } else { None }
}

fn total(spec: &PodSpec, name: &str, of: impl Fn(&Container) -> Option<Amount>) -> Option<Amount> {
    let mut sidecars = Amount::default();
    let mut init_peak = Amount::default();
    for c in spec.init_containers.iter().flatten() {
        let amount = of(c).unwrap_or_default();
        if init_kind(c) == Kind::Sidecar {
            sidecars = sidecars.plus(amount);
            init_peak = init_peak.max(sidecars);
        } else {
            init_peak = init_peak.max(sidecars.plus(amount));
        }
    }
    let regular = spec.containers.iter().fold(sidecars, |sum, c| sum.plus(of(c).unwrap_or_default()));
    let mut sum = regular.max(init_peak);
    if let Some(l) =
        spec.resources.as_ref().and_then(|r| r.requests.as_ref()).filter(|l| l.contains_key(name))
    {
        sum = quantity::of(Some(l), name);
    }
    Some(sum.plus(quantity::of(spec.overhead.as_ref(), name)))
}

/// Whether a container that ended with `exit_code` is started again.
pub fn restarts(c: &Container, kind: Kind, pod_policy: &str, exit_code: i32) -> bool {
    for rule in c.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.as_ref().is_some_and(|v| v.contains(&exit_code));
        let matches = match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        if matches {
            return rule.action == "Restart";
        }
    }
    match (kind, c.restart_policy.as_deref().unwrap_or(pod_policy)) {
        (Kind::Ephemeral, _) => false,
        (_, "Never") => false,
        (Kind::Init, _) | (_, "OnFailure") => exit_code != 0,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(v: serde_json::Value) -> PodSpec {
        serde_json::from_value(v).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn quality_of_service() {
        for (containers, want) in [
            (json!([{"name": "a"}]), Qos::BestEffort),
            (json!([{"name": "a", "resources": {"requests": {"cpu": "1"}}}]), Qos::Burstable),
            (json!([{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]), Qos::Guaranteed),
            (
                json!([{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}}]),
                Qos::Burstable,
            ),
            (
                json!([{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}, {"name": "b"}]),
                Qos::Burstable,
            ),
        ] {
            assert_eq!(compute_qos(&spec(json!({"containers": containers}))), want, "{containers}");
        }
    }

    #[test]
    fn requests_count_the_larger_of_init_and_main() {
        let s = spec(json!({
            "initContainers": [
                {"name": "i", "resources": {"requests": {"cpu": "2"}}},
                {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
            ],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "500m"}}}],
            "overhead": {"cpu": "10m"},
        }));
        assert_eq!(requests(&s, "cpu").milli(), 2010);
        assert_eq!(limits(&s, "cpu"), None);
    }

    #[test]
    fn restart_rules() {
        let c = |v| serde_json::from_value::<Container>(v).unwrap_or_else(|e| panic!("{e}"));
        let plain = c(json!({"name": "a"}));
        let ruled = c(
            json!({"name": "a", "restartPolicy": "Never", "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}),
        );
        for (container, kind, policy, code, want) in [
            (&plain, Kind::Regular, "Always", 0, true),
            (&plain, Kind::Regular, "OnFailure", 0, false),
            (&plain, Kind::Regular, "OnFailure", 1, true),
            (&plain, Kind::Regular, "Never", 1, false),
            (&plain, Kind::Init, "Always", 0, false),
            (&plain, Kind::Ephemeral, "Always", 1, false),
            (&ruled, Kind::Regular, "Always", 42, true),
            (&ruled, Kind::Regular, "Always", 1, false),
        ] {
            assert_eq!(restarts(container, kind, policy, code), want, "{kind:?} {policy} {code}");
        }
    }
}
