//! The pods that the API server has bound to this node.

use crate::context::Context;
use crate::objects;
use crate::pod::PodExt;
use crate::pods::{Pods, Source};
use client::{Client, Event, Informers, Scope};
use k8s_openapi::api::core::v1::{Node, Pod};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tracing::{debug, warn};

/// For so long the loop may be silent.
const BEAT: Duration = Duration::from_secs(120);

/// Follows them for as long as it is polled.
pub(crate) async fn follow(cx: Arc<Context>, pods: Arc<Pods>, informers: Informers, client: Client) {
    let scope =
        Scope { field_selector: format!("spec.nodeName={}", cx.config.node_name), ..Scope::default() };
    let informer = informers.informer_with::<Pod>(scope);
    let mut changes = informer.subscribe();
    informer.synced().await;
    let mut spoken = false;
    loop {
        cx.health.beat("pods of the API server", BEAT);
        let event = match changes.try_next() {
            Some(event) => event,
            None => {
                if !spoken {
                    // all that was there at first has been taken, what else runs is nobody's
                    spoken = true;
                    pods.mark_ready(Source::Api);
                }
                match tokio::time::timeout(BEAT / 4, changes.next()).await {
                    Ok(event) => event,
                    Err(_) => continue,
                }
            }
        };
        fresh_labels(&cx, &pods, &client, &event).await;
        take(&cx, &pods, &event);
    }
}

/// A pod that the node's labels would turn away for good is held against those that the API server has now: they may
/// have been given a moment ago.
async fn fresh_labels(cx: &Context, pods: &Pods, client: &Client, event: &Event<Pod>) {
    let pod = event.object();
    let judged = !event.is_deleted() && !pod.is_mirror() && pods.is_new(pod.uid());
    if !judged || crate::admit::selects(pod, &cx.node_facts()) {
        return;
    }
    let name = &cx.config.node_name;
    match tokio::time::timeout(Duration::from_secs(5), client.get_opt::<Node>("", name)).await {
        Ok(Ok(Some(node))) => {
            *cx.labels.write().unwrap_or_else(PoisonError::into_inner) =
                node.metadata.labels.unwrap_or_default();
        }
        Ok(Ok(None)) => {}
        Ok(Err(e)) => warn!(error = %e, "the node's labels could not be read anew"),
        Err(_) => warn!("the node's labels could not be read anew in time"),
    }
}

fn take(cx: &Context, pods: &Pods, event: &Event<Pod>) {
    // one that was deleted and made again under the same name comes as a change of both
    if let Some(old) = event.old()
        && !event.is_deleted()
        && old.uid() != event.object().uid()
    {
        gone(cx, pods, old);
    }
    let pod = event.object();
    if event.is_deleted() {
        return gone(cx, pods, pod);
    }
    if pod.is_mirror() {
        cx.mirrors.seen(pod);
        cx.status.mirrored(&pod.key(), pod);
        return;
    }
    debug!(pod = %pod.key(), version = pod.metadata.resource_version, "pod from the API");
    cx.status.observed(pod);
    pods.update(Source::Api, pod.clone());
}

fn gone(cx: &Context, pods: &Pods, pod: &Arc<Pod>) {
    if pod.is_mirror() {
        cx.mirrors.gone(&pod.key(), pod.uid());
    } else {
        pods.remove(pod.uid());
    }
}

/// Has pods brought up to date that refer to a config map or secret when it changes.
pub(crate) fn refresh_on_change(cx: &Arc<Context>, pods: &Arc<Pods>) {
    let pods = Arc::downgrade(pods);
    cx.objects.on_change(move |reference| {
        if let Some(pods) = pods.upgrade() {
            pods.refresh(|p| objects::references(p).contains(reference));
        }
    });
}
