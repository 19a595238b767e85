//! Taint-based eviction: pods that don't tolerate a NoExecute taint go, at once or when their time is up.
//! Watches pods and nodes; a node's change of taints leads to all its pods.

use crate::common::{delete_uid, gone_is_fine, pods, scheduling};
use crate::{Context, Error, Outcome};
use api::time;
use client::{Client, EventRecorder, EventType, ObjectExt, Patch, object_ref};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const NAME: &str = "taint-eviction-controller";

/// Since when taints are there that don't say it themselves: `kubectl taint` does not. Per node.
#[derive(Default)]
struct Seen(Mutex<HashMap<String, Vec<(Taint, Timestamp)>>>);

impl Seen {
    /// Takes in a node as it is; answers its NoExecute taints and since when each is there.
    fn look(&self, node: &Node, now: Timestamp) -> Vec<(Taint, Timestamp)> {
        let taints = executing(node);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taints.is_empty() {
            seen.remove(node.name());
            return Vec::new();
        }
        let before = seen.remove(node.name()).unwrap_or_default();
        let since = |t: &Taint| {
            let same =
                before.iter().find(|(b, _)| (&b.key, &b.effect, &b.value) == (&t.key, &t.effect, &t.value));
            t.time_added.as_ref().map(|t| t.0).unwrap_or_else(|| same.map_or(now, |(_, at)| *at))
        };
        let known: Vec<(Taint, Timestamp)> = taints.iter().map(|t| (t.clone(), since(t))).collect();
        seen.insert(node.name().into(), known.clone());
        known
    }

    fn forget(&self, node: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
    }
}

/// Evicts pods.
pub async fn run(ctx: Context) {
    let seen = Arc::new(Seen::default());
    let at_events = seen.clone();
    let client = ctx.client("node-controller");
    let events = ctx.events(&client, NAME);
    let (nodes, pods) = (ctx.informers.informer::<Node>(), ctx.pods());
    let (node_list, pod_list, by_node) = (nodes.lister(), pods.lister(), pods.lister());
    ctx.controller(NAME)
        .on(&pods, |event, queue| {
            let (pod, old) = (event.object(), event.old());
            let spec = |p: &Pod| p.spec.as_ref().map(|s| (s.node_name.clone(), s.tolerations.clone()));
            if !event.is_deleted()
                && old.is_none_or(|o| spec(o) != spec(pod))
                && !pods::node_name(pod).is_empty()
            {
                queue.add(pod.key());
            }
        })
        .on(&nodes, move |event, queue| {
            let node = event.object();
            if event.is_deleted() {
                at_events.forget(node.name());
            } else {
                at_events.look(node, Timestamp::now());
            }
            let before = event.old().map(|o| executing(o)).unwrap_or_default();
            if !event.is_deleted() && before != executing(node) {
                by_node.by_index(pods::BY_NODE, node.name()).iter().for_each(|p| queue.add(p.key()));
            }
        })
        .run(ctx.workers(NAME, 8), ctx.shutdown, move |key| {
            let (client, events, seen) = (client.clone(), events.clone(), seen.clone());
            let pod = pod_list.get(&key.namespace, &key.name).filter(|p| !p.is_deleting());
            let node = pod.as_ref().and_then(|p| node_list.get("", pods::node_name(p)));
            async move {
                match pod.zip(node) {
                    Some((pod, node)) => {
                        let taints = seen.look(&node, Timestamp::now());
                        reconcile(&client, &events, &pod, &taints).await
                    }
                    None => Ok(None),
                }
            }
        })
        .await;
}

fn executing(node: &Node) -> Vec<Taint> {
    scheduling::taints(node).iter().filter(|t| t.effect == "NoExecute").cloned().collect()
}

/// When a pod has to go, if it has to.
#[derive(Debug, PartialEq)]
enum Fate {
    Stays,
    Goes(Timestamp),
}

/// A toleration's seconds count from when the first taint that is tolerated only so long came, or the pod; the
/// shortest wins. Each taint uses the first toleration that fits.
fn fate(pod: &Pod, taints: &[(Taint, Timestamp)]) -> Fate {
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    if taints.is_empty() {
        return Fate::Stays;
    }
    let mut finite: Option<(i64, Timestamp)> = None;
    for (taint, since) in taints {
        let Some(used) = tolerations.iter().find(|t| scheduling::tolerates(t, taint)) else {
            return Fate::Goes(Timestamp::MIN);
        };
        if let Some(seconds) = used.toleration_seconds {
            let (least, first) = finite.unwrap_or((seconds, *since));
            finite = Some((least.min(seconds), first.min(*since)));
        }
    }
    let Some((seconds, tainted)) = finite else { return Fate::Stays };
    let Ok(seconds) = u64::try_from(seconds) else { return Fate::Goes(Timestamp::MIN) };
    let bound = pods::condition(pod, "PodScheduled").and_then(|c| c.last_transition_time.as_ref());
    let there = bound.or(pod.metadata.creation_timestamp.as_ref()).map(|t| t.0);
    let start = there.map_or(tainted, |t| t.max(tainted));
    Fate::Goes(time::later(start, Duration::from_secs(seconds)))
}

async fn reconcile(
    client: &Client,
    events: &EventRecorder,
    pod: &Arc<Pod>,
    taints: &[(Taint, Timestamp)],
) -> Outcome {
    let Fate::Goes(at) = fate(pod, taints) else { return Ok(None) };
    if let Some(left) = time::until(at, Timestamp::now()) {
        return Ok(Some(left));
    }
    let message = format!("Marking for deletion Pod {}", pod.key());
    events.event(&object_ref(&**pod), EventType::Normal, "TaintManagerEviction", message);
    if !pods::is_terminal(pod) {
        disrupt(client, pod, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
            .await?;
    }
    gone_is_fine(client.delete::<Pod>(pod.namespace(), pod.name(), &delete_uid(pod.uid())).await)?;
    Ok(None)
}

/// Notes on a pod why it will be deleted.
pub async fn disrupt(client: &Client, pod: &Pod, reason: &str, message: &str) -> Result<(), Error> {
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": reason, "message": message, "lastTransitionTime": time::now(),
    });
    let body = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}});
    match client.patch_status::<Pod>(pod.namespace(), pod.name(), &Patch::Strategic(body)).await {
        Err(e) if e.is_not_found() => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_go_when_their_time_is_up() {
        let taint: Taint = serde_json::from_value(
            json!({"key": "k", "effect": "NoExecute", "timeAdded": "2026-01-01T01:00:00Z"}),
        )
        .unwrap();
        let since = taint.time_added.as_ref().unwrap().0;
        let pod = |made: &str, tolerations| {
            serde_json::from_value::<Pod>(json!({"metadata": {"creationTimestamp": made}, "spec": {"containers": [], "tolerations": tolerations}})).unwrap()
        };
        let at = |t: &str| Fate::Goes(t.parse().unwrap());
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-01T02:00:00Z");
        for (pod, want) in [
            (pod(old, json!([])), Fate::Goes(Timestamp::MIN)),
            (pod(old, json!([{"operator": "Exists"}])), Fate::Stays),
            (
                pod(old, json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 300}])),
                at("2026-01-01T01:05:00Z"),
            ),
            (
                pod(new, json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 300}])),
                at("2026-01-01T02:05:00Z"),
            ),
            (
                pod(
                    old,
                    json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 300}, {"operator": "Exists", "tolerationSeconds": 60}]),
                ),
                at("2026-01-01T01:05:00Z"), // the first that fits
            ),
            (
                pod(old, json!([{"key": "k", "operator": "Exists", "tolerationSeconds": -1}])),
                Fate::Goes(Timestamp::MIN),
            ),
        ] {
            assert_eq!(fate(&pod, &[(taint.clone(), since)]), want);
        }
        assert_eq!(fate(&pod(old, json!([])), &[]), Fate::Stays);
        // Of two taints the first that is tolerated for a while starts the clock, and one that is tolerated for ever none.
        let other = Taint { key: "j".into(), ..taint.clone() };
        let later = time::later(since, Duration::from_secs(200));
        let two = pod(
            old,
            json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 300}, {"operator": "Exists", "tolerationSeconds": 600}]),
        );
        assert_eq!(fate(&two, &[(taint.clone(), since), (other.clone(), later)]), at("2026-01-01T01:05:00Z"));
        let ever = pod(
            old,
            json!([{"key": "k", "operator": "Exists"}, {"operator": "Exists", "tolerationSeconds": 600}]),
        );
        assert_eq!(fate(&ever, &[(taint, since), (other, later)]), at("2026-01-01T01:13:20Z"));
    }

    #[test]
    fn a_taint_without_a_time_counts_from_when_it_was_seen() {
        let node = |taints| {
            serde_json::from_value::<Node>(json!({"metadata": {"name": "n"}, "spec": {"taints": taints}}))
                .unwrap()
        };
        let seen = Seen::default();
        let plain = node(json!([{"key": "k", "value": "v", "effect": "NoExecute"}]));
        let (first, later): (Timestamp, Timestamp) =
            ("2026-01-01T06:00:00Z".parse().unwrap(), "2026-01-01T06:02:00Z".parse().unwrap());
        assert_eq!(seen.look(&plain, first)[0].1, first);
        assert_eq!(seen.look(&plain, later)[0].1, first);
        // A pod that has been there for long is not evicted at once.
        let old: Pod = serde_json::from_value(json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [], "tolerations": [{"key": "k", "operator": "Exists", "tolerationSeconds": 300}]}}))
        .unwrap();
        let due = Fate::Goes("2026-01-01T06:05:00Z".parse().unwrap());
        assert_eq!(fate(&old, &seen.look(&plain, later)), due);
        // Taken away and put there again it is a new one.
        assert!(seen.look(&node(json!([])), later).is_empty());
        assert_eq!(seen.look(&plain, later)[0].1, later);
    }
}
