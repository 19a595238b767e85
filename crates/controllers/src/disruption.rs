//! PodDisruptionBudgets: how many pods may be evicted now.
//! Watches budgets and pods; a pod leads to the budgets that select it.

use crate::common::{conditions, intstr, pods, scale, selectors::Selectors};
use crate::{Context, Error, Outcome};
use api::ObjectKey;
use api::selector::LabelSelector;
use api::time;
use client::{Client, EventRecorder, EventType, Lister, ObjectExt, Patch, SharedDiscovery, object_ref};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "disruption-controller";
const CONDITION: &str = "DisruptionAllowed";
/// A pod whose eviction was granted is gone by then, or it never will be.
const DELETION: Duration = Duration::from_secs(120);
/// A pod that is still there so long after it was marked to be disrupted will not be.
const STALE: Duration = Duration::from_secs(120);

/// A budget, or a pod that was marked to be disrupted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    Budget(ObjectKey),
    Marked(ObjectKey),
}

struct Budgets {
    client: Client,
    events: EventRecorder,
    budgets: Lister<PodDisruptionBudget>,
    pods: Lister<Pod>,
    replica_sets: Lister<ReplicaSet>,
    deployments: Lister<Deployment>,
    stateful_sets: Lister<StatefulSet>,
    controllers: Lister<ReplicationController>,
    discovery: SharedDiscovery,
    selectors: Selectors,
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
        discovery: ctx.discovery.clone(),
        selectors: Selectors::default(),
    });
    let (for_budgets, for_pods, all) = (this.clone(), this.clone(), budgets.lister());
    ctx.controller::<Work>(NAME)
        .on(&budgets, move |event, queue| {
            if event.is_deleted() {
                for_budgets.selectors.forget(event.object().uid());
            }
            queue.add(Work::Budget(event.object().key()));
        })
        .on(&pods, move |event, queue| {
            let pod = event.object();
            for budget in all.list_namespace(pod.namespace()) {
                let Some(selector) = for_pods.selector(&budget) else { continue };
                let mut states = event.old().into_iter().chain([pod]);
                if states.any(|p| selector.matches_labels(p.metadata.labels.as_ref())) {
                    queue.add(Work::Budget(budget.key()));
                }
            }
            if let Some(left) = stale_in(pod, Timestamp::now()).filter(|_| !event.is_deleted()) {
                queue.add_after(Work::Marked(pod.key()), left);
            }
        })
        .wait_for(&replica_sets)
        .wait_for(&deployments)
        .wait_for(&stateful_sets)
        .wait_for(&controllers)
        .run(ctx.workers(NAME, 1), ctx.shutdown, move |work| {
            let this = this.clone();
            async move {
                match work {
                    Work::Budget(key) => this.reconcile(key).await,
                    Work::Marked(key) => this.unmark(key).await,
                }
            }
        })
        .await;
}

/// In how long a pod's mark that it will be disrupted is stale; none if it has none that can be.
fn stale_in(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let mark = pods::condition(pod, "DisruptionTarget").filter(|c| c.status == "True")?;
    // The kubelet's may take any time.
    if pod.is_deleting() || pods::is_terminal(pod) || mark.reason.as_deref() == Some("TerminationByKubelet") {
        return None;
    }
    let since = mark.last_transition_time.as_ref().map_or(Timestamp::MIN, |t| t.0);
    Some(time::until(time::later(since, STALE), now).unwrap_or_default())
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
        conditions: Some(with_condition(budget, old.conditions, word, reason, "", now)),
    }
}

fn with_condition(
    budget: &PodDisruptionBudget,
    old: Option<Vec<Condition>>,
    word: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Vec<Condition> {
    let mut all = old.unwrap_or_default();
    let fresh = Condition {
        type_: CONDITION.into(),
        status: word.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: budget.metadata.generation,
        last_transition_time: Time(time::truncate(now)),
    };
    conditions::set(&mut all, fresh);
    all
}

impl Budgets {
    fn selector(&self, budget: &PodDisruptionBudget) -> Option<Arc<LabelSelector>> {
        let spec = budget.spec.as_ref()?.selector.as_ref()?;
        self.selectors.of(budget, |_| LabelSelector::from_object(spec))
    }

    /// A pod whose eviction never happened is no longer said to be disrupted: Jobs go by that.
    async fn unmark(&self, key: ObjectKey) -> Outcome {
        let Some(pod) = self.pods.get(&key.namespace, &key.name) else { return Ok(None) };
        match stale_in(&pod, Timestamp::now()) {
            None => return Ok(None),
            Some(left) if !left.is_zero() => return Ok(Some(left)),
            Some(_) => {}
        }
        let condition = json!({
            "type": "DisruptionTarget", "status": "False", "reason": null, "message": null, "lastTransitionTime": time::now(),
        });
        let body = json!({"metadata": {"uid": pod.uid(), "resourceVersion": pod.resource_version()}, "status": {"conditions": [condition]}});
        match self.client.patch_status::<Pod>(pod.namespace(), pod.name(), &Patch::Strategic(body)).await {
            Err(e) if e.is_not_found() => Ok(None),
            other => other.map(|_| None).map_err(Into::into),
        }
    }

    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(budget) = self.budgets.get(&key.namespace, &key.name) else { return Ok(None) };
        let mut pods = match self.selector(&budget) {
            Some(_) => self.pods.list_namespace(&key.namespace),
            None => Vec::new(),
        };
        if let Some(selector) = self.selector(&budget) {
            pods.retain(|p| selector.matches_labels(p.metadata.labels.as_ref()));
        }
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
                failed.conditions = Some(with_condition(
                    &budget,
                    failed.conditions,
                    "False",
                    "SyncFailed",
                    &e.to_string(),
                    now,
                ));
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
        let kind = (owner.api_version.as_str(), owner.kind.as_str());
        match scale::get(&self.client, &self.discovery, kind, namespace, &owner.name).await {
            Ok((_, scale)) if scale.metadata.uid.as_deref() == Some(&owner.uid) => {
                let replicas = scale.spec.and_then(|s| s.replicas).unwrap_or_default();
                Ok(Some((owner.uid.clone(), replicas)))
            }
            Ok(_) => Ok(None),
            Err(Error::Client(e)) if e.is_not_found() => Err(Error::Other(format!(
                "{} {} is gone or does not implement the scale subresource",
                owner.kind, owner.name
            ))),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

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

    #[test]
    fn a_mark_that_came_to_nothing_is_stale() {
        let now: Timestamp = "2026-01-01T00:03:00Z".parse().unwrap();
        for (status, reason, since, phase, want) in [
            ("True", "EvictionByEvictionAPI", "2026-01-01T00:00:00Z", "Running", Some(0)),
            ("True", "EvictionByEvictionAPI", "2026-01-01T00:02:30Z", "Running", Some(90)),
            ("False", "", "2026-01-01T00:00:00Z", "Running", None),
            ("True", "TerminationByKubelet", "2026-01-01T00:00:00Z", "Running", None),
            ("True", "PreemptionByScheduler", "2026-01-01T00:00:00Z", "Failed", None),
        ] {
            let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": []}, "status": {"phase": phase,
                "conditions": [{"type": "DisruptionTarget", "status": status, "reason": reason, "lastTransitionTime": since}]}}))
            .unwrap();
            assert_eq!(stale_in(&pod, now).map(|d| d.as_secs()), want, "{status} {reason} {since} {phase}");
        }
    }
}
