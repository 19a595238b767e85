//! Deletes pods that nobody else will: those of nodes that are gone, those that were never bound and are to go,
//! those on nodes out of service, and the oldest of too many ended ones.
//! Watches pods and nodes.

use crate::common::{gone_is_fine, pods, scheduling};
use crate::node::disrupt;
use crate::{Context, Error, Outcome};
use api::ObjectKey;
use client::{Client, Lister, ObjectExt, Patch};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const NAME: &str = "pod-garbage-collector-controller";
/// A node must be gone for so long, since it may come back under its name.
const QUARANTINE: Duration = Duration::from_secs(40);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Counting ended pods is put off so long, so that many that end together are counted once.
const SETTLE: Duration = Duration::from_secs(20);

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    Pod(ObjectKey),
    Node(String),
    Ended,
}

struct Collector {
    client: Client,
    pods: Lister<Pod>,
    nodes: Lister<Node>,
    missing: Mutex<HashMap<String, Instant>>,
    most: usize,
}

/// Deletes pods.
pub async fn run(ctx: Context) {
    let client = ctx.client("pod-garbage-collector");
    let (pods, nodes) = (ctx.pods(), ctx.informers.informer::<Node>());
    let most = ctx.config.terminated_pods;
    let this = Arc::new(Collector {
        client,
        pods: pods.lister(),
        nodes: nodes.lister(),
        missing: Mutex::default(),
        most,
    });
    let known = nodes.lister();
    ctx.controller(NAME)
        .on(&pods, move |event, queue| {
            let pod = event.object();
            if event.is_deleted() {
                return;
            }
            let node = pods::node_name(pod);
            if !node.is_empty() && known.get("", node).is_none() {
                queue.add(Work::Node(node.into()));
            }
            if pod.is_deleting() {
                queue.add(Work::Pod(pod.key()));
            }
            if most > 0 && pods::is_terminal(pod) {
                queue.add_after(Work::Ended, SETTLE);
            }
        })
        .on(&nodes, |event, queue| queue.add(Work::Node(event.object().name().into())))
        .run(1, ctx.shutdown, move |work| {
            let this = this.clone();
            async move { this.reconcile(work).await }
        })
        .await;
}

impl Collector {
    async fn reconcile(&self, work: Work) -> Outcome {
        match work {
            Work::Pod(key) => {
                if let Some(pod) = self.pods.get(&key.namespace, &key.name).filter(|p| p.is_deleting()) {
                    let node = pods::node_name(&pod);
                    if node.is_empty() || (self.out_of_service(node) && !pods::is_ready(&pod)) {
                        self.delete(&pod, None).await?;
                    }
                }
                Ok(None)
            }
            Work::Node(name) => self.node(&name).await,
            Work::Ended => self.ended().await,
        }
    }

    fn out_of_service(&self, node: &str) -> bool {
        let Some(node) = self.nodes.get("", node) else { return false };
        let lost = node
            .status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten())
            .any(|c| c.type_ == "Ready" && c.status != "True");
        lost && scheduling::taints(&node).iter().any(|t| t.key == OUT_OF_SERVICE)
    }

    async fn node(&self, name: &str) -> Outcome {
        let missing = || self.missing.lock().unwrap_or_else(|e| e.into_inner());
        if self.nodes.get("", name).is_some() {
            missing().remove(name);
            if self.out_of_service(name) {
                for pod in self.pods.by_index(pods::BY_NODE, name).iter().filter(|p| p.is_deleting()) {
                    self.delete(pod, None).await?;
                }
            }
            return Ok(None);
        }
        let left = {
            let since = *missing().entry(name.into()).or_insert_with(Instant::now);
            QUARANTINE.saturating_sub(since.elapsed())
        };
        if !left.is_zero() {
            return Ok(Some(left));
        }
        missing().remove(name);
        // The cache may not know the node yet.
        if self.client.get_opt::<Node>("", name).await?.is_some() {
            return Ok(None);
        }
        for pod in self.pods.by_index(pods::BY_NODE, name) {
            self.delete(&pod, Some("PodGC: node no longer exists")).await?;
        }
        Ok(None)
    }

    async fn ended(&self) -> Outcome {
        let mut ended: Vec<_> =
            self.pods.list().into_iter().filter(|p| pods::is_terminal(p) && !p.is_deleting()).collect();
        let excess = ended.len().saturating_sub(self.most);
        ended.sort_by(|a, b| a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp));
        for pod in ended.iter().take(excess) {
            self.delete(pod, None).await?;
        }
        Ok(None)
    }

    /// Deletes a pod at once, after saying that it failed: whoever owns it has to know.
    async fn delete(&self, pod: &Pod, disrupted: Option<&str>) -> Result<(), Error> {
        tracing::info!("{NAME}: deleting {}", pod.key());
        if !pods::is_terminal(pod) {
            if let Some(message) = disrupted {
                disrupt(&self.client, pod, "DeletionByPodGC", message).await?;
            }
            let body = json!({"metadata": {"uid": pod.uid()}, "status": {"phase": "Failed"}});
            match self.client.patch_status::<Pod>(pod.namespace(), pod.name(), &Patch::Strategic(body)).await
            {
                Err(e) if e.is_not_found() => return Ok(()),
                other => drop(other?),
            }
        }
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(pod.uid().into()), resource_version: None }),
            ..DeleteOptions::default()
        };
        Ok(gone_is_fine(self.client.delete::<Pod>(pod.namespace(), pod.name(), &options).await)?)
    }
}
