//! Empties namespaces that are being deleted, and lets them go.
//! Watches namespaces; and pods, since the rest of a namespace goes when its last pod has gone.

use crate::common::conditions;
use crate::{Context, Error, Outcome};
use api::time;
use client::{
    Client, Discovery, List, ListParams, Lister, ObjectExt, PartialObject, ResourceInfo, SharedDiscovery,
    WorkQueue,
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "namespace-controller";
const FINALIZER: &str = "kubernetes";
/// Requests that were let in just before the deletion may still be creating; upstream waits 5 s.
const SETTLE: Duration = Duration::from_secs(2);
/// How soon to look again at what has to finish by itself.
const RECHECK: Duration = Duration::from_secs(5);
/// How many collections are looked at at once.
const AT_ONCE: usize = 8;
/// How many objects are looked at at once.
const PAGE: u32 = 250;
/// A failure is tried again after a minute at most: what is in the way may be gone any time.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(60));
/// How old the picture of what is served may be.
const SERVED: Duration = Duration::from_secs(1);

struct Namespaces {
    client: Client,
    namespaces: Lister<Namespace>,
    discovery: SharedDiscovery,
}

/// Empties namespaces.
pub async fn run(ctx: Context) {
    let client = ctx.client(NAME);
    let (namespaces, pods) = (ctx.informers.informer::<Namespace>(), ctx.pods());
    let this =
        Arc::new(Namespaces { client, namespaces: namespaces.lister(), discovery: ctx.discovery.clone() });
    let (spaces, left) = (namespaces.lister(), pods.lister());
    ctx.controller_with(NAME, WorkQueue::with_backoff(BACKOFF.0, BACKOFF.1))
        .on(&namespaces, |event, queue| {
            if event.object().is_deleting() && !event.is_deleted() {
                let first = event.old().is_none_or(|old| !old.is_deleting());
                queue.add_after(event.object().key(), if first { SETTLE } else { RECHECK });
            }
        })
        .on(&pods, move |event, queue| {
            let namespace = event.object().namespace();
            if event.is_deleted()
                && let Some(ns) = spaces.get("", namespace).filter(|ns| ns.is_deleting())
                && left.list_namespace(namespace).is_empty()
            {
                queue.add(ns.key());
            }
        })
        .run(ctx.workers(NAME, 10), ctx.shutdown, move |key| {
            let this = this.clone();
            async move { this.reconcile(&key.name).await }
        })
        .await;
}

/// What emptying came to.
#[derive(Default)]
struct Report {
    undiscovered: Vec<String>,
    failures: Vec<String>,
    /// How many objects are left, by resource.
    remaining: BTreeMap<String, usize>,
    /// How many objects each finalizer holds.
    finalizers: BTreeMap<String, usize>,
}

impl Namespaces {
    async fn reconcile(&self, name: &str) -> Outcome {
        // The cache may be behind; what is to be destroyed is looked at closely.
        if self.namespaces.get("", name).is_none_or(|ns| !ns.is_deleting()) {
            return Ok(None);
        }
        let Some(mut ns) = self.client.get_opt::<Namespace>("", name).await? else { return Ok(None) };
        let held = |ns: &Namespace| {
            ns.spec.iter().filter_map(|s| s.finalizers.as_ref()).flatten().any(|f| f == FINALIZER)
        };
        if !ns.is_deleting() || !held(&ns) {
            return Ok(None);
        }
        let status = ns.status.get_or_insert_default();
        if status.phase.as_deref() != Some("Terminating") {
            status.phase = Some("Terminating".into());
            ns = self.client.update_status(&ns).await?;
        }
        let report = self.empty(name).await?;
        let conditions = ns.status.get_or_insert_default().conditions.get_or_insert_default();
        if update_conditions(conditions, &report) {
            ns = match self.client.update_status(&ns).await {
                Ok(written) => written,
                Err(e) if e.is_not_found() => return Ok(None),
                Err(e) => return Err(e.into()),
            };
        }
        if !report.failures.is_empty() || !report.undiscovered.is_empty() {
            let mut why = report.failures;
            why.extend(report.undiscovered);
            return Err(Error::Other(why.join("; ")));
        }
        if !report.remaining.is_empty() {
            return Ok(Some(RECHECK));
        }
        ns.spec.get_or_insert_default().finalizers.get_or_insert_default().retain(|f| f != FINALIZER);
        match self.client.update_subresource(&ns, "finalize").await {
            Err(e) if e.is_not_found() => {}
            other => drop(other?),
        }
        Ok(None)
    }

    /// Deletes what is in a namespace: the pods, and when they have gone all else.
    async fn empty(&self, namespace: &str) -> Result<Report, Error> {
        let mut report = Report::default();
        let discovery = self.discovery.within(SERVED).await?;
        report.undiscovered = discovery.failed.iter().map(|(gv, e)| format!("{gv}: {e}")).collect();
        let (pods, rest) = split(&discovery);
        for part in [pods, rest] {
            let mut work = futures::stream::iter(part.into_iter().map(|r| async move {
                let left = self.empty_one(&r, namespace).await;
                (r, left)
            }))
            .buffer_unordered(AT_ONCE);
            while let Some((r, left)) = work.next().await {
                match left {
                    Err(e) => report.failures.push(format!("{}: {e}", r.resource)),
                    Ok(left) => {
                        if left.objects > 0 {
                            let name = format!("{}.{}", r.resource.plural, r.resource.group);
                            report.remaining.insert(name, left.objects);
                        }
                        for (f, n) in left.finalizers {
                            *report.finalizers.entry(f).or_default() += n;
                        }
                    }
                }
            }
            if !report.remaining.is_empty() {
                break;
            }
        }
        Ok(report)
    }

    /// Deletes all of one resource; answers what is left. Never holds more than a page of it.
    async fn empty_one(&self, r: &ResourceInfo, namespace: &str) -> Result<Left, client::Error> {
        if self.page(r, namespace, 1, "").await?.items.is_empty() {
            return Ok(Left::default());
        }
        let options =
            DeleteOptions { propagation_policy: Some("Background".into()), ..DeleteOptions::default() };
        if r.can(&["deletecollection"]) {
            let all = ListParams::default();
            self.client.delete_collection_dyn(&r.resource, namespace, &all, &options).await?;
        }
        let (mut left, mut cont) = (Left::default(), String::new());
        loop {
            let page = self.page(r, namespace, PAGE, &cont).await?;
            for object in &page.items {
                if !r.can(&["deletecollection"]) && !object.is_deleting() {
                    let deleted =
                        self.client.delete_dyn(&r.resource, namespace, object.name(), &options).await;
                    crate::common::gone_is_fine(deleted)?;
                }
                left.objects += 1;
                for f in object.metadata.finalizers.iter().flatten() {
                    *left.finalizers.entry(f.clone()).or_default() += 1;
                }
            }
            if page.cont.is_empty() {
                return Ok(left);
            }
            cont = page.cont;
        }
    }

    async fn page(
        &self,
        r: &ResourceInfo,
        namespace: &str,
        limit: u32,
        cont: &str,
    ) -> Result<List<PartialObject>, client::Error> {
        let params = ListParams { limit, cont: cont.into(), ..ListParams::default() };
        match self.client.page_metadata(&r.resource, namespace, &params).await {
            // It is not served any more, or can't be listed.
            Err(e) if e.is_not_found() || e.status().is_some_and(|s| s.code == 405) => {
                Ok(List { items: Vec::new(), resource_version: String::new(), cont: String::new() })
            }
            other => other,
        }
    }
}

/// What is left of a resource.
#[derive(Default)]
struct Left {
    objects: usize,
    /// How many objects each finalizer holds.
    finalizers: BTreeMap<String, usize>,
}

/// The resources whose objects live in namespaces and can be deleted: pods, and the others.
fn split(discovery: &Discovery) -> (Vec<ResourceInfo>, Vec<ResourceInfo>) {
    let deletable =
        discovery.preferred().into_iter().filter(|r| r.resource.namespaced && r.can(&["list", "delete"]));
    deletable.cloned().partition(|r| r.resource.group.is_empty() && r.resource.plural == "pods")
}

/// Brings the conditions up to date; whether any changed.
fn update_conditions(all: &mut Vec<NamespaceCondition>, r: &Report) -> bool {
    let list = |map: &BTreeMap<String, usize>, text: &str| {
        map.iter()
            .map(|(name, n)| format!("{name} {text} {n} resource instances"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (remaining, held) = (list(&r.remaining, "has"), list(&r.finalizers, "in"));
    let rows = [
        (
            "NamespaceDeletionDiscoveryFailure",
            (!r.undiscovered.is_empty()).then(|| {
                let n = r.undiscovered.len();
                (
                    "DiscoveryFailed",
                    format!("Discovery failed for some groups, {n} failing: {}", r.undiscovered.join(", ")),
                )
            }),
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            (!r.failures.is_empty()).then(|| {
                let n = r.failures.len();
                let why = r.failures.join(", ");
                (
                    "ContentDeletionFailed",
                    format!("Failed to delete all resource types, {n} remaining: {why}"),
                )
            }),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        (
            "NamespaceContentRemaining",
            (!remaining.is_empty())
                .then(|| ("SomeResourcesRemain", format!("Some resources are remaining: {remaining}"))),
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            (!held.is_empty()).then(|| {
                (
                    "SomeFinalizersRemain",
                    format!("Some content in the namespace has finalizers remaining: {held}"),
                )
            }),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ];
    let mut changed = false;
    for (kind, trouble, (good_reason, good_text)) in rows {
        let (status, reason, message) = match trouble {
            Some((reason, message)) => ("True", reason, message),
            None => ("False", good_reason, good_text.to_string()),
        };
        let new = NamespaceCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(time::now()),
        };
        changed |= conditions::set(all, new);
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_say_what_is_left() {
        let mut conditions = Vec::new();
        let mut report = Report::default();
        report.remaining.insert("pods.".into(), 2);
        report.finalizers.insert("a/b".into(), 1);
        assert!(update_conditions(&mut conditions, &report));
        assert!(!update_conditions(&mut conditions, &report));
        let of = |conditions: &[NamespaceCondition], kind: &str| {
            let c = conditions.iter().find(|c| c.type_ == kind).unwrap();
            format!("{} {}", c.status, c.message.as_deref().unwrap())
        };
        assert_eq!(
            of(&conditions, "NamespaceContentRemaining"),
            "True Some resources are remaining: pods. has 2 resource instances"
        );
        assert_eq!(
            of(&conditions, "NamespaceFinalizersRemaining"),
            "True Some content in the namespace has finalizers remaining: a/b in 1 resource instances"
        );
        assert_eq!(
            of(&conditions, "NamespaceDeletionContentFailure"),
            "False All content successfully deleted, may be waiting on finalization"
        );
        assert!(update_conditions(&mut conditions, &Report::default()));
        assert_eq!(of(&conditions, "NamespaceContentRemaining"), "False All content successfully removed");
        assert_eq!(conditions.len(), 5);
    }
}
