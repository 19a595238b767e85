//! Mirrors: what the API shows of static pods. They are made and deleted to follow the pods on the node; what
//! the API does to them changes nothing here.

use crate::pod::{HASH_ANNOTATION, MIRROR_ANNOTATION, PodExt};
use client::Client;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, OwnerReference, Preconditions};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tracing::{info, warn};

/// How long to wait after a failure.
const AGAIN: Duration = Duration::from_secs(2);

/// The static pods of this node, and their mirrors in the API.
#[derive(Default)]
pub struct Mirrors {
    wanted: Mutex<HashMap<api::ObjectKey, Arc<Pod>>>,
    there: Mutex<HashMap<api::ObjectKey, Arc<Pod>>>,
    work: Notify,
}

impl Mirrors {
    /// The mirror of a static pod.
    pub fn get(&self, key: &api::ObjectKey) -> Option<Arc<Pod>> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Takes the static pods there should be mirrors of.
    pub fn want(&self, pods: &[Arc<Pod>]) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) =
            pods.iter().map(|p| (p.key(), p.clone())).collect();
        self.work.notify_one();
    }

    /// A mirror is in the API.
    pub fn seen(&self, mirror: &Arc<Pod>) {
        self.there.lock().unwrap_or_else(PoisonError::into_inner).insert(mirror.key(), mirror.clone());
        self.work.notify_one();
    }

    /// A mirror is not in the API any more.
    pub fn gone(&self, key: &api::ObjectKey, uid: &str) {
        let mut there = self.there.lock().unwrap_or_else(PoisonError::into_inner);
        if there.get(key).is_some_and(|m| m.uid() == uid) {
            there.remove(key);
        }
        self.work.notify_one();
    }

    /// Something they need is there now: try again.
    pub fn poke(&self) {
        self.work.notify_one();
    }

    /// Makes and deletes mirrors, for as long as it is polled.
    pub async fn run(&self, client: &Client, node: &str) {
        loop {
            let mut failed = false;
            let (wanted, there) = {
                let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
                (wanted, self.there.lock().unwrap_or_else(PoisonError::into_inner).clone())
            };
            let keys: HashSet<_> = wanted.keys().chain(there.keys()).cloned().collect();
            for key in keys {
                let done = match (wanted.get(&key), there.get(&key)) {
                    (Some(pod), None) => make(client, pod, node).await,
                    (Some(pod), Some(mirror)) if stands_for(mirror, pod) && !mirror.is_deleted() => Ok(None),
                    (_, Some(mirror)) => delete(client, mirror).await.map(|()| None),
                    (None, None) => Ok(None),
                };
                match done {
                    Ok(Some(made)) => self.seen(&Arc::new(made)),
                    Ok(None) => {}
                    Err(e) => {
                        warn!(pod = %key, error = %e, "mirror pod is not as it should be");
                        failed = true;
                    }
                }
            }
            tokio::select! {
                () = self.work.notified() => {}
                () = tokio::time::sleep(AGAIN), if failed => {}
            }
        }
    }
}

/// Whether a mirror was made from this very manifest.
fn stands_for(mirror: &Pod, pod: &Pod) -> bool {
    mirror.annotations().get(MIRROR_ANNOTATION) == pod.annotations().get(HASH_ANNOTATION)
}

async fn make(client: &Client, pod: &Pod, node: &str) -> Result<Option<Pod>, client::Error> {
    let owner = client.get::<Node>("", node).await?;
    let mut mirror = pod.clone();
    let hash = pod.annotations().get(HASH_ANNOTATION).cloned().unwrap_or_default();
    let m = &mut mirror.metadata;
    m.uid = None;
    m.annotations.get_or_insert_default().insert(MIRROR_ANNOTATION.into(), hash);
    // a node may only make pods that belong to it
    m.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.into(),
        uid: owner.metadata.uid.unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    mirror.status = None;
    match client.create(&mirror).await {
        Ok(made) => {
            info!(pod = %pod.key(), "mirror pod made");
            Ok(Some(made))
        }
        Err(e) if e.is_already_exists() => Ok(None),
        Err(e) => Err(e),
    }
}

async fn delete(client: &Client, mirror: &Pod) -> Result<(), client::Error> {
    let o = DeleteOptions {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: mirror.metadata.uid.clone(), resource_version: None }),
        ..Default::default()
    };
    match client.delete::<Pod>(mirror.namespace(), mirror.name(), &o).await {
        Err(e) if !e.is_not_found() && !e.is_conflict() => Err(e),
        _ => Ok(()),
    }
}
