//! Changing what a running pod may use, in two steps. What is wanted is allocated first: the node must have
//! room for it, or it waits. What is allocated is then actuated: the runtime and the kernel are told. The rest of
//! the kubelet sees pods as they are allocated. No I/O here but that of [`records`].

pub mod records;

use crate::admit;
use crate::cgroups::PodCgroup;
use crate::config::Config;
use crate::pod::{self, PodExt, Qos};
use crate::quantity::{self, Amount, Resources};
use crate::runtime::observed::{Observed, State};
use crate::runtime::resources::{self, PodLimits};
use cri::types::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// What a pod and its containers may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Allocation {
    /// The pod as a whole, where it says so.
    pub pod: Option<ResourceRequirements>,
    /// By container.
    pub containers: BTreeMap<String, ResourceRequirements>,
}

impl Allocation {
    /// What a pod's spec asks for.
    pub fn of(pod: &Pod) -> Self {
        let one = |c: &Container| (c.name.clone(), c.resources.clone().unwrap_or_default());
        Allocation {
            pod: pod.spec().resources.clone(),
            containers: pod.containers().map(|(_, c)| one(c)).collect(),
        }
    }

    /// Whether it is what a pod's spec asks for.
    pub fn is_of(&self, pod: &Pod) -> bool {
        same(self.pod.as_ref(), pod.spec().resources.as_ref())
            && pod.containers().all(|(_, c)| match self.containers.get(&c.name) {
                Some(own) => same(Some(own), c.resources.as_ref()),
                None => true,
            })
    }

    /// The pod with this in its spec.
    pub fn applied(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        if self.is_of(pod) {
            return pod.clone();
        }
        let mut changed = (**pod).clone();
        let spec = changed.spec.get_or_insert_default();
        spec.resources = self.pod.clone();
        for c in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
            if let Some(own) = self.containers.get(&c.name) {
                c.resources = Some(own.clone());
            }
        }
        Arc::new(changed)
    }
}

/// Whether two mean the same, however they are written.
fn same(a: Option<&ResourceRequirements>, b: Option<&ResourceRequirements>) -> bool {
    let list = |r: Option<&ResourceRequirements>, limits: bool| -> BTreeMap<String, Option<Amount>> {
        let list = r.and_then(|r| if limits { r.limits.as_ref() } else { r.requests.as_ref() });
        list.into_iter().flatten().map(|(k, q)| (k.clone(), quantity::parse(&q.0))).collect()
    };
    list(a, true) == list(b, true) && list(a, false) == list(b, false)
}

/// Why what is wanted is not allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `Deferred` or `Infeasible`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// Whether a pod can have what it wants now. `others` are as allocated.
pub fn judge(
    config: &Config,
    wanted: &Pod,
    others: &[Arc<Pod>],
    node: &admit::NodeFacts,
) -> Result<(), Pending> {
    for name in ["cpu", "memory"] {
        let (asked, there) =
            (pod::requests(wanted.spec(), name), quantity::of(Some(&node.allocatable), name));
        if asked > there {
            let n = |a: quantity::Amount| if name == "cpu" { a.milli() } else { a.bytes() };
            let message = format!(
                "Node didn't have enough capacity: {name}, requested: {}, capacity: {}",
                n(asked),
                n(there)
            );
            return Err(Pending { reason: "Infeasible", message });
        }
    }
    admit::fits(config, wanted, others, node).map_err(|r| Pending { reason: "Deferred", message: r.message })
}

/// One that waits for room.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// As it should become.
    pub wanted: Arc<Pod>,
    /// Since when it waits.
    pub since: Instant,
}

/// Who comes first: those that ask for no more than they have, then the more important, then the ones that waited longest.
pub fn rank(w: &Waiting, allocated: &Allocation) -> impl Ord + use<> {
    let now = allocated.applied(&w.wanted);
    let more =
        ["cpu", "memory"].iter().any(|r| pod::requests(w.wanted.spec(), r) > pod::requests(now.spec(), r));
    let priority = w.wanted.spec().priority.unwrap_or(0);
    (more, Reverse(priority), w.wanted.qos() != Qos::Guaranteed, w.since)
}

/// What a container's change takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: it has what is allocated.
    None,
    /// The runtime changes its limits.
    Update,
    /// It has to start anew.
    Restart,
}

/// What it takes to give a running container what it is allocated.
pub fn change(pod: &Pod, c: &Container, actuated: &Allocation) -> Change {
    let Some(has) = actuated.containers.get(&c.name) else { return Change::None };
    let differs = |name: &str| {
        let request = |r: &ResourceRequirements| quantity::of(r.requests.as_ref(), name);
        let wants = c.resources.as_ref();
        wants.map(request).unwrap_or_default() != request(has)
            || resources::limit(pod.spec().resources.as_ref(), wants, name)
                != resources::limit(actuated.pod.as_ref(), Some(has), name)
    };
    let changed: Vec<&str> = ["cpu", "memory"].into_iter().filter(|n| differs(n)).collect();
    let restarts = c
        .resize_policy
        .iter()
        .flatten()
        .any(|p| p.restart_policy == "RestartContainer" && changed.contains(&p.resource_name.as_str()));
    match changed.is_empty() {
        true => Change::None,
        false if restarts => Change::Restart,
        false => Change::Update,
    }
}

/// The running containers that do not have what they are allocated, and what that takes.
pub fn changes<'a>(
    pod: &'a Pod,
    seen: &Observed,
    actuated: &Allocation,
) -> Vec<(&'a Container, String, Change)> {
    let running = |c: &'a Container| {
        let s = seen.container(&c.name).filter(|s| s.state == State::Running)?;
        let what = change(pod, c, actuated);
        (what != Change::None).then(|| (c, s.id.clone(), what))
    };
    let mut all: Vec<_> = pod.containers().filter_map(|(_, c)| running(c)).collect();
    // those that give memory back come first
    let grows = |c: &Container| {
        let limit =
            |r: Option<&ResourceRequirements>| quantity::of(r.and_then(|r| r.limits.as_ref()), "memory");
        limit(c.resources.as_ref()) > limit(actuated.containers.get(&c.name))
    };
    all.sort_by_key(|(c, ..)| grows(c));
    all
}

/// Whether something of a pod does not have what it is allocated.
pub fn is_unfinished(pod: &Pod, seen: &Observed, actuated: &Allocation) -> bool {
    let whole = actuated.pod.is_some() && !same(actuated.pod.as_ref(), pod.spec().resources.as_ref());
    whole || !changes(pod, seen, actuated).is_empty()
}

/// Bounds that hold before and after a change: those of a pod while its containers change.
pub fn wider(now: &PodCgroup, wanted: &PodLimits) -> PodLimits {
    let larger = |a: Option<i64>, b: Option<i64>| a.zip(b).map(|(a, b)| a.max(b));
    let period = wanted.quota.map_or(now.period, |(_, p)| p);
    // quotas count per period
    let quota = now.quota.map(|q| q.saturating_mul(period) / now.period.max(1));
    PodLimits {
        shares: now.shares.max(wanted.shares),
        quota: larger(quota, wanted.quota.map(|(q, _)| q)).map(|q| (q, period)),
        memory: larger(now.memory, wanted.memory),
        pids: wanted.pids,
    }
}

/// Bytes of memory in use, by container and of the pod; what cannot be told is absent.
#[derive(Clone, Debug, Default)]
pub struct MemoryUse {
    /// By container.
    pub containers: BTreeMap<String, u64>,
    /// All together.
    pub pod: Option<u64>,
}

/// Whether memory can be taken away: not what is in use, that would end the container.
pub fn check_memory(
    pod: &Pod,
    updates: &[(&Container, String, Change)],
    actuated: &Allocation,
    now: &PodCgroup,
    wanted: &PodLimits,
    used: &MemoryUse,
) -> Result<(), String> {
    let mut faults = Vec::new();
    let mut check = |what: String, limit: i64, used: Option<u64>| match used {
        None => faults.push(format!("missing {what} memory usage")),
        Some(n) if i64::try_from(n).is_ok_and(|n| n < limit) => {}
        Some(n) => {
            faults.push(format!("attempting to set {what} memory limit ({limit}) below current usage ({n})"))
        }
    };
    let shrinks = |from: Option<i64>, to: i64| from.is_none_or(|from| to < from);
    if let Some(limit) = wanted.memory.filter(|to| shrinks(now.memory, *to)) {
        check("pod".into(), limit, used.pod);
    }
    let limit = |r: Option<&ResourceRequirements>| {
        Some(quantity::of(r.and_then(|r| r.limits.as_ref()), "memory").bytes()).filter(|b| *b > 0)
    };
    for (c, ..) in updates.iter().filter(|(_, _, what)| *what == Change::Update) {
        if let Some(to) = limit(c.resources.as_ref())
            && shrinks(limit(actuated.containers.get(&c.name)), to)
        {
            check(format!("container {:?}", c.name), to, used.containers.get(&c.name).copied());
        }
    }
    tracing::debug!(pod = pod.name(), ?faults, "memory limits were compared with what is used");
    match faults.as_slice() {
        [] => Ok(()),
        [one] => Err(format!("cannot decrease memory limits: {one}")),
        many => Err(format!("cannot decrease memory limits: [{}]", many.join(", "))),
    }
}

/// What a running container has: what was actuated, corrected where the runtime says otherwise.
pub fn reported(
    actuated: &ResourceRequirements,
    runtime: Option<&LinuxContainerResources>,
) -> ResourceRequirements {
    let mut r = actuated.clone();
    let Some(has) = runtime else { return r };
    let amount = |l: &Resources, name: &str| quantity::of(Some(l), name);
    if let Some(requests) = r.requests.as_mut().filter(|l| l.contains_key("cpu"))
        && has.cpu_shares > 0
        && has.cpu_shares != resources::shares(amount(requests, "cpu").milli())
    {
        let milli = has.cpu_shares.saturating_mul(1000).div_euclid(1024)
            + i64::from(has.cpu_shares.saturating_mul(1000).rem_euclid(1024) > 0);
        requests.insert("cpu".into(), Amount::from_milli(milli).cpu());
    }
    if let Some(limits) = r.limits.as_mut() {
        if limits.contains_key("cpu") && has.cpu_quota > 0 && has.cpu_period > 0 {
            let wanted = resources::quota(amount(limits, "cpu").milli(), has.cpu_period);
            if has.cpu_quota != wanted {
                let milli = has.cpu_quota.saturating_mul(1000) / has.cpu_period;
                limits.insert("cpu".into(), Amount::from_milli(milli).cpu());
            }
        }
        let bytes = has.memory_limit_in_bytes;
        if limits.contains_key("memory") && bytes > 0 && bytes != amount(limits, "memory").bytes() {
            limits.insert("memory".into(), Amount::from_units(bytes.unsigned_abs()).memory());
        }
    }
    r
}

/// What an event says of a resize: what is asked of each container.
pub fn summary(what: &str, pod: &Pod, error: &str) -> String {
    #[derive(Serialize)]
    struct One<'a> {
        name: &'a str,
        resources: ResourceRequirements,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct All<'a> {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        init_containers: Vec<One<'a>>,
        containers: Vec<One<'a>>,
        generation: i64,
        #[serde(skip_serializing_if = "str::is_empty")]
        error: &'a str,
    }
    fn one(c: &Container) -> One<'_> {
        One { name: &c.name, resources: c.resources.clone().unwrap_or_default() }
    }
    let all = All {
        init_containers: pod.init_containers().iter().map(one).collect(),
        containers: pod.spec().containers.iter().map(one).collect(),
        generation: pod.metadata.generation.unwrap_or_default(),
        error,
    };
    match serde_json::to_string(&all) {
        Ok(json) => format!("Pod resize {what}: {json}"),
        Err(_) => format!("Pod resize {what}"),
    }
}

/// What a pod as a whole is allocated, and what it was given, as its status has them.
pub fn of_whole(pod: &Pod, actuated: &Allocation) -> (Resources, ResourceRequirements) {
    let mut given = actuated.clone();
    given.pod = given.pod.or_else(|| pod.spec().resources.clone());
    let given = given.applied(&Arc::new(pod.clone()));
    let limit = |name: &str| pod::limits(given.spec(), name).filter(|a| !a.is_zero());
    let limits: Resources =
        [("cpu", limit("cpu").map(Amount::cpu)), ("memory", limit("memory").map(Amount::memory))]
            .into_iter()
            .filter_map(|(name, q)| Some((name.to_owned(), q?)))
            .collect();
    let some = |l: Resources| Some(l).filter(|l| !l.is_empty());
    let requests = some(requests(&given));
    (self::requests(pod), ResourceRequirements { claims: None, limits: some(limits), requests })
}

fn requests(pod: &Pod) -> Resources {
    let lists =
        pod.containers().filter_map(|(_, c)| c.resources.as_ref()).chain(pod.spec().resources.as_ref());
    let names: BTreeSet<&String> =
        lists.flat_map(|r| r.requests.iter().flatten()).map(|(name, _)| name).collect();
    let text = |name: &str, a: Amount| -> Quantity {
        match name {
            "cpu" => a.cpu(),
            "memory" | "ephemeral-storage" => a.memory(),
            n if n.starts_with("hugepages-") => a.memory(),
            _ => a.count(),
        }
    };
    names.into_iter().map(|n| (n.clone(), text(n, pod::requests(pod.spec(), n)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::observed::Container as Seen;
    use serde_json::{Value, json};

    fn pod(containers: Value) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "p", "uid": "u", "generation": 2}, "spec": {"containers": containers}}),
        )
        .unwrap_or_else(|e| panic!("{e}"))
    }

    fn resources(text: &str) -> Value {
        // cpu request/limit memory request/limit; - for none
        let mut out = json!({"requests": {}, "limits": {}});
        let mut words = text.split([' ', '/']);
        for (resource, list) in
            [("cpu", "requests"), ("cpu", "limits"), ("memory", "requests"), ("memory", "limits")]
        {
            if let Some(w) = words.next().filter(|w| *w != "-") {
                out[list][resource] = w.into();
            }
        }
        out
    }

    #[test]
    fn changes_are_told_apart() {
        for (has, wants, policies, want) in [
            ("100m/200m 1Mi/2Mi", "0.1/0.2 1024Ki/2048Ki", "cpu memory", Change::None),
            ("100m/200m 1Mi/2Mi", "100m/300m 1Mi/2Mi", "", Change::Update),
            ("100m/200m 1Mi/2Mi", "100m/300m 1Mi/2Mi", "memory", Change::Update),
            ("100m/200m 1Mi/2Mi", "100m/300m 1Mi/2Mi", "cpu", Change::Restart),
            ("100m/200m 1Mi/2Mi", "100m/200m 2Mi/2Mi", "memory", Change::Restart),
            ("100m/- 1Mi/-", "100m/200m 1Mi/-", "", Change::Update),
        ] {
            let policy: Vec<Value> = policies
                .split_whitespace()
                .map(|r| json!({"resourceName": r, "restartPolicy": "RestartContainer"}))
                .collect();
            let old = pod(json!([{"name": "a", "resources": resources(has)}]));
            let new = pod(json!([{"name": "a", "resources": resources(wants), "resizePolicy": policy}]));
            let actuated = Allocation::of(&old);
            assert_eq!(
                change(&new, &new.spec().containers[0], &actuated),
                want,
                "{has} -> {wants} {policies}"
            );
            assert_eq!(actuated.is_of(&new), want == Change::None, "{has} -> {wants}");
            assert!(actuated.is_of(&actuated.applied(&Arc::new(new))));
        }
        let unknown = pod(json!([{"name": "a", "resources": resources("1/1 1Mi/1Mi")}]));
        assert_eq!(change(&unknown, &unknown.spec().containers[0], &Allocation::default()), Change::None);
    }

    #[test]
    fn those_that_shrink_change_first() {
        let old = pod(json!([
            {"name": "grows", "resources": resources("1/1 1Mi/1Mi")},
            {"name": "stays", "resources": resources("1/1 1Mi/1Mi")},
            {"name": "shrinks", "resources": resources("1/1 2Mi/2Mi")},
        ]));
        let new = pod(json!([
            {"name": "grows", "resources": resources("1/1 2Mi/2Mi")},
            {"name": "stays", "resources": resources("1/1 1Mi/1Mi")},
            {"name": "shrinks", "resources": resources("1/1 1Mi/1Mi")},
        ]));
        let mut seen = Observed::default();
        for name in ["grows", "stays", "shrinks"] {
            seen.containers.push(Seen {
                id: name.into(),
                name: name.into(),
                state: State::Running,
                ..Default::default()
            });
        }
        let actuated = Allocation::of(&old);
        let order: Vec<String> = changes(&new, &seen, &actuated).into_iter().map(|(_, id, _)| id).collect();
        assert_eq!(order, ["shrinks", "grows"]);
        seen.containers.iter_mut().for_each(|c| c.state = State::Exited);
        assert!(!is_unfinished(&new, &seen, &actuated));
    }

    #[test]
    fn a_pod_is_bounded_widely_while_it_changes() {
        let now = PodCgroup { shares: 100, quota: Some(20_000), period: 100_000, memory: Some(1000) };
        let limits = |shares, quota: Option<i64>, memory| PodLimits {
            shares,
            quota: quota.map(|q| (q, 100_000)),
            memory,
            pids: None,
        };
        for (wanted, want) in [
            (limits(50, Some(10_000), Some(500)), limits(100, Some(20_000), Some(1000))),
            (limits(200, Some(30_000), Some(2000)), limits(200, Some(30_000), Some(2000))),
            (limits(200, None, None), limits(200, None, None)),
        ] {
            assert_eq!(wider(&now, &wanted), want);
        }
        let unbounded = PodCgroup { shares: 2, quota: None, period: 100_000, memory: None };
        assert_eq!(wider(&unbounded, &limits(5, Some(1), Some(1))), limits(5, None, None));
    }

    #[test]
    fn memory_in_use_is_not_taken_away() {
        let old = pod(json!([{"name": "a", "resources": resources("1/1 1Ki/1Ki")}]));
        let new = pod(json!([{"name": "a", "resources": resources("1/1 100/100")}]));
        let actuated = Allocation::of(&old);
        let updates = vec![(&new.spec().containers[0], "id".to_owned(), Change::Update)];
        let now = PodCgroup { shares: 2, quota: None, period: 100_000, memory: Some(1024) };
        let wanted = PodLimits { memory: Some(100), ..Default::default() };
        for (used, want) in [
            (Some(99), ""),
            (
                Some(100),
                "cannot decrease memory limits: [attempting to set pod memory limit (100) below current usage (100), attempting to set container \"a\" memory limit (100) below current usage (100)]",
            ),
            (
                None,
                "cannot decrease memory limits: [missing pod memory usage, missing container \"a\" memory usage]",
            ),
        ] {
            let used =
                MemoryUse { containers: used.map(|u| ("a".to_owned(), u)).into_iter().collect(), pod: used };
            let got = check_memory(&new, &updates, &actuated, &now, &wanted, &used);
            assert_eq!(got.err().unwrap_or_default(), want);
        }
    }

    #[test]
    fn a_pod_as_a_whole() {
        let two = |a: &str| {
            pod(json!([
                {"name": "a", "resources": resources(a)},
                {"name": "b", "resources": resources("500m/1 1Gi/1Gi")},
            ]))
        };
        let (allocated, given) = of_whole(&two("1/2 1Gi/2Gi"), &Allocation::of(&two("250m/1 1Gi/1Gi")));
        assert_eq!(json!(allocated), json!({"cpu": "1500m", "memory": "2Gi"}));
        assert_eq!(json!(given), resources("750m/2 2Gi/2Gi"));
        let none = of_whole(&pod(json!([{"name": "a"}])), &Allocation::default());
        assert_eq!(none, (Resources::new(), ResourceRequirements::default()));
    }

    #[test]
    fn limits_of_the_pod_hold_for_containers_without() {
        let of = |limit: &str| {
            let mut p = pod(json!([{"name": "a"}, {"name": "b", "resources": resources("1/1 1Mi/1Mi")}]));
            let whole = json!({"limits": {"cpu": limit}});
            p.spec.get_or_insert_default().resources =
                Some(serde_json::from_value(whole).unwrap_or_else(|e| panic!("{e}")));
            p
        };
        let (old, new) = (of("2"), of("3"));
        let got: Vec<Change> =
            new.spec().containers.iter().map(|c| change(&new, c, &Allocation::of(&old))).collect();
        assert_eq!(got, [Change::Update, Change::None]);
    }

    #[test]
    fn the_runtime_has_the_last_word() {
        let has: ResourceRequirements =
            serde_json::from_value(resources("100m/200m 1Mi/2Mi")).unwrap_or_else(|e| panic!("{e}"));
        let linux = |cpu_shares, cpu_quota, memory_limit_in_bytes| LinuxContainerResources {
            cpu_shares,
            cpu_quota,
            cpu_period: 100_000,
            memory_limit_in_bytes,
            ..Default::default()
        };
        for (runtime, want) in [
            (None, "100m/200m 1Mi/2Mi"),
            (Some(linux(102, 20_000, 2 << 20)), "100m/200m 1Mi/2Mi"),
            (Some(linux(204, 30_000, 3 << 20)), "200m/300m 1Mi/3Mi"),
            (Some(linux(0, 0, 0)), "100m/200m 1Mi/2Mi"),
        ] {
            let got = serde_json::to_value(reported(&has, runtime.as_ref())).unwrap_or_default();
            assert_eq!(got, resources(want), "{runtime:?}");
        }
    }
}
