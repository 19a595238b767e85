//! The garbage collector: deletes objects whose owners have gone, lets owners wait for their dependents
//! (foreground) and cuts dependents loose (orphan).
//! Watches the metadata of everything that can be deleted; definitions of new resources lead to looking anew
//! at what there is.

mod graph;

use crate::common::gone_is_fine;
use crate::{Context, Error, Outcome};
use client::{
    Client, Controller, Discovery, Informer, Meta, ObjectExt, PartialObject, Patch, ResourceId, WorkQueue,
};
use graph::{FOREGROUND, Graph, Node, ORPHAN, Work};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, OwnerReference, Preconditions};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

const NAME: &str = "garbage-collector-controller";
/// How often to look for new resources whose definitions we are not told of.
const REDISCOVER: Duration = Duration::from_secs(60);
/// After a definition changed it takes a moment until its resource is served.
const SETTLE: Duration = Duration::from_millis(500);

struct Collector {
    client: Client,
    graph: Graph,
    queue: WorkQueue<Work>,
    discovery: RwLock<Discovery>,
}

struct Monitor {
    informer: Informer<PartialObject>,
    _stop: DropGuard,
}

/// Collects garbage.
pub async fn run(ctx: Context) {
    let client = ctx.client("generic-garbage-collector");
    let controller = Controller::<Work>::new(NAME);
    let this = Arc::new(Collector {
        client,
        graph: Graph::default(),
        queue: controller.queue().clone(),
        discovery: RwLock::default(),
    });
    let mut monitors = HashMap::new();
    while let Err(e) = this.monitor(&ctx, &mut monitors).await {
        tracing::warn!("{NAME}: {e}");
        if ctx.shutdown.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await.is_none() {
            return;
        }
    }
    let controller = monitors.values().fold(controller, |c, m| c.wait_for(&m.informer));
    let watching = tokio::spawn(keep_up(this.clone(), ctx.clone(), monitors));
    controller
        .run(ctx.workers(NAME, 20), ctx.shutdown, move |work| {
            let this = this.clone();
            async move {
                match work {
                    Work::Check(uid) => this.check(&uid).await,
                    Work::Orphan(uid) => this.orphan(&uid).await,
                }
            }
        })
        .await;
    watching.abort();
}

type Monitors = HashMap<ResourceId, Monitor>;

/// Follows the coming and going of resources.
async fn keep_up(this: Arc<Collector>, ctx: Context, mut monitors: Monitors) {
    let changed = Arc::new(tokio::sync::Notify::new());
    for m in monitors
        .iter()
        .filter(|(r, _)| matches!(r.plural.as_str(), "customresourcedefinitions" | "apiservices"))
        .map(|(_, m)| m)
    {
        let changed = changed.clone();
        m.informer.on(move |_| changed.notify_one());
    }
    loop {
        let _ = tokio::time::timeout(REDISCOVER, changed.notified()).await;
        tokio::time::sleep(SETTLE).await;
        if let Err(e) = this.monitor(&ctx, &mut monitors).await {
            tracing::warn!("{NAME}: {e}");
        }
    }
}

impl Collector {
    /// Begins to watch what is new and stops to watch what is served no more.
    async fn monitor(self: &Arc<Self>, ctx: &Context, monitors: &mut Monitors) -> Result<(), Error> {
        let found = self.client.discover().await?;
        let wanted: Vec<ResourceId> = found
            .preferred()
            .into_iter()
            .filter(|r| r.can(&["list", "watch", "delete"]) && r.resource.plural != "events")
            .map(|r| r.resource.clone())
            .collect();
        // A group that could not be read is likely to come back: its resources stay.
        let unread =
            |r: &ResourceId| found.failed.iter().any(|(gv, _)| *gv == format!("{}/{}", r.group, r.version));
        monitors.retain(|r, _| wanted.contains(r) || unread(r));
        for resource in wanted {
            if monitors.contains_key(&resource) {
                continue;
            }
            let stop = CancellationToken::new();
            let informer = ctx.informers.metadata(&resource, stop.clone());
            let (this, id) = (self.clone(), Arc::new(resource.clone()));
            informer
                .on(move |event| this.graph.observe(&id, event).into_iter().for_each(|w| this.queue.add(w)));
            monitors.insert(resource, Monitor { informer, _stop: stop.drop_guard() });
        }
        *self.discovery.write().unwrap_or_else(|e| e.into_inner()) = found;
        tracing::debug!("{NAME}: {} resources, {} objects", monitors.len(), self.graph.len());
        Ok(())
    }

    fn enqueue(&self, work: Vec<Work>) {
        work.into_iter().for_each(|w| self.queue.add(w));
    }

    /// The object as it is now; none if it is gone or another has its name.
    async fn live(&self, uid: &str, node: &Node) -> Result<Option<PartialObject>, Error> {
        match self.client.get_metadata(&node.resource, &node.namespace, &node.name).await {
            Ok(found) if found.uid() == uid => Ok(Some(found)),
            Ok(_) => Ok(None),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    async fn check(&self, uid: &str) -> Outcome {
        let Some(node) = self.graph.get(uid) else { return Ok(None) };
        if node.deleting && !node.foreground {
            return Ok(None);
        }
        let Some(live) = self.live(uid, &node).await? else {
            self.enqueue(self.graph.forget(uid));
            return Ok(None);
        };
        if live.is_deleting() && !node.foreground {
            return Ok(None);
        }
        if node.foreground {
            return self.finish_foreground(uid, &node, &live).await;
        }
        let owners = live.metadata.owner_references.clone().unwrap_or_default();
        if owners.is_empty() {
            return Ok(None);
        }
        let (mut solid, mut gone, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for owner in &owners {
            match self.owner(owner, &node).await? {
                Owner::Solid => solid.push(owner),
                Owner::Gone => gone.push(owner),
                Owner::Waiting => waiting.push(owner),
            }
        }
        if !solid.is_empty() {
            if solid.len() < owners.len() {
                let kept: Vec<OwnerReference> = solid.into_iter().cloned().collect();
                self.set_owners(&node, &live, &kept).await?;
            }
            return Ok(None);
        }
        let dependents = self.graph.dependents(uid);
        if !waiting.is_empty() && !dependents.is_empty() {
            if dependents.iter().any(|(_, d)| d.foreground) {
                // A circle in which each waits for the next: stop blocking.
                let freed =
                    owners.iter().map(|o| OwnerReference { block_owner_deletion: Some(false), ..o.clone() });
                self.set_owners(&node, &live, &freed.collect::<Vec<_>>()).await?;
            }
            return self.delete(&node, &live, "Foreground").await;
        }
        let has = |f: &str| live.metadata.finalizers.iter().flatten().any(|x| x == f);
        let policy = if has(ORPHAN) {
            "Orphan"
        } else if has(FOREGROUND) {
            "Foreground"
        } else {
            "Background"
        };
        self.delete(&node, &live, policy).await
    }

    /// An owner waits until none of its dependents blocks it.
    async fn finish_foreground(&self, uid: &str, node: &Node, live: &PartialObject) -> Outcome {
        let dependents = self.graph.dependents(uid);
        let blocks = |d: &Node| d.owners.iter().any(|o| o.uid == uid && o.block_owner_deletion == Some(true));
        if !dependents.iter().any(|(_, d)| blocks(d)) {
            self.remove_finalizer(node, live, FOREGROUND).await?;
            return Ok(None);
        }
        for (uid, d) in dependents {
            if !d.deleting {
                self.queue.add(Work::Check(uid));
            }
        }
        Ok(None)
    }

    async fn owner(&self, owner: &OwnerReference, of: &Node) -> Result<Owner, Error> {
        if self.graph.is_absent(&owner.uid, &of.namespace) {
            return Ok(Owner::Gone);
        }
        let state = |foreground: bool| if foreground { Owner::Waiting } else { Owner::Solid };
        // What has the unique id, but in another namespace, is none of this object's owners.
        let near = |n: &Node| n.namespace.is_empty() || n.namespace == of.namespace;
        if let Some(known) = self.graph.get(&owner.uid).filter(near) {
            return Ok(state(known.foreground));
        }
        let Some(resource) = self.resource(owner) else {
            return Err(Error::Other(format!(
                "{} {}: owner {} {} is of an unknown kind",
                of.resource, of.name, owner.kind, owner.name
            )));
        };
        let gone = || {
            self.graph.note_absent(&owner.uid, &of.namespace);
            Ok(Owner::Gone)
        };
        if resource.namespaced && of.namespace.is_empty() {
            return gone(); // what has no namespace can't be owned by what has one
        }
        match self.client.get_metadata(&resource, &of.namespace, &owner.name).await {
            Ok(found) if found.uid() == owner.uid => {
                let foreground =
                    found.is_deleting() && found.meta().finalizers.iter().flatten().any(|f| f == FOREGROUND);
                Ok(state(foreground))
            }
            Ok(_) => gone(),
            Err(e) if e.is_not_found() => gone(),
            Err(e) => Err(e.into()),
        }
    }

    fn resource(&self, owner: &OwnerReference) -> Option<ResourceId> {
        let discovery = self.discovery.read().unwrap_or_else(|e| e.into_inner());
        discovery.of_kind(&owner.api_version, &owner.kind).map(|r| r.resource.clone())
    }

    async fn delete(&self, node: &Node, live: &PartialObject, policy: &str) -> Outcome {
        tracing::info!("{NAME}: deleting {} {} ({policy})", node.resource, live.key());
        let preconditions = Preconditions {
            uid: Some(live.uid().into()),
            resource_version: Some(live.resource_version().into()),
        };
        let options = DeleteOptions {
            propagation_policy: Some(policy.into()),
            preconditions: Some(preconditions),
            ..DeleteOptions::default()
        };
        gone_is_fine(self.client.delete_dyn(&node.resource, &node.namespace, &node.name, &options).await)?;
        Ok(None)
    }

    async fn set_owners(
        &self,
        node: &Node,
        live: &PartialObject,
        owners: &[OwnerReference],
    ) -> Result<(), Error> {
        let owners = if owners.is_empty() { json!(null) } else { json!(owners) };
        let body = json!({"metadata": {"resourceVersion": live.resource_version(), "uid": live.uid(), "ownerReferences": owners}});
        self.patch(node, body).await
    }

    async fn remove_finalizer(
        &self,
        node: &Node,
        live: &PartialObject,
        finalizer: &str,
    ) -> Result<(), Error> {
        let left: Vec<&String> =
            live.metadata.finalizers.iter().flatten().filter(|f| *f != finalizer).collect();
        let body = json!({"metadata": {"resourceVersion": live.resource_version(), "uid": live.uid(), "finalizers": left}});
        self.patch(node, body).await
    }

    async fn patch(&self, node: &Node, body: serde_json::Value) -> Result<(), Error> {
        match self
            .client
            .patch_dyn(&node.resource, &node.namespace, &node.name, "", &Patch::Merge(body))
            .await
        {
            Err(e) if e.is_not_found() => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    /// Cuts an object's dependents loose, then lets it go.
    async fn orphan(&self, uid: &str) -> Outcome {
        let Some(node) = self.graph.get(uid).filter(|n| n.orphaning) else { return Ok(None) };
        let Some(live) = self.live(uid, &node).await? else { return Ok(None) };
        for (dependent, d) in self.graph.dependents(uid) {
            let Some(there) = self.live(&dependent, &d).await? else { continue };
            let owners = there.metadata.owner_references.clone().unwrap_or_default();
            if owners.iter().any(|o| o.uid == uid) {
                let kept: Vec<OwnerReference> = owners.into_iter().filter(|o| o.uid != uid).collect();
                self.set_owners(&d, &there, &kept).await?;
            }
        }
        self.remove_finalizer(&node, &live, ORPHAN).await?;
        Ok(None)
    }
}

enum Owner {
    /// It is there.
    Solid,
    /// It is not.
    Gone,
    /// It is being deleted and waits for its dependents.
    Waiting,
}
