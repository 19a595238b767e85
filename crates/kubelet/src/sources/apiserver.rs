//! The pods that the API server has bound to this node.

use crate::context::Context;
use crate::objects;
use crate::pod::PodExt;
use crate::pods::{Pods, Source};
use client::{Event, Informers, Scope};
use k8s_openapi::api::core::v1::Pod;
use std::collections::HashSet;
use std::sync::Arc;
use tracing::debug;

/// Follows them for as long as it is polled. `sources` are all there are, for telling orphans.
pub async fn follow(cx: Arc<Context>, pods: Arc<Pods>, informers: Informers, sources: Vec<Source>) {
    let scope =
        Scope { field_selector: format!("spec.nodeName={}", cx.config.node_name), ..Scope::default() };
    let informer = informers.informer_with::<Pod>(scope);
    let mut changes = informer.subscribe();
    informer.synced().await;
    let mut first: HashSet<String> = informer.lister().list().iter().map(|p| p.uid().to_owned()).collect();
    let mut spoken = first.is_empty();
    if spoken {
        pods.mark_ready(Source::Api);
        pods.adopt_orphans(&sources).await;
    }
    loop {
        let event = changes.next().await;
        take(&cx, &pods, &event);
        if !spoken {
            first.remove(event.object().uid());
            // once all that was there at first has been taken, what else runs is nobody's
            if first.is_empty() {
                spoken = true;
                pods.mark_ready(Source::Api);
                pods.adopt_orphans(&sources).await;
            }
        }
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
pub fn refresh_on_change(cx: &Arc<Context>, pods: &Arc<Pods>) {
    let pods = Arc::downgrade(pods);
    cx.objects.on_change(move |reference| {
        if let Some(pods) = pods.upgrade() {
            pods.refresh(|p| objects::references(p).contains(reference));
        }
    });
}
