//! PodDisruptionBudgets: how many pods may be evicted now.
//! Watches budgets and pods; a pod leads to the budgets that select it.

use crate::common::{intstr, pods};
use crate::{Context, Error, Outcome};
use api::ObjectKey;
use api::selector::LabelSelector;
use api::time;
use client::{Client, Controller, EventRecorder, EventType, Lister, ObjectExt, object_ref};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "disruption-controller";
const CONDITION: &str = "DisruptionAllowed";
/// A pod whose eviction was granted is gone by then, or it never will be.
const DELETION: Duration = Duration::from_secs(120);

struct Budgets {
    client: Client,
    events: EventRecorder,
    budgets: Lister<PodDisruptionBudget>,
    pods: Lister<Pod>,
    replica_sets: Lister<ReplicaSet>,
    deployments: Lister<Deployment>,
    stateful_sets: Lister<StatefulSet>,
    controllers: Lister<ReplicationController>,
}

/// Keeps the status of budgets.
pub async fn run(ctx: Context) {
    let client = ctx.client(NAME);
    let (budgets, pods) = (ctx.informers.informer::<PodDisruptionBudget>(), ctx.pods());
    let replica_sets = ctx.informers.informer::<ReplicaSet>();
    let deployments = ctx.informers.informer::<Deployment>();
    let stateful_sets = ctx.informers.informer::<StatefulSet>();
    let controllers = ctx.informers.informer::<ReplicationController>();
    let this = Arc::new(Budgets {
        events: ctx.events(&client, "controllermanager"),
        client,
        budgets: budgets.lister(),
        pods: pods.lister(),
        replica_sets: replica_sets.lister(),
        deployments: deployments.lister(),
        stateful_sets: stateful_sets.lister(),
        controllers: controllers.lister(),
    });
    let lister = budgets.lister();
    Controller::new(NAME)
        .each(&budgets)
        .on(&pods, move |event, queue| {
            for budget in lister.list_namespace(event.object().namespace()) {
                let mut states = event.old().into_iter().chain([event.object()]);
                if states.any(|p| selects(&budget, p)) {
                    queue.add(budget.key());
                }
            }
        })
        .wait_for(&replica_sets)
        .wait_for(&deployments)
        .wait_for(&stateful_sets)
        .wait_for(&controllers)
        .run(ctx.workers(NAME, 1), ctx.shutdown, move |key| {
            let this = this.clone();
            async move { this.reconcile(key).await }
        })
        .await;
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
    let selector = selector.and_then(|s| LabelSelector::from_object(s).ok());
    selector.is_some_and(|s| s.matches_labels(pod.metadata.labels.as_ref()))
}

/// How many pods are expected, and how many are to be healthy.
#[derive(Debug, PartialEq)]
struct Wanted {
    expected: i32,
    healthy: i32,
}

/// What a budget wants of so many pods; `scale` is what their owners are to have.
fn wanted(budget: &PodDisruptionBudget, count: i32, scale: i32) -> Wanted {
    let spec = budget.spec.clone().unwrap_or_default();
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let missed = intstr::scaled(Some(most), scale, true);
            Wanted { expected: scale, healthy: scale.saturating_sub(missed).max(0) }
        }
        (None, Some(IntOrString::Int(least))) => Wanted { expected: count, healthy: *least },
        (None, Some(share)) => Wanted { expected: scale, healthy: intstr::scaled(Some(share), scale, true) },
        (None, None) => Wanted { expected: 0, healthy: 0 },
    }
}

/// Pods whose eviction was granted and that are still there, and when that is looked at again.
fn disrupted(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Duration>) {
    let granted = budget.status.as_ref().and_then(|s| s.disrupted_pods.clone()).unwrap_or_default();
    let (mut kept, mut again) = (BTreeMap::new(), None);
    for pod in pods.iter().filter(|p| !p.is_deleting()) {
        let Some(at) = granted.get(pod.name()) else { continue };
        if let Some(left) = time::until(time::later(at.0, DELETION), now) {
            again = Some(again.map_or(left, |a: Duration| a.min(left)));
            kept.insert(pod.name().to_string(), at.clone());
        }
    }
    (kept, again)
}

fn status(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    wanted: &Wanted,
    disrupted: BTreeMap<String, Time>,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let counts = |p: &&Arc<Pod>| !p.is_deleting() && !disrupted.contains_key(p.name()) && pods::is_ready(p);
    let healthy = pods.iter().filter(counts).count() as i32;
    let allowed = if wanted.expected > 0 { healthy.saturating_sub(wanted.healthy).max(0) } else { 0 };
    let old = budget.status.clone().unwrap_or_default();
    let (word, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(wanted.healthy),
        expected_pods: Some(wanted.expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(disrupted).filter(|d| !d.is_empty()),
        observed_generation: budget.metadata.generation,
        conditions: Some(conditions(budget, old.conditions, word, reason, "", now)),
    }
}

fn conditions(
    budget: &PodDisruptionBudget,
    old: Option<Vec<Condition>>,
    word: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Vec<Condition> {
    let mut all = old.unwrap_or_default();
    let before = all.iter().find(|c| c.type_ == CONDITION && c.status == word);
    let since = before.map_or(Time(time::truncate(now)), |c| c.last_transition_time.clone());
    let fresh = Condition {
        type_: CONDITION.into(),
        status: word.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: budget.metadata.generation,
        last_transition_time: since,
    };
    match all.iter_mut().find(|c| c.type_ == CONDITION) {
        Some(there) => *there = fresh,
        None => all.push(fresh),
    }
    all
}

impl Budgets {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(budget) = self.budgets.get(&key.namespace, &key.name) else { return Ok(None) };
        let pods: Vec<Arc<Pod>> =
            self.pods.list_namespace(&key.namespace).into_iter().filter(|p| selects(&budget, p)).collect();
        if pods.is_empty() {
            self.events.event(&object_ref(&*budget), EventType::Normal, "NoPods", "No matching pods found");
        }
        let now = Timestamp::now();
        let count = i32::try_from(pods.len()).unwrap_or(i32::MAX);
        let spec = budget.spec.clone().unwrap_or_default();
        let by_scale =
            spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)));
        let scale = match by_scale {
            true => self.scale(&budget, &pods).await,
            false => Ok(count),
        };
        let scale = match scale {
            Ok(scale) => scale,
            Err(e) => {
                // Nothing is evicted by a budget that is not understood.
                let message = format!("Failed to calculate the number of expected pods: {e}");
                self.tell(&budget, "CalculateExpectedPodCountFailed", message);
                let mut failed = budget.status.clone().unwrap_or_default();
                failed.disruptions_allowed = Some(0);
                failed.conditions =
                    Some(conditions(&budget, failed.conditions, "False", "SyncFailed", &e.to_string(), now));
                self.write(&budget, failed).await?;
                return Err(e);
            }
        };
        let (kept, again) = disrupted(&budget, &pods, now);
        self.write(&budget, status(&budget, &pods, &wanted(&budget, count, scale), kept, now)).await?;
        Ok(again)
    }

    fn tell(&self, budget: &PodDisruptionBudget, reason: &str, message: String) {
        self.events.event(&object_ref(budget), EventType::Warning, reason, message);
    }

    async fn write(
        &self,
        budget: &PodDisruptionBudget,
        status: PodDisruptionBudgetStatus,
    ) -> Result<(), Error> {
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let changed = PodDisruptionBudget { status: Some(status), ..budget.clone() };
        match self.client.update_status(&changed).await {
            Err(e) if e.is_not_found() => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    /// How many pods the owners of these pods are to have together.
    async fn scale(&self, budget: &PodDisruptionBudget, pods: &[Arc<Pod>]) -> Result<i32, Error> {
        let (mut scales, mut alone) = (HashMap::new(), Vec::new());
        let mut seen = HashMap::new();
        for pod in pods {
            let Some(owner) = pod.controller() else {
                alone.push(pod.name());
                continue;
            };
            if seen.insert(owner.uid.clone(), ()).is_some() {
                continue;
            }
            let (uid, replicas) = self
                .scale_of(pod.namespace(), owner)
                .await?
                .ok_or_else(|| Error::Other(format!("found no controllers for pod {:?}", pod.name())))?;
            scales.insert(uid, replicas);
        }
        if !alone.is_empty() {
            self.tell(
                budget,
                "UnmanagedPods",
                format!(
                    "Pods selected by this PodDisruptionBudget were found to be unmanaged: {}. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
                    alone.join(", ")
                ),
            );
        }
        Ok(scales.values().fold(0, |sum: i32, n| sum.saturating_add(*n)))
    }

    /// Who decides how many pods an owner has, and how many that is.
    async fn scale_of(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<Option<(String, i32)>, Error> {
        let is = |uid: &str| uid == owner.uid;
        match owner.kind.as_str() {
            "ReplicaSet" if owner.api_version == "apps/v1" => {
                let Some(set) = self.replica_sets.get(namespace, &owner.name).filter(|s| is(s.uid())) else {
                    return Ok(None);
                };
                let above = set.controller().filter(|c| c.kind == "Deployment");
                let above =
                    above.and_then(|c| self.deployments.get(namespace, &c.name).filter(|d| d.uid() == c.uid));
                Ok(Some(match above {
                    Some(d) => (d.uid().into(), d.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)),
                    None => (set.uid().into(), set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)),
                }))
            }
            "StatefulSet" if owner.api_version == "apps/v1" => {
                let set = self.stateful_sets.get(namespace, &owner.name).filter(|s| is(s.uid()));
                Ok(set.map(|s| (s.uid().into(), s.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1))))
            }
            "ReplicationController" if owner.api_version == "v1" => {
                let set = self.controllers.get(namespace, &owner.name).filter(|s| is(s.uid()));
                Ok(set.map(|s| (s.uid().into(), s.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1))))
            }
            _ => self.other_scale(namespace, owner).await,
        }
    }

    /// Any other kind tells its scale by its subresource.
    async fn other_scale(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<Option<(String, i32)>, Error> {
        let discovery = self.client.discover().await?;
        let Some(info) = discovery.of_kind(&owner.api_version, &owner.kind) else { return Ok(None) };
        let object = self.client.get_dyn(&info.resource, namespace, &owner.name).await?;
        let uid = object.pointer("/metadata/uid").and_then(serde_json::Value::as_str).unwrap_or_default();
        let replicas = object.pointer("/spec/replicas").and_then(serde_json::Value::as_i64);
        let replicas = replicas.and_then(|r| i32::try_from(r).ok());
        Ok(replicas.filter(|_| uid == owner.uid).map(|r| (uid.to_string(), r)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
        serde_json::from_value(
            json!({"metadata": {"name": "b", "generation": 2}, "spec": spec, "status": status}),
        )
        .unwrap()
    }

    fn pod(name: &str, ready: &str) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"containers": []},
                "status": {"conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
            .unwrap(),
        )
    }

    #[test]
    fn what_a_budget_wants() {
        for (spec, expected, healthy) in [
            (json!({"minAvailable": 2}), 4, 2),
            (json!({"minAvailable": "50%"}), 5, 3),
            (json!({"maxUnavailable": 1}), 5, 4),
            (json!({"maxUnavailable": "50%"}), 5, 2),
            (json!({"maxUnavailable": 9}), 5, 0),
        ] {
            assert_eq!(
                wanted(&budget(spec.clone(), json!({})), 4, 5),
                Wanted { expected, healthy },
                "{spec}"
            );
        }
    }

    #[test]
    fn the_status_counts_what_is_healthy() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let granted = json!({"disruptedPods": {"a": "2026-01-01T00:00:30Z", "gone": "2026-01-01T00:00:30Z", "b": "2025-01-01T00:00:00Z"}});
        let b = budget(json!({"minAvailable": 1}), granted);
        let pods = [pod("a", "True"), pod("b", "True"), pod("c", "True"), pod("d", "False")];
        let (kept, again) = disrupted(&b, &pods, now);
        assert_eq!(
            (kept.keys().cloned().collect::<Vec<_>>(), again),
            (vec!["a".to_string()], Some(Duration::from_secs(90)))
        );
        let s = status(&b, &pods, &wanted(&b, 4, 4), kept, now);
        assert_eq!(
            (s.current_healthy, s.disruptions_allowed, s.observed_generation),
            (Some(2), Some(1), Some(2))
        );
        assert_eq!(s.conditions.unwrap()[0].reason, "SufficientPods");
    }
}
