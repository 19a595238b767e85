//! Taint-based eviction: pods that don't tolerate a NoExecute taint go, at once or when their time is up.
//! Watches pods and nodes; a node's change of taints leads to all its pods.

use crate::common::{delete_uid, gone_is_fine, pods, scheduling};
use crate::{Context, Error, Outcome};
use api::time;
use client::{Client, Controller, EventRecorder, EventType, ObjectExt, Patch, object_ref};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "taint-eviction-controller";

/// Evicts pods.
pub async fn run(ctx: Context) {
    let client = ctx.client("node-controller");
    let events = ctx.events(&client, NAME);
    let (nodes, pods) = (ctx.informers.informer::<Node>(), ctx.pods());
    let (node_list, pod_list, by_node) = (nodes.lister(), pods.lister(), pods.lister());
    Controller::new(NAME)
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
            let before = event.old().map(|o| executing(o)).unwrap_or_default();
            if !event.is_deleted() && before != executing(node) {
                by_node.by_index(pods::BY_NODE, node.name()).iter().for_each(|p| queue.add(p.key()));
            }
        })
        .run(ctx.workers(NAME, 8), ctx.shutdown, move |key| {
            let (client, events) = (client.clone(), events.clone());
            let pod = pod_list.get(&key.namespace, &key.name).filter(|p| !p.is_deleting());
            let node = pod.as_ref().and_then(|p| node_list.get("", pods::node_name(p)));
            async move {
                match pod.zip(node) {
                    Some((pod, node)) => reconcile(&client, &events, &pod, &node).await,
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

/// A toleration's seconds count from when the taint came, or the pod; the shortest wins.
fn fate(pod: &Pod, taints: &[Taint]) -> Fate {
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    if taints.is_empty() {
        return Fate::Stays;
    }
    if scheduling::untolerated(taints, tolerations, &["NoExecute"]).is_some() {
        return Fate::Goes(Timestamp::MIN);
    }
    let used = tolerations.iter().filter(|t| taints.iter().any(|taint| scheduling::tolerates(t, taint)));
    let Some(seconds) = used.filter_map(|t| t.toleration_seconds).min() else { return Fate::Stays };
    let Ok(seconds) = u64::try_from(seconds) else { return Fate::Goes(Timestamp::MIN) };
    let bound = pods::condition(pod, "PodScheduled").and_then(|c| c.last_transition_time.as_ref());
    let there = bound.or(pod.metadata.creation_timestamp.as_ref()).map(|t| t.0);
    let tainted = taints.iter().filter_map(|t| t.time_added.as_ref()).map(|t| t.0).max();
    let start = there.max(tainted).unwrap_or(Timestamp::MAX);
    Fate::Goes(time::later(start, Duration::from_secs(seconds)))
}

async fn reconcile(client: &Client, events: &EventRecorder, pod: &Arc<Pod>, node: &Node) -> Outcome {
    let Fate::Goes(at) = fate(pod, &executing(node)) else { return Ok(None) };
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
                at("2026-01-01T01:01:00Z"),
            ),
            (
                pod(old, json!([{"key": "k", "operator": "Exists", "tolerationSeconds": -1}])),
                Fate::Goes(Timestamp::MIN),
            ),
        ] {
            assert_eq!(fate(&pod, std::slice::from_ref(&taint)), want);
        }
        assert_eq!(fate(&pod(old, json!([])), &[]), Fate::Stays);
    }
}
