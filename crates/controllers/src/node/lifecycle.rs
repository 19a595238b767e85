//! Node lifecycle: a node whose kubelet is silent for too long gets unknown conditions; conditions become
//! taints; pods of a lost node are no longer ready.
//! Watches nodes, their leases and pods. A sign of life only moves the time at which the node is looked at.

use super::zones::{Limiter, is_ready, rate, states, zone_of};
use crate::common::{conditions, pods, scheduling};
use crate::{Config, Context, Error, Outcome};
use api::{ObjectKey, time};
use client::{
    Client, Event, EventRecorder, EventType, Lister, ObjectExt, Patch, Scope, WorkQueue, object_ref,
};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const NAME: &str = "node-lifecycle-controller";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

pub fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    conditions::find(node.status.as_ref()?.conditions.as_ref(), kind)
}

/// The last that was heard of a node.
#[derive(Default)]
struct Heard {
    at: Option<Timestamp>,
    heartbeat: Option<Time>,
    renewed: Option<MicroTime>,
    was_ready: bool,
}

struct Lifecycle {
    client: Client,
    events: EventRecorder,
    config: Arc<Config>,
    nodes: Lister<Node>,
    pods: Lister<Pod>,
    heard: Mutex<HashMap<String, Heard>>,
    limiters: Mutex<HashMap<String, Limiter>>,
}

/// Looks after nodes.
pub async fn run(ctx: Context) {
    let client = ctx.client("node-controller");
    let (nodes, pods) = (ctx.informers.informer::<Node>(), ctx.pods());
    let leases = ctx
        .informers
        .informer_with::<Lease>(Scope { namespace: "kube-node-lease".into(), ..Scope::default() });
    let this = Arc::new(Lifecycle {
        events: ctx.events(&client, "node-controller"),
        client,
        config: ctx.config.clone(),
        nodes: nodes.lister(),
        pods: pods.lister(),
        heard: Mutex::default(),
        limiters: Mutex::default(),
    });
    let (for_nodes, for_leases) = (this.clone(), this.clone());
    ctx.controller(NAME)
        .on(&nodes, move |event, queue| for_nodes.on_node(event, queue))
        .on(&leases, move |event, _| for_leases.on_lease(event.object()))
        .on(&pods, |event, queue| {
            // A pod that appears on a lost node is not ready either.
            let node = pods::node_name(event.object());
            if event.old().is_none() && !node.is_empty() {
                queue.add(ObjectKey::new("", node));
            }
        })
        .run(ctx.workers(NAME, 8), ctx.shutdown, move |key| {
            let this = this.clone();
            async move { this.reconcile(&key.name).await }
        })
        .await;
}

impl Lifecycle {
    fn heard<R>(&self, node: &str, f: impl FnOnce(&mut Heard) -> R) -> R {
        f(self.heard.lock().unwrap_or_else(|e| e.into_inner()).entry(node.into()).or_default())
    }

    fn on_node(&self, event: &Event<Node>, queue: &WorkQueue<ObjectKey>) {
        let node = event.object();
        if event.is_deleted() {
            self.heard.lock().unwrap_or_else(|e| e.into_inner()).remove(node.name());
            return;
        }
        let heartbeat = condition(node, "Ready").and_then(|c| c.last_heartbeat_time.clone());
        self.heard(node.name(), |h| {
            if h.heartbeat != heartbeat || h.at.is_none() {
                (h.heartbeat, h.at) = (heartbeat, Some(Timestamp::now()));
            }
        });
        queue.add(node.key());
    }

    fn on_lease(&self, lease: &Lease) {
        let renewed = lease.spec.as_ref().and_then(|s| s.renew_time.clone());
        self.heard(lease.name(), |h| {
            if renewed.is_some() && h.renewed != renewed {
                (h.renewed, h.at) = (renewed, Some(Timestamp::now()));
            }
        });
    }

    async fn reconcile(&self, name: &str) -> Outcome {
        let Some(cached) = self.nodes.get("", name) else { return Ok(None) };
        let mut node = (*cached).clone();
        let now = Timestamp::now();
        let heard = self.heard(name, |h| *h.at.get_or_insert(now));
        let due = time::later(since(&node, heard), self.grace(&node));
        let silent = time::until(due, now).is_none();
        if silent && mark_unknown(&mut node, now) {
            tracing::warn!("{NAME}: {name} is silent");
            node = self.client.update_status(&node).await?;
        }
        let was_ready = self.heard(name, |h| std::mem::replace(&mut h.was_ready, is_ready(&node)));
        if was_ready && !is_ready(&node) {
            let message = format!("Node {name} status is now: NodeNotReady");
            self.events.event(&object_ref(&node), EventType::Normal, "NodeNotReady", message);
        }
        // A kubelet that lives says itself how its pods are; it is told of the change once.
        if (was_ready && !is_ready(&node)) || condition(&node, "Ready").is_some_and(|c| c.status == "Unknown")
        {
            self.unready_pods(name).await?;
        }
        self.mirror_labels(&node).await?;
        let wait = self.taint(&node, now).await?;
        let next = if silent { None } else { time::until(due, now) };
        Ok(wait.into_iter().chain(next).min())
    }

    fn grace(&self, node: &Node) -> Duration {
        match condition(node, "Ready") {
            None => self.config.node_startup_grace_period,
            Some(_) => self.config.node_monitor_grace_period,
        }
    }

    async fn unready_pods(&self, node: &str) -> Result<(), Error> {
        for pod in self.pods.by_index(pods::BY_NODE, node).iter().filter(|p| pods::is_ready(p)) {
            let now = time::now();
            let body = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [
                {"type": "Ready", "status": "False", "lastTransitionTime": now},
            ]}});
            match self.client.patch_status::<Pod>(pod.namespace(), pod.name(), &Patch::Strategic(body)).await
            {
                Err(e) if e.is_not_found() || e.is_conflict() || e.is_invalid() => {}
                other => drop(other?),
            }
            self.events.event(&object_ref(&**pod), EventType::Warning, "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }

    /// Old names of two labels that some still select by.
    async fn mirror_labels(&self, node: &Node) -> Result<(), Error> {
        let mut missing = serde_json::Map::new();
        for (new, old) in
            [("kubernetes.io/os", "beta.kubernetes.io/os"), ("kubernetes.io/arch", "beta.kubernetes.io/arch")]
        {
            if let Some(value) = node.label(new)
                && node.label(old) != Some(value)
            {
                missing.insert(old.into(), json!(value));
            }
        }
        if !missing.is_empty() {
            let body = json!({"metadata": {"labels": missing}});
            self.client.patch::<Node>("", node.name(), &Patch::Merge(body)).await?;
        }
        Ok(())
    }

    /// Brings the taints up to date; says how long to wait if one has to wait for its turn.
    async fn taint(&self, node: &Node, now: Timestamp) -> Result<Option<Duration>, Error> {
        let current = scheduling::taints(node);
        let (mut wanted, mut wait) = (schedule_taints(node), None);
        if let Some(key) = execute_taint(node) {
            let held = current.iter().any(|t| t.key == key && t.effect == "NoExecute");
            let other = current
                .iter()
                .any(|t| [NOT_READY, UNREACHABLE].contains(&t.key.as_str()) && t.effect == "NoExecute");
            let zones = states(&self.nodes.list(), self.config.unhealthy_zone_threshold);
            let zone = zone_of(node);
            match rate(&zone, &zones, &self.config) {
                None => wait = Some(self.config.node_monitor_period),
                Some(_) if held || other => wanted.push((key, "NoExecute")),
                Some(rate) => {
                    let mut limiters = self.limiters.lock().unwrap_or_else(|e| e.into_inner());
                    match limiters.entry(zone).or_insert_with(Limiter::new).turn(rate, now) {
                        Ok(()) => wanted.push((key, "NoExecute")),
                        Err(later) => wait = Some(later),
                    }
                }
            }
        }
        if let Some(taints) = merge_taints(current, &wanted, now) {
            let body =
                json!({"metadata": {"resourceVersion": node.resource_version()}, "spec": {"taints": taints}});
            match self.client.patch::<Node>("", node.name(), &Patch::Merge(body)).await {
                Err(e) if e.is_not_found() => {}
                other => drop(other?),
            }
        }
        Ok(wait)
    }
}

/// Since when a node is silent: a node that never said anything, since it was made.
fn since(node: &Node, heard: Timestamp) -> Timestamp {
    match condition(node, "Ready") {
        None => node.metadata.creation_timestamp.as_ref().map_or(heard, |t| t.0),
        Some(_) => heard,
    }
}

/// Says of a silent node that nothing is known of it; whether that was news.
fn mark_unknown(node: &mut Node, now: Timestamp) -> bool {
    let made = node.metadata.creation_timestamp.clone();
    let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
    let now = Time(time::truncate(now));
    let mut changed = false;
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        match conditions.iter_mut().find(|c| c.type_ == kind) {
            None => conditions.push(NodeCondition {
                type_: kind.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: made.clone(),
                last_transition_time: Some(now.clone()),
            }),
            Some(c) if c.status != "Unknown" => {
                c.status = "Unknown".into();
                c.reason = Some("NodeStatusUnknown".into());
                c.message = Some("Kubelet stopped posting node status.".into());
                c.last_transition_time = Some(now.clone());
            }
            Some(_) => continue,
        }
        changed = true;
    }
    changed
}

type TaintKey = (&'static str, &'static str);

const SCHEDULE: &str = "NoSchedule";

/// The taints that keep new pods away, from what the node says.
fn schedule_taints(node: &Node) -> Vec<TaintKey> {
    let is = |kind: &str, status: &str| condition(node, kind).is_some_and(|c| c.status == status);
    let unschedulable = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or_default();
    [
        (is("Ready", "False"), NOT_READY),
        (is("Ready", "Unknown"), UNREACHABLE),
        (is("MemoryPressure", "True"), "node.kubernetes.io/memory-pressure"),
        (is("DiskPressure", "True"), "node.kubernetes.io/disk-pressure"),
        (is("PIDPressure", "True"), "node.kubernetes.io/pid-pressure"),
        (is("NetworkUnavailable", "True"), "node.kubernetes.io/network-unavailable"),
        (unschedulable, "node.kubernetes.io/unschedulable"),
    ]
    .into_iter()
    .filter_map(|(on, key)| on.then_some((key, SCHEDULE)))
    .collect()
}

/// The taint that sends pods away.
fn execute_taint(node: &Node) -> Option<&'static str> {
    match condition(node, "Ready")?.status.as_str() {
        "False" => Some(NOT_READY),
        "Unknown" => Some(UNREACHABLE),
        _ => None,
    }
}

/// Taints that are ours to set and take away.
fn is_ours(t: &Taint) -> bool {
    let schedule = [
        NOT_READY,
        UNREACHABLE,
        "node.kubernetes.io/memory-pressure",
        "node.kubernetes.io/disk-pressure",
        "node.kubernetes.io/pid-pressure",
        "node.kubernetes.io/network-unavailable",
        "node.kubernetes.io/unschedulable",
    ];
    match t.effect.as_str() {
        SCHEDULE => schedule.contains(&t.key.as_str()),
        "NoExecute" => [NOT_READY, UNREACHABLE].contains(&t.key.as_str()),
        _ => false,
    }
}

/// The taints with ours as they should be, if that is news.
fn merge_taints(current: &[Taint], wanted: &[TaintKey], now: Timestamp) -> Option<Vec<Taint>> {
    let is_wanted = |t: &Taint| wanted.iter().any(|(key, effect)| t.key == *key && t.effect == *effect);
    let mut taints: Vec<Taint> = current.iter().filter(|t| !is_ours(t) || is_wanted(t)).cloned().collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|t| t.key == *key && t.effect == *effect) {
            let added = Some(Time(time::truncate(now)));
            taints.push(Taint {
                key: (*key).into(),
                effect: (*effect).into(),
                value: None,
                time_added: added,
            });
        }
    }
    (taints != current).then_some(taints)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ready: &str, taints: serde_json::Value) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"taints": taints},
            "status": {"conditions": if ready.is_empty() { json!([]) } else { json!([{"type": "Ready", "status": ready}, {"type": "DiskPressure", "status": "True"}]) }},
        }))
        .unwrap()
    }

    fn show(taints: &[Taint]) -> String {
        taints
            .iter()
            .map(|t| format!("{}:{}", t.key.rsplit('/').next().unwrap(), t.effect))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn silence_makes_conditions_unknown() {
        let now = Timestamp::UNIX_EPOCH;
        let mut n = node("True", json!([]));
        assert!(mark_unknown(&mut n, now) && !mark_unknown(&mut n, now));
        assert_eq!(condition(&n, "Ready").unwrap().reason.as_deref(), Some("NodeStatusUnknown"));
        assert_eq!(condition(&n, "PIDPressure").unwrap().reason.as_deref(), Some("NodeStatusNeverUpdated"));
        assert_eq!(execute_taint(&n), Some(UNREACHABLE));
        let heard = "2026-01-01T05:00:00Z".parse().unwrap();
        assert_eq!(since(&n, heard), heard);
        assert_eq!(since(&node("", json!([])), heard).to_string(), "2026-01-01T00:00:00Z");
    }

    #[test]
    fn conditions_become_taints() {
        let n = node(
            "False",
            json!([{"key": "mine", "effect": "NoSchedule"}, {"key": UNREACHABLE, "effect": "NoSchedule"}]),
        );
        let mut wanted = schedule_taints(&n);
        wanted.extend(execute_taint(&n).map(|k| (k, "NoExecute")));
        let merged = merge_taints(scheduling::taints(&n), &wanted, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(
            show(&merged),
            "mine:NoSchedule not-ready:NoSchedule disk-pressure:NoSchedule not-ready:NoExecute"
        );
        assert!(merge_taints(&merged, &wanted, Timestamp::UNIX_EPOCH).is_none());
        assert_eq!(show(&merge_taints(&merged, &[], Timestamp::UNIX_EPOCH).unwrap()), "mine:NoSchedule");
    }
}
