//! ResourceQuotas: counts what a namespace uses anew, when a quota changes, when something that it counts is
//! deleted or ends, and now and then. What is made meanwhile is charged by the API server's admission.
//! Watches quotas, and the metadata of every resource that some quota counts.

use crate::common::scale;
use crate::{Context, Error, Outcome};
use api::pod_resources::{self, Amounts, add};
use api::quantity::Quantity;
use api::quota::{self, Item, concerns, count_name, in_scopes, usage};
use api::{GroupResource, ObjectKey};
use client::{Client, Informer, Informers, Lister, ObjectExt, PartialObject, SharedDiscovery, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const NAME: &str = "resourcequota-controller";
/// How long a quota waits for the first list of what it counts, before it is left for later.
const LISTED: Duration = Duration::from_millis(500);
/// When it is tried again.
const LATER: Duration = Duration::from_secs(5);
/// After a change it is counted once more when everything should have been seen.
const SETTLED: Duration = Duration::from_secs(2);
/// Resources that a quota can name without `count/`.
const COUNTED: [&str; 4] = ["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];

struct Quotas {
    client: Client,
    informers: Informers,
    discovery: SharedDiscovery,
    shutdown: CancellationToken,
    /// Everything is counted anew this often.
    resync: Duration,
    queue: WorkQueue<ObjectKey>,
    quotas: Lister<ResourceQuota>,
    pods: Lister<Pod>,
    services: Lister<Service>,
    claims: Lister<PersistentVolumeClaim>,
    /// What else is counted.
    counted: Mutex<HashMap<GroupResource, Informer<PartialObject>>>,
}

/// Keeps the status of quotas.
pub async fn run(ctx: Context) {
    let client = ctx.client(NAME);
    let (quotas, pods) = (ctx.informers.informer::<ResourceQuota>(), ctx.pods());
    let services = ctx.informers.informer::<Service>();
    let claims = ctx.informers.informer::<PersistentVolumeClaim>();
    let controller = ctx.controller(NAME);
    let this = Arc::new(Quotas {
        client,
        informers: ctx.informers.clone(),
        discovery: ctx.discovery.clone(),
        resync: ctx.config.resource_quota_sync_period,
        shutdown: ctx.shutdown.clone(),
        queue: controller.queue().clone(),
        quotas: quotas.lister(),
        pods: pods.lister(),
        services: services.lister(),
        claims: claims.lister(),
        counted: Mutex::default(),
    });
    let [for_pods, for_services, for_claims] = [this.clone(), this.clone(), this.clone()];
    controller
        .on(&quotas, |event, queue| {
            let hard = |q: &ResourceQuota| q.spec.as_ref().and_then(|s| s.hard.clone());
            let changed = |old: &Arc<ResourceQuota>| hard(old) != hard(event.object());
            // The status is ours, or admission's: only a new spec has to be counted.
            let unseen = is_new(event.object());
            if !event.is_deleted() && (event.old().is_none_or(changed) || unseen) {
                queue.add(event.object().key());
            }
        })
        .on(&pods, move |event, _| {
            let pod = event.object();
            let over = |p: &Pod| crate::common::pods::is_terminal(p);
            let ended = event.old().is_some_and(|old| !over(old) && over(pod));
            if event.is_deleted() || ended {
                for_pods.replenish(pod.namespace(), &GroupResource::new("", "pods"));
            }
        })
        .on(&services, move |event, _| {
            let kind = |s: &Service| s.spec.as_ref().map(|s| (s.type_.clone(), s.ports.clone()));
            if event.is_deleted() || event.old().is_some_and(|old| kind(old) != kind(event.object())) {
                for_services.replenish(event.object().namespace(), &GroupResource::new("", "services"));
            }
        })
        .on(&claims, move |event, _| {
            let size = |c: &PersistentVolumeClaim| {
                (
                    c.spec.as_ref().map(|s| s.resources.clone()),
                    c.status.as_ref().map(|s| s.allocated_resources.clone()),
                )
            };
            if event.is_deleted() || event.old().is_some_and(|old| size(old) != size(event.object())) {
                let resource = GroupResource::new("", "persistentvolumeclaims");
                for_claims.replenish(event.object().namespace(), &resource);
            }
        })
        .run(ctx.workers(NAME, 5), ctx.shutdown, move |key| {
            let this = this.clone();
            async move { this.reconcile(key).await }
        })
        .await;
}

/// Whether the status does not show the spec yet.
fn is_new(quota: &ResourceQuota) -> bool {
    let amounts = |m: Option<&BTreeMap<_, _>>| pod_resources::read(m);
    let hard = amounts(quota.spec.as_ref().and_then(|s| s.hard.as_ref()));
    amounts(quota.status.as_ref().and_then(|s| s.hard.as_ref())) != hard
}

/// The resource of a name that counts objects: `secrets`, `count/deployments.apps`.
fn counted(name: &str) -> Option<GroupResource> {
    match name.strip_prefix("count/") {
        Some(rest) => {
            let (resource, group) = rest.split_once('.').unwrap_or((rest, ""));
            Some(GroupResource::new(group, resource))
        }
        None => COUNTED.contains(&name).then(|| GroupResource::new("", name)),
    }
}

fn core(resource: &str) -> GroupResource {
    GroupResource::new("", resource)
}

impl Quotas {
    /// Something of a resource has gone: the quotas that count it count anew.
    fn replenish(&self, namespace: &str, resource: &GroupResource) {
        for quota in self.quotas.list_namespace(namespace) {
            let hard = quota.spec.as_ref().and_then(|s| s.hard.as_ref());
            if hard.into_iter().flatten().any(|(name, _)| concerns(resource, name)) {
                self.queue.add(quota.key());
            }
        }
    }

    async fn reconcile(self: Arc<Self>, key: ObjectKey) -> Outcome {
        let Some(quota) = self.quotas.get(&key.namespace, &key.name) else { return Ok(None) };
        if quota.is_deleting() {
            return Ok(None);
        }
        let hard = quota.spec.as_ref().and_then(|s| s.hard.clone()).unwrap_or_default();
        let used = match self.used(&quota, hard.keys()).await {
            Err(e @ Error::NotListed(_)) => {
                tracing::warn!("{NAME}: {key}: {e}");
                return Ok(Some(LATER));
            }
            other => other?,
        };
        let status = ResourceQuotaStatus { hard: Some(hard), used: Some(pod_resources::write(&used)) };
        let same = |a: &ResourceQuotaStatus| {
            let amounts = |m: &Option<BTreeMap<_, _>>| pod_resources::read(m.as_ref());
            amounts(&a.hard) == amounts(&status.hard) && amounts(&a.used) == used
        };
        if !quota.status.as_ref().is_some_and(same) {
            let changed = ResourceQuota { status: Some(status), ..(*quota).clone() };
            match self.client.update_status(&changed).await {
                Err(e) if e.is_not_found() => {}
                other => drop(other?),
            }
            // What was under way meanwhile, and charged to the status before, may not have been seen yet.
            return Ok(Some(SETTLED));
        }
        Ok(Some(self.resync))
    }

    /// What is used of the names of a quota.
    async fn used(
        self: &Arc<Self>,
        quota: &ResourceQuota,
        names: impl Iterator<Item = &String> + Clone,
    ) -> Result<Amounts, Error> {
        let (namespace, now) = (quota.namespace(), Timestamp::now());
        let spec = quota.spec.clone().unwrap_or_default();
        let mut sum = Amounts::new();
        let about = |resource: &GroupResource| names.clone().any(|n| concerns(resource, n));
        let mut count = |resource: &GroupResource, item: Item<'_>| {
            if in_scopes(&spec, item) {
                add(&mut sum, &usage(resource, item, now));
            }
        };
        let (pods, services, claims) = (core("pods"), core("services"), core("persistentvolumeclaims"));
        if about(&pods) {
            self.pods.list_namespace(namespace).iter().for_each(|p| count(&pods, Item::Pod(p)));
        }
        if about(&services) {
            self.services.list_namespace(namespace).iter().for_each(|s| count(&services, Item::Service(s)));
        }
        if about(&claims) {
            self.claims.list_namespace(namespace).iter().for_each(|c| count(&claims, Item::Claim(c)));
        }
        let (mut unknown, mut others) = (BTreeSet::new(), BTreeMap::new());
        for name in names.clone() {
            let resource = counted(name).filter(|r| ![&pods, &services, &claims].contains(&r));
            if let Some(resource) = resource.filter(|r| !quota::is_ignored(r)) {
                others.insert(count_name(&resource), (resource, name));
            }
        }
        for (resource, name) in others.values() {
            match self.objects(resource).await? {
                Some(all) => all.list_namespace(namespace).iter().for_each(|_| count(resource, Item::Other)),
                None => drop(unknown.insert((*name).clone())),
            }
        }
        // What is known to be counted is there, if it is 0.
        let known = names.filter(|n| !unknown.contains(*n) && is_known(n));
        Ok(known.map(|n| (n.clone(), sum.get(n).copied().unwrap_or(Quantity::ZERO))).collect())
    }

    /// All objects of a resource, which are watched from now on; none if nobody serves it.
    async fn objects(
        self: &Arc<Self>,
        resource: &GroupResource,
    ) -> Result<Option<Lister<PartialObject>>, Error> {
        let there =
            |this: &Self| this.counted.lock().unwrap_or_else(PoisonError::into_inner).get(resource).cloned();
        let informer = match there(self) {
            Some(informer) => informer,
            None => {
                let discovery = self.discovery.within(scale::KNOWN_FOR).await?;
                let mut served = discovery.preferred().into_iter();
                let found = served
                    .find(|r| r.resource.group == resource.group && r.resource.plural == resource.resource);
                let Some(id) = found.filter(|r| r.can(&["list", "watch"])).map(|r| r.resource.clone()) else {
                    return Ok(None);
                };
                let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
                counted
                    .entry(resource.clone())
                    .or_insert_with(|| {
                        let informer = self.informers.metadata(&id, self.shutdown.clone());
                        let (this, resource) = (self.clone(), resource.clone());
                        informer.on(move |event| {
                            if event.is_deleted() {
                                this.replenish(event.object().namespace(), &resource);
                            }
                        });
                        informer
                    })
                    .clone()
            }
        };
        // A resource that can't be listed must not hold up the counting of others.
        if tokio::time::timeout(LISTED, informer.synced()).await.is_err() {
            return Err(Error::NotListed(resource.to_string()));
        }
        Ok(Some(informer.lister()))
    }
}

/// Whether anything is counted under a name.
fn is_known(name: &str) -> bool {
    let of_kind = |r: &str| concerns(&core(r), name);
    counted(name).is_some() || ["pods", "services", "persistentvolumeclaims"].into_iter().any(of_kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_resources() {
        for (name, want) in [
            ("secrets", "secrets"),
            ("count/secrets", "secrets"),
            ("count/deployments.apps", "deployments.apps"),
            ("count/widgets.example.com", "widgets.example.com"),
            ("cpu", "none"),
        ] {
            assert_eq!(counted(name).map_or("none".into(), |r| r.to_string()), want, "{name}");
        }
        assert!(is_known("requests.cpu") && is_known("services.nodeports") && !is_known("bananas"));
    }
}
