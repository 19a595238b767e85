//! The Node object: made when it is missing, and its status kept true.

use super::{capacity, conditions, facts, health};
use crate::config::Config;
use crate::context::Context;
use crate::quantity;
use client::Client;
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeDaemonEndpoints, NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeSpec,
    NodeStatus, Taint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often a node that is not ready is looked at.
const UNWELL: Duration = Duration::from_secs(1);
const EXTERNAL_TAINT: &str = "node.cloudprovider.kubernetes.io/uninitialized";

/// Labels every node has.
pub fn own_labels(config: &Config) -> BTreeMap<String, String> {
    let arch = sys::node::kernel().architecture;
    let mut l: BTreeMap<String, String> = [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", &arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", &arch),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    l.extend(config.node_labels.clone());
    l
}

/// The node as it is first made.
fn initial(cx: &Context) -> Node {
    let mut taints = cx.config.register_with_taints.clone();
    if cx.config.external_cloud_provider {
        taints.push(Taint {
            key: EXTERNAL_TAINT.into(),
            value: Some("true".into()),
            effect: "NoSchedule".into(),
            time_added: None,
        });
    }
    let mut annotations = BTreeMap::new();
    if cx.config.attach_detach_by_controller {
        annotations
            .insert("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned());
    }
    if !cx.config.node_ips.is_empty() {
        let ips: Vec<String> = cx.config.node_ips.iter().map(ToString::to_string).collect();
        annotations.insert("alpha.kubernetes.io/provided-node-ip".into(), ips.join(","));
    }
    Node {
        metadata: ObjectMeta {
            name: Some(cx.config.node_name.clone()),
            labels: Some(own_labels(&cx.config)),
            annotations: Some(annotations),
            ..Default::default()
        },
        spec: Some(NodeSpec {
            taints: Some(taints).filter(|t| !t.is_empty()),
            provider_id: Some(cx.config.provider_id.clone()).filter(|p| !p.is_empty()),
            ..Default::default()
        }),
        status: None,
    }
}

/// What is seen of the node, apart from the API.
struct Sight {
    status: NodeStatus,
    wrong: Vec<String>,
}

async fn look(cx: &Context, server: &str) -> Sight {
    let (mut wrong, handlers) = health::check(&cx.runtime).await;
    let runtime = match cx.runtime.version().await {
        Ok(v) => {
            *cx.runtime_name.write().unwrap_or_else(PoisonError::into_inner) = v.runtime_name.clone();
            // Debian and others add their own words to the version
            format!("{}://{}", v.runtime_name, v.runtime_version.trim_start_matches('v'))
        }
        Err(_) => format!("{}://Unknown", cx.runtime_name()),
    };
    let images = cx.runtime.list_images().await.unwrap_or_default();
    let ips = facts::addresses(&cx.config, server);
    *cx.addresses.write().unwrap_or_else(PoisonError::into_inner) =
        ips.iter().map(ToString::to_string).collect();
    let measured = capacity::measure(&cx.config);
    *cx.allocatable.write().unwrap_or_else(PoisonError::into_inner) = measured.allocatable.clone();
    if quantity::of(Some(&measured.total), "cpu").is_zero() {
        wrong.push("the machine's processors could not be counted".into());
    }
    let handlers: Vec<_> = handlers
        .into_iter()
        .map(|h| NodeRuntimeHandler {
            name: Some(h.name),
            features: h.features.map(|f| NodeRuntimeHandlerFeatures {
                recursive_read_only_mounts: Some(f.recursive_read_only_mounts),
                user_namespaces: Some(f.user_namespaces),
            }),
        })
        .collect();
    let status = NodeStatus {
        addresses: Some(facts::node_addresses(&cx.config, &ips)),
        allocatable: Some(measured.allocatable),
        capacity: Some(measured.total),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(cx.config.port) }),
        }),
        images: Some(facts::images(images, cx.config.node_status_max_images)).filter(|i| !i.is_empty()),
        node_info: Some(facts::system_info(&runtime)),
        runtime_handlers: Some(handlers).filter(|h| !h.is_empty()),
        ..Default::default()
    };
    Sight { status, wrong }
}

/// Puts what is seen into the node's status; answers whether more than heartbeats changed, and whether the node
/// became ready or stopped being so.
fn merge(node: &mut Node, sight: &Sight, now: jiff::Timestamp) -> (bool, Option<bool>) {
    let old = node.status.clone().unwrap_or_default();
    let ready = |s: &NodeStatus| {
        s.conditions.iter().flatten().find(|c| c.type_ == "Ready").map(|c| c.status == "True")
    };
    let seen = &sight.status;
    let mut new = NodeStatus {
        addresses: seen.addresses.clone(),
        daemon_endpoints: seen.daemon_endpoints.clone(),
        images: seen.images.clone(),
        node_info: seen.node_info.clone(),
        runtime_handlers: seen.runtime_handlers.clone(),
        ..old.clone()
    };
    // resources that others put there stay
    for (own, theirs) in [(&mut new.capacity, &seen.capacity), (&mut new.allocatable, &seen.allocatable)] {
        own.get_or_insert_default().extend(theirs.clone().unwrap_or_default());
    }
    conditions::update(new.conditions.get_or_insert_default(), &sight.wrong, now);
    let mut without = new.clone();
    without.conditions = old.conditions.clone();
    let lists =
        (old.conditions.as_deref().unwrap_or_default(), new.conditions.as_deref().unwrap_or_default());
    let changed = without != old || conditions::differ(lists.0, lists.1);
    let turned = ready(&new).filter(|r| ready(&old) != Some(*r));
    node.status = Some(new);
    (changed, turned)
}

/// Keeps the Node object true, for as long as it is polled. `now` has it look at once; `registered` is told
/// when the node is there.
pub async fn keep(
    cx: Arc<Context>,
    client: Client,
    server: String,
    poke: Arc<Notify>,
    registered: CancellationToken,
) {
    let mut tick = tokio::time::interval(cx.config.node_status_update_frequency);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known: Option<Node> = None;
    let mut reported = Instant::now();
    let mut pause = Duration::from_millis(200);
    let mut well = true;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = poke.notified() => {}
            // what is wrong is looked at more often, so that the node is back as soon as it is well
            () = tokio::time::sleep(UNWELL), if !well => {}
        }
        let sight = look(&cx, &server).await;
        well = sight.wrong.is_empty();
        loop {
            match step(&cx, &client, &mut known, &sight, &mut reported).await {
                Ok(()) => {
                    registered.cancel();
                    pause = Duration::from_millis(200);
                    break;
                }
                Err(e) => {
                    let conflict = e.is_conflict();
                    known = None;
                    if !conflict {
                        warn!(error = %e, "the node's status could not be sent");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(Duration::from_secs(7));
                    }
                }
            }
        }
    }
}

async fn step(
    cx: &Context,
    client: &Client,
    known: &mut Option<Node>,
    sight: &Sight,
    reported: &mut Instant,
) -> Result<(), client::Error> {
    let name = &cx.config.node_name;
    let mut node = match known.take() {
        Some(n) => n,
        None => match client.get_opt::<Node>("", name).await? {
            Some(n) => brought_up_to_date(cx, client, n).await?,
            None if !cx.config.register_node => return Ok(()),
            None => {
                let mut node = initial(cx);
                // with its status from the start, one round trip earlier
                merge(&mut node, sight, jiff::Timestamp::now());
                match client.create(&node).await {
                    Ok(n) => {
                        info!(node = name, "node registered");
                        n
                    }
                    Err(e) if e.is_already_exists() => client.get::<Node>("", name).await?,
                    Err(e) => return Err(e),
                }
            }
        },
    };
    if let Some(labels) = &node.metadata.labels {
        cx.labels.write().unwrap_or_else(PoisonError::into_inner).clone_from(labels);
    }
    let (changed, turned) = merge(&mut node, sight, jiff::Timestamp::now());
    if changed || reported.elapsed() >= cx.config.node_status_report_frequency {
        node = client.update_status(&node).await?;
        *reported = Instant::now();
    }
    if let Some(ready) = turned {
        let word = if ready { "NodeReady" } else { "NodeNotReady" };
        info!(node = name, ready, wrong = ?sight.wrong, "node readiness changed");
        cx.events.node("Normal", word, &format!("Node {name} status is now: {word}"));
    }
    *known = Some(node);
    Ok(())
}

/// Labels and annotations that the node should have and lacks.
async fn brought_up_to_date(cx: &Context, client: &Client, mut node: Node) -> Result<Node, client::Error> {
    let want = initial(cx);
    let before = node.clone();
    let m = &mut node.metadata;
    m.labels.get_or_insert_default().extend(want.metadata.labels.unwrap_or_default());
    m.annotations.get_or_insert_default().extend(want.metadata.annotations.unwrap_or_default());
    if node == before { Ok(node) } else { client.update(&node).await }
}
