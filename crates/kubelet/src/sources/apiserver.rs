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
    // at first those that run here already: they have their room, whatever the others ask for
    let mut first: Vec<Event<Pod>> = std::iter::from_fn(|| changes.try_next()).collect();
    first.sort_by_key(|e| {
        let pod = e.object();
        (pod.phase() == "Pending", pod.metadata.creation_timestamp.as_ref().map(|t| t.0))
    });
    for event in first {
        fresh_labels(&cx, &pods, &client, &event).await;
        take(&cx, &pods, &event);
    }
    // all that was there has been taken, what else runs is nobody's
    pods.mark_ready(Source::Api);
    loop {
        cx.health.beat("pods of the API server", BEAT);
        let Ok(event) = tokio::time::timeout(BEAT / 4, changes.next()).await else { continue };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// An API server that knows one node; answers how often it was asked.
    async fn api(node: serde_json::Value) -> Result<(Client, Arc<AtomicUsize>), Box<dyn std::error::Error>> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let client = Client::new(client::Config::new(&format!("http://{}", listener.local_addr()?)))?;
        let asked = Arc::<AtomicUsize>::default();
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut c, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    match c.read_u8().await {
                        Ok(b) => request.push(b),
                        Err(_) => break,
                    }
                }
                count.fetch_add(1, Ordering::Relaxed);
                let body = node.to_string();
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                let _ = c.write_all((head + &body).as_bytes()).await;
            }
        });
        Ok((client, asked))
    }

    #[tokio::test]
    async fn a_label_given_a_moment_ago_counts() -> Result<(), Box<dyn std::error::Error>> {
        let fake = Fake::start();
        let cx = fake.context();
        let pods = Pods::new(cx.clone(), vec![Source::Api]);
        let node =
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": {"x": "y"}}});
        let (client, asked) = api(node).await?;
        let pod = |selector: serde_json::Value| -> Result<Event<Pod>, serde_json::Error> {
            let pod = json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [], "nodeSelector": selector}});
            Ok(Event::Added(Arc::new(serde_json::from_value(pod)?)))
        };
        fresh_labels(&cx, &pods, &client, &pod(json!({}))?).await;
        assert_eq!(asked.load(Ordering::Relaxed), 0, "who does not ask for labels costs nothing");
        let fresh = pod(json!({"x": "y"}))?;
        assert!(!crate::admit::selects(fresh.object(), &cx.node_facts()));
        fresh_labels(&cx, &pods, &client, &fresh).await;
        assert!(crate::admit::selects(fresh.object(), &cx.node_facts()));
        fresh_labels(&cx, &pods, &client, &fresh).await;
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        Ok(())
    }
}
