//! EndpointSlices: watches services, pods, slices and nodes' zones; all lead to the service.

use super::slices_plan::{Changes, MANAGED_BY, MANAGER, SERVICE_NAME, plan};
use super::{on_pod, selected, selects};
use crate::common::expectations::Expectations;
use crate::common::{delete_uid, gone_is_fine};
use crate::serviceaccount::ignore_lost_race;
use crate::{Context, Outcome};
use api::ObjectKey;
use client::{Client, Event, Lister, ObjectExt, WorkQueue};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::sync::Arc;

const NAME: &str = "endpointslice-controller";
const BY_SERVICE: &str = "service";
const ZONE: &str = "topology.kubernetes.io/zone";

struct Slices {
    client: Client,
    services: Lister<Service>,
    pods: Lister<Pod>,
    slices: Lister<EndpointSlice>,
    nodes: Lister<Node>,
    /// Slices have generated names: one that the cache does not show yet would be made again.
    expected: Arc<Expectations>,
    most: usize,
}

/// The key of what a manager's slice is made from: the service, and Endpoints are named as it is.
pub(super) fn key_of(slice: &EndpointSlice, manager: &str) -> Option<ObjectKey> {
    let service = slice.label(SERVICE_NAME).filter(|_| slice.label(MANAGED_BY) == Some(manager))?;
    Some(ObjectKey::new(slice.namespace(), service))
}

/// Keeps slices.
pub async fn run(ctx: Context) {
    let client = ctx.client(NAME);
    let (services, pods) = (ctx.informers.informer::<Service>(), ctx.pods());
    let (slices, nodes) = (ctx.informers.informer::<EndpointSlice>(), ctx.informers.informer::<Node>());
    slices.index(BY_SERVICE, |s| key_of(s, MANAGER).map(|k| k.to_string()).into_iter().collect());
    let expected = Arc::new(Expectations::default());
    let this = Arc::new(Slices {
        client,
        services: services.lister(),
        pods: pods.lister(),
        slices: slices.lister(),
        nodes: nodes.lister(),
        expected: expected.clone(),
        most: ctx.config.max_endpoints_per_slice,
    });
    let (known, all) = (services.lister(), services.lister());
    ctx.controller(NAME)
        .each(&services)
        .on(&pods, move |event, queue| on_pod(event, queue, &known))
        .on(&slices, move |event, queue| observe(event, queue, &expected, MANAGER))
        .on(&nodes, move |event, queue| {
            let moved = event.old().is_none_or(|old| old.label(ZONE) != event.object().label(ZONE));
            if moved && event.old().is_some() {
                all.list().iter().for_each(|s| queue.add(s.key()));
            }
        })
        .run(ctx.workers(NAME, 5), ctx.shutdown, move |key| {
            let this = this.clone();
            async move { this.reconcile(key).await }
        })
        .await;
}

impl Slices {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let there = self.slices.by_index(BY_SERVICE, &key.to_string());
        let Some(service) = self.services.get(&key.namespace, &key.name) else {
            self.expected.forget(&key);
            return Ok(None); // they go with their owner
        };
        if !selects(&service) || service.is_deleting() || !self.expected.met(&key) {
            return Ok(None);
        }
        let selected = selected(&service, &self.pods);
        let zone = |node: &str| self.nodes.get("", node)?.label(ZONE).map(String::from);
        let changes = plan(&service, &selected, &there, self.most, zone);
        write(&self.client, &self.expected, &key, &changes).await?;
        Ok(None)
    }
}

/// Leads a slice's event to what its manager made it from.
pub(super) fn observe(
    event: &Event<EndpointSlice>,
    queue: &WorkQueue<ObjectKey>,
    expected: &Expectations,
    manager: &str,
) {
    for slice in event.old().into_iter().chain([event.object()]) {
        let Some(key) = key_of(slice, manager) else { continue };
        match event {
            Event::Added(_) => expected.created(&key, 1),
            Event::Deleted(_) => expected.deleted(&key, slice.uid()),
            Event::Updated(..) => {}
        }
        queue.add(key);
    }
}

/// Writes what has to be written, and expects to see it.
pub(super) async fn write(
    client: &Client,
    expected: &Expectations,
    key: &ObjectKey,
    Changes { create, update, delete }: &Changes,
) -> Result<(), client::Error> {
    if create.is_empty() && update.is_empty() && delete.is_empty() {
        return Ok(());
    }
    let uid = |s: &Arc<EndpointSlice>| s.uid().to_string();
    expected.expect(key, create.len(), delete.iter().map(uid));
    let mut undone = create.len();
    let result = async {
        for slice in create {
            let made = client.create(slice).await;
            if made.is_ok() {
                undone -= 1;
            }
            ignore_lost_race(made)?;
        }
        for slice in update {
            client.update(slice).await?;
        }
        for slice in delete {
            let options = delete_uid(slice.uid());
            let deleted = client.delete::<EndpointSlice>(slice.namespace(), slice.name(), &options).await;
            if deleted.is_err() {
                expected.deleted(key, slice.uid());
            }
            gone_is_fine(deleted)?;
        }
        Ok(())
    }
    .await;
    expected.created(key, undone);
    if result.is_err() {
        delete.iter().for_each(|s| expected.deleted(key, s.uid()));
    }
    result
}
