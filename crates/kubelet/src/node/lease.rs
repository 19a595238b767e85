//! The node's lease: the sign of life that costs the API least.

use client::Client;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use std::time::Duration;
use tracing::warn;

const NAMESPACE: &str = "kube-node-lease";
/// A renewal is tried again so soon.
const AGAIN: Duration = Duration::from_millis(500);

/// Renews the lease four times within its duration, for as long as it is polled.
pub async fn keep(client: Client, node: String, duration: Duration) {
    let mut held: Option<Lease> = None;
    let mut tick = tokio::time::interval(duration / 4);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let mut tries = 0;
        loop {
            match renew(&client, &node, duration, held.take()).await {
                Ok(lease) => {
                    held = Some(lease);
                    break;
                }
                Err(e) => {
                    tries += 1;
                    if tries >= 5 {
                        warn!(error = %e, "the node's lease could not be renewed");
                        break;
                    }
                    tokio::time::sleep(AGAIN * tries).await;
                }
            }
        }
    }
}

async fn renew(
    client: &Client,
    node: &str,
    duration: Duration,
    held: Option<Lease>,
) -> Result<Lease, client::Error> {
    let lease = match held {
        Some(l) => Some(l),
        None => client.get_opt::<Lease>(NAMESPACE, node).await?,
    };
    let now = Some(MicroTime(jiff::Timestamp::now()));
    match lease {
        Some(mut l) => {
            let spec = l.spec.get_or_insert_default();
            spec.holder_identity = Some(node.to_owned());
            spec.lease_duration_seconds = i32::try_from(duration.as_secs()).ok();
            spec.renew_time = now;
            if l.metadata.owner_references.is_none() {
                l.metadata.owner_references = owner(client, node).await;
            }
            client.update(&l).await
        }
        None => {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(node.to_owned()),
                    namespace: Some(NAMESPACE.into()),
                    owner_references: owner(client, node).await,
                    ..Default::default()
                },
                spec: Some(LeaseSpec {
                    holder_identity: Some(node.to_owned()),
                    lease_duration_seconds: i32::try_from(duration.as_secs()).ok(),
                    renew_time: now,
                    ..Default::default()
                }),
            };
            client.create(&lease).await
        }
    }
}

/// The lease goes when the node does.
async fn owner(client: &Client, node: &str) -> Option<Vec<OwnerReference>> {
    let n = client.get_opt::<Node>("", node).await.ok().flatten()?;
    Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.into(),
        uid: n.metadata.uid?,
        controller: None,
        block_owner_deletion: None,
    }])
}
