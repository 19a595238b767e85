//! The garbage collector: deletes objects whose owners have gone, lets owners wait for their dependents
//! (foreground) and cuts dependents loose (orphan).
//! Watches the metadata of everything that can be deleted; definitions of new resources lead to looking anew
//! at what there is.

mod graph;

use crate::common::gone_is_fine;
use crate::{Context, Error, Outcome};
use client::{
    Client, Discovery, EventRecorder, EventType, Informer, Meta, ObjectExt, PartialObject, Patch, ResourceId,
    SharedDiscovery, WorkQueue,
};
use futures::StreamExt;
use graph::{FOREGROUND, Graph, Node, ORPHAN, Work, near};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, OwnerReference, Preconditions};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

const NAME: &str = "garbage-collector-controller";
/// How often to look for new resources whose definitions we are not told of.
const REDISCOVER: Duration = Duration::from_secs(60);
/// After a definition changed it takes a moment until its resource is served.
const SETTLE: Duration = Duration::from_millis(500);
/// The work begins without collections that can't be listed in this time.
const SYNC: Duration = Duration::from_secs(30);
/// So many dependents of an object are cut loose at once.
const ORPHANS_AT_ONCE: usize = 10;

struct Collector {
    client: Client,
    graph: Graph,
    queue: WorkQueue<Work>,
    events: EventRecorder,
    shared: SharedDiscovery,
    /// What was served when the monitors were chosen.
    discovery: RwLock<Arc<Discovery>>,
}

struct Monitor {
    informer: Informer<PartialObject>,
    _stop: DropGuard,
}

/// Collects garbage.
pub async fn run(ctx: Context) {
    let client = ctx.client("generic-garbage-collector");
    let events = ctx.events(&client, NAME);
    let controller = ctx.controller::<Work>(NAME).sync_within(SYNC);
    let this = Arc::new(Collector {
        client,
        graph: Graph::default(),
        queue: controller.queue().clone(),
        events,
        shared: ctx.discovery.clone(),
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
    let watching = keep_up(this.clone(), ctx.clone(), monitors);
    let work = controller.run(ctx.workers(NAME, 20), ctx.shutdown, move |work| {
        let this = this.clone();
        async move {
            match work {
                Work::Check(uid) => this.check(&uid).await,
                Work::Orphan(uid) => this.orphan(&uid).await,
            }
        }
    });
    tokio::select! {
        () = work => {}
        () = watching => {}
    }
}

type Monitors = HashMap<ResourceId, Monitor>;

/// Follows the coming and going of resources.
async fn keep_up(this: Arc<Collector>, ctx: Context, mut monitors: Monitors) {
    let mut changed = ctx.definitions.subscribe();
    loop {
        // The sender lives in the context.
        let _ = tokio::time::timeout(REDISCOVER, changed.changed()).await;
        tokio::time::sleep(SETTLE).await;
        if let Err(e) = this.monitor(&ctx, &mut monitors).await {
            tracing::warn!("{NAME}: {e}");
        }
    }
}

impl Collector {
    /// Begins to watch what is new and stops to watch what is served no more.
    async fn monitor(self: &Arc<Self>, ctx: &Context, monitors: &mut Monitors) -> Result<(), Error> {
        let found = self.shared.within(Duration::from_secs(1)).await?;
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
        *self.discovery.write().unwrap_or_else(PoisonError::into_inner) = found;
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
        // At the start dependents are often seen before their owners.
        if !node.foreground && self.graph.owners_stand(&node) {
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
            match self.owner(owner, uid, &node).await? {
                // What can't be judged is left alone.
                Owner::Impossible => return Ok(None),
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
            let mut live = live;
            if dependents.iter().any(|(_, d)| d.foreground) {
                // A circle in which each waits for the next: stop blocking.
                let freed =
                    owners.iter().map(|o| OwnerReference { block_owner_deletion: Some(false), ..o.clone() });
                let version = self.set_owners(&node, &live, &freed.collect::<Vec<_>>()).await?;
                live.metadata.resource_version = version.or(live.metadata.resource_version);
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

    async fn owner(&self, owner: &OwnerReference, uid: &str, of: &Node) -> Result<Owner, Error> {
        let state = |foreground: bool| if foreground { Owner::Waiting } else { Owner::Solid };
        match self.graph.get(&owner.uid) {
            Some(known) if near(&known, of) => return Ok(state(known.foreground)),
            Some(_) => self.tell_invalid(owner, uid, of),
            None => {}
        }
        if self.graph.is_absent(&owner.uid, &of.namespace) {
            return Ok(Owner::Gone);
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
            // What has no namespace can't be owned by what has one. Such references are made, and where the owner
            // would have to be nobody knows: that it is gone can't be told.
            return Ok(Owner::Impossible);
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

    fn served(&self) -> Arc<Discovery> {
        self.discovery.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn resource(&self, owner: &OwnerReference) -> Option<ResourceId> {
        self.served().of_kind(&owner.api_version, &owner.kind).map(|r| r.resource.clone())
    }

    /// Tells that an object names an owner that is in another namespace.
    fn tell_invalid(&self, owner: &OwnerReference, uid: &str, of: &Node) {
        let served = self.served();
        let kind = served.resources.iter().find(|r| r.resource == *of.resource).map(|r| r.kind.clone());
        let object = ObjectReference {
            api_version: Some(of.resource.api_version()),
            kind,
            name: Some(of.name.clone()),
            namespace: Some(of.namespace.clone()).filter(|n| !n.is_empty()),
            uid: Some(uid.into()),
            ..ObjectReference::default()
        };
        let OwnerReference { api_version, kind, name, uid, .. } = owner;
        let ns = &of.namespace;
        let message = format!(
            "ownerRef [{api_version}/{kind}, namespace: {ns}, name: {name}, uid: {uid}] does not exist in namespace {ns:?}"
        );
        self.events.event(&object, EventType::Warning, "OwnerRefInvalidNamespace", message);
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
    ) -> Result<Option<String>, Error> {
        let owners = if owners.is_empty() { json!(null) } else { json!(owners) };
        let body = json!({"metadata": {"resourceVersion": live.resource_version(), "uid": live.uid(), "ownerReferences": owners}});
        self.patch(node, body).await
    }

    async fn remove_finalizer(
        &self,
        node: &Node,
        live: &PartialObject,
        finalizer: &str,
    ) -> Result<Option<String>, Error> {
        let left: Vec<&String> =
            live.metadata.finalizers.iter().flatten().filter(|f| *f != finalizer).collect();
        let body = json!({"metadata": {"resourceVersion": live.resource_version(), "uid": live.uid(), "finalizers": left}});
        self.patch(node, body).await
    }

    /// The version that it has then, if it is there.
    async fn patch(&self, node: &Node, body: serde_json::Value) -> Result<Option<String>, Error> {
        let version = |v: serde_json::Value| v.pointer("/metadata/resourceVersion")?.as_str().map(Into::into);
        match self
            .client
            .patch_dyn(&node.resource, &node.namespace, &node.name, "", &Patch::Merge(body))
            .await
        {
            Err(e) if e.is_not_found() => Ok(None),
            other => Ok(version(other?)),
        }
    }

    /// Cuts an object's dependents loose, then lets it go.
    async fn orphan(&self, uid: &str) -> Outcome {
        let Some(node) = self.graph.get(uid).filter(|n| n.orphaning) else { return Ok(None) };
        let Some(live) = self.live(uid, &node).await? else { return Ok(None) };
        let dependents = self.graph.dependents(uid);
        let mut cut = futures::stream::iter(dependents.into_iter().map(|(dependent, d)| async move {
            let Some(there) = self.live(&dependent, &d).await? else { return Ok(()) };
            let owners = there.metadata.owner_references.clone().unwrap_or_default();
            if owners.iter().any(|o| o.uid == uid) {
                let kept: Vec<OwnerReference> = owners.into_iter().filter(|o| o.uid != uid).collect();
                self.set_owners(&d, &there, &kept).await?;
            }
            Ok::<(), Error>(())
        }))
        .buffer_unordered(ORPHANS_AT_ONCE);
        while let Some(result) = cut.next().await {
            result?;
        }
        drop(cut);
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
    /// It can't be an owner of the object: whether it is there does not matter.
    Impossible,
}
