//! Tells kubelets, by an annotation of their nodes, how long they may use Secrets and ConfigMaps they have read: the
//! more nodes there are, the longer.
//! Watches nodes.

use crate::Context;
use client::{ObjectExt, Patch};
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError};

const NAME: &str = "ttl-controller";
const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";
/// So many nodes at least and at most, so many seconds. They overlap, so that a node more or less does not matter.
const STEPS: [(usize, usize, u32); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

/// The step for a number of nodes, coming from another.
fn step(mut at: usize, nodes: usize) -> usize {
    while nodes > STEPS[at].1 {
        at += 1;
    }
    while nodes < STEPS[at].0 {
        at -= 1;
    }
    at
}

/// Annotates nodes.
pub async fn run(ctx: Context) {
    let client = ctx.client(NAME);
    let nodes = ctx.informers.informer::<Node>();
    let (lister, all) = (nodes.lister(), nodes.lister());
    let at = Arc::new(Mutex::new(0));
    let now = at.clone();
    ctx.controller(NAME)
        .on(&nodes, move |event, queue| {
            let mut at = at.lock().unwrap_or_else(PoisonError::into_inner);
            let next = step(*at, all.len());
            if next != *at {
                *at = next;
                all.list().iter().for_each(|n| queue.add(n.key()));
            }
            let said = |n: &Node| n.annotation(ANNOTATION).map(String::from);
            if !event.is_deleted() && event.old().is_none_or(|o| said(o) != said(event.object())) {
                queue.add(event.object().key());
            }
        })
        .run(ctx.workers(NAME, 5), ctx.shutdown, move |key| {
            let seconds = STEPS[*now.lock().unwrap_or_else(PoisonError::into_inner)].2.to_string();
            let (client, node) = (client.clone(), lister.get("", &key.name));
            async move {
                if node.is_some_and(|n| n.annotation(ANNOTATION) != Some(&seconds)) {
                    let body = json!({"metadata": {"annotations": {ANNOTATION: seconds}}});
                    match client.patch::<Node>("", &key.name, &Patch::Strategic(body)).await {
                        Err(e) if e.is_not_found() => {}
                        other => drop(other?),
                    }
                }
                crate::Outcome::Ok(None)
            }
        })
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_clusters_read_less_often() {
        for (from, nodes, want) in [
            (0, 100, 0),
            (0, 101, 1),
            (1, 95, 1),
            (1, 89, 0),
            (0, 5000, 4),
            (4, 1800, 4),
            (4, 1799, 3),
            (4, 0, 0),
        ] {
            assert_eq!(step(from, nodes), want, "{from} {nodes}");
        }
    }
}
