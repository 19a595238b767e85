//! The Node object: made when it is missing, and its status kept true.

use super::{capacity, conditions, facts, health};
use crate::config::Config;
use crate::context::Context;
use crate::quantity;
use client::Client;
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeDaemonEndpoints, NodeFeatures, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus, NodeSystemInfo, Taint,
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
    /// Absent when the machine could not be looked at.
    status: Option<NodeStatus>,
    wrong: Vec<String>,
}

async fn look(cx: &Context, server: &str) -> Sight {
    let (mut wrong, abilities, handlers) = health::check(&cx.runtime).await;
    if let Some(a) = abilities {
        *cx.abilities.write().unwrap_or_else(PoisonError::into_inner) = a;
    }
    let runtime = match cx.runtime.version().await {
        Ok(v) => {
            *cx.runtime_name.write().unwrap_or_else(PoisonError::into_inner) = v.runtime_name.clone();
            // Debian and others add their own words to the version
            format!("{}://{}", v.runtime_name, v.runtime_version.trim_start_matches('v'))
        }
        Err(_) => format!("{}://Unknown", cx.runtime_name()),
    };
    // a runtime that cannot tell has its images all the same
    let images = cx.runtime.list_images().await.ok();
    let (config, to) = (cx.config.clone(), server.to_owned());
    let looked = crate::blocking::quick(move || {
        (facts::addresses(&config, &to), capacity::measure(&config), facts::system_info(""))
    });
    let Ok((ips, measured, info)) = looked.await else {
        wrong.push("the machine could not be looked at".into());
        return Sight { status: None, wrong };
    };
    *cx.addresses.write().unwrap_or_else(PoisonError::into_inner) =
        ips.iter().map(ToString::to_string).collect();
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
        images: images.map(|i| facts::images(i, cx.config.node_status_max_images)),
        node_info: Some(NodeSystemInfo { container_runtime_version: runtime, ..info }),
        features: Some(NodeFeatures {
            supplemental_groups_policy: Some(cx.abilities().supplemental_groups_policy),
        }),
        runtime_handlers: Some(handlers).filter(|h| !h.is_empty()),
        ..Default::default()
    };
    Sight { status: Some(status), wrong }
}

/// Puts what is seen into the node's status; answers whether more than heartbeats changed, and whether the node
/// became ready or stopped being so.
fn merge(
    node: &mut Node,
    sight: &Sight,
    external: Option<bool>,
    now: jiff::Timestamp,
) -> (bool, Option<bool>) {
    let old = node.status.clone().unwrap_or_default();
    let ready = |s: &NodeStatus| {
        s.conditions.iter().flatten().find(|c| c.type_ == "Ready").map(|c| c.status == "True")
    };
    let mut new = old.clone();
    let none = NodeStatus::default();
    let seen = sight.status.as_ref().unwrap_or(&none);
    if sight.status.is_some() {
        new = NodeStatus {
            addresses: addresses(&old, seen, external),
            daemon_endpoints: seen.daemon_endpoints.clone(),
            images: seen.images.clone().or_else(|| old.images.clone()).filter(|i| !i.is_empty()),
            node_info: seen.node_info.clone(),
            runtime_handlers: seen.runtime_handlers.clone(),
            features: seen.features.clone(),
            ..new
        };
    }
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

/// The node's addresses. With a cloud's own controller they are that controller's (`external` says whether the operator
/// gave one for it to go by): the kubelet only says who the node is until it has spoken.
fn addresses(old: &NodeStatus, seen: &NodeStatus, external: Option<bool>) -> Option<Vec<NodeAddress>> {
    match (external, old.addresses.as_ref().filter(|a| !a.is_empty())) {
        (None, _) => seen.addresses.clone(),
        (Some(_), Some(theirs)) => Some(theirs.clone()),
        (Some(true), None) => seen.addresses.clone(),
        (Some(false), None) => {
            seen.addresses.clone().map(|list| list.into_iter().filter(|a| a.type_ == "Hostname").collect())
        }
    }
}

/// For so long the loop may be silent.
const BEAT: Duration = Duration::from_secs(600);

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
        loop {
            cx.health.beat("node status", BEAT);
            // what is told is what is true now, not before the last failure
            let sight = look(&cx, &server).await;
            well = sight.wrong.is_empty();
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

fn external(config: &Config) -> Option<bool> {
    config.external_cloud_provider.then(|| config.node_ips.iter().any(|ip| !ip.is_unspecified()))
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
                merge(&mut node, sight, external(&cx.config), jiff::Timestamp::now());
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
    let (changed, turned) = merge(&mut node, sight, external(&cx.config), jiff::Timestamp::now());
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_clouds_addresses_stay() {
        let status = |list: Value| -> NodeStatus {
            serde_json::from_value(json!({"addresses": list})).unwrap_or_else(|e| panic!("{e}"))
        };
        let own = status(
            json!([{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "n"}]),
        );
        let cloud = status(json!([{"type": "ExternalIP", "address": "1.2.3.4"}]));
        let empty = status(json!([]));
        let count = |old: &NodeStatus, external| {
            addresses(old, &own, external)
                .unwrap_or_default()
                .iter()
                .map(|a| a.type_.clone())
                .collect::<Vec<_>>()
                .join(",")
        };
        assert_eq!(count(&cloud, None), "InternalIP,Hostname");
        assert_eq!(count(&cloud, Some(true)), "ExternalIP");
        assert_eq!(count(&empty, Some(true)), "InternalIP,Hostname");
        assert_eq!(count(&empty, Some(false)), "Hostname");
    }

    #[test]
    fn images_stay_when_the_runtime_cannot_tell() {
        let mut node: Node = serde_json::from_value(
            json!({"metadata": {"name": "n"}, "status": {"images": [{"names": ["a"]}]}}),
        )
        .unwrap_or_else(|e| panic!("{e}"));
        let sight = Sight { status: Some(NodeStatus::default()), wrong: vec!["down".into()] };
        merge(&mut node, &sight, None, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(node.status.and_then(|s| s.images).map(|i| i.len()), Some(1));
    }
}
