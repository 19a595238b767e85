//! POST to `pods/NAME/eviction`: a deletion that disruption budgets may put off.

use crate::respond;
use crate::verbs::modify::{How, Made, modify};
use crate::verbs::options::check_delete;
use crate::verbs::{Answer, Request, internal, subresource};
use admission::Operation;
use api::object::Object;
use api::selector::LabelSelector;
use api::{GroupResource, Status, read};
use bytes::Bytes;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Time};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};

/// Evicts the pod.
pub async fn create(request: &Request, body: Bytes) -> Answer {
    let eviction: Eviction =
        serde_json::from_value(subresource::body_of(request, "eviction", &body)?).map_err(internal)?;
    request.server.consistent().await.map_err(crate::verbs::store_failed)?;
    let name = &request.info.name;
    let pod: Pod =
        read::get(&*request.server, &request.info.namespace, name).ok_or_else(|| request.not_found())?;
    let mut eviction = Object::new(eviction);
    let admission = request.admission(Operation::Create, "eviction", name, None);
    request.server.admission.admit(&admission, Some(&mut eviction)).await?;
    request.server.admission.validate(&admission, Some(&eviction)).await?;
    let mut options: DeleteOptions =
        eviction.get::<Eviction>().and_then(|e| e.delete_options.clone()).unwrap_or_default();
    check_delete(&options)?;
    // What is deleted is the pod, which is another request than to evict it.
    let mut deletion = request.another(&request.resource.group_resource, &request.info.namespace, name)?;
    deletion.options.dry_run |= options.dry_run.as_ref().is_some_and(|d| !d.is_empty());
    let deletion = &deletion;
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    let free =
        matches!(phase, "Succeeded" | "Failed" | "Pending") || pod.metadata.deletion_timestamp.is_some();
    let mut unready = false;
    if !free {
        let labels = pod.metadata.labels.clone();
        let budgets: Vec<PodDisruptionBudget> = read::list(&*request.server, Some(&request.info.namespace));
        let covers = |b: &&PodDisruptionBudget| {
            let selector = b.spec.as_ref().and_then(|s| s.selector.as_ref());
            selector.is_some_and(|s| {
                LabelSelector::from_object(s).is_ok_and(|s| s.matches_labels(labels.as_ref()))
            })
        };
        let mut covering = budgets.iter().filter(covers);
        if let Some(budget) = covering.next() {
            if covering.next().is_some() {
                return Err(Status::failure(
                    500,
                    "InternalError",
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
            unready = spend(deletion, budget, &pod).await?;
        }
    }
    // One that goes because it is not ready must not have become so since.
    let guarded = unready && options.preconditions.as_ref().is_none_or(|p| p.resource_version.is_none());
    if guarded {
        options.preconditions.get_or_insert_default().resource_version =
            pod.metadata.resource_version.clone();
    }
    let done = async {
        let options = if deletion.options.dry_run { options } else { say_why(deletion, options).await? };
        crate::verbs::delete::delete_one(deletion, &options).await.map(drop)
    };
    match done.await {
        Err(e) if guarded && e.is_conflict() => return Err(refused()),
        done => done?,
    }
    respond::value(
        request,
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    )
}

/// Lets the pod's status say what ends it, which Jobs and others go by. The options still hold for the pod so changed.
async fn say_why(request: &Request, mut options: DeleteOptions) -> Result<DeleteOptions, Status> {
    let wanted = options.preconditions.clone().unwrap_or_default();
    let make = |old: &Value| {
        let mut pod: Pod = serde_json::from_value(old.clone()).map_err(internal)?;
        let differs = |asked: &Option<String>, is: &Option<String>| asked.is_some() && asked != is;
        if differs(&wanted.uid, &pod.metadata.uid)
            || differs(&wanted.resource_version, &pod.metadata.resource_version)
        {
            let why = "the pod is another than the precondition asks for: it might have been deleted and made again, or modified";
            return Err(Status::conflict(&request.resource.group_resource, &request.info.name, why));
        }
        let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
        let now = Time(request.now);
        let since = conditions
            .iter()
            .find(|c| c.type_ == "DisruptionTarget" && c.status == "True")
            .and_then(|c| c.last_transition_time.clone());
        conditions.retain(|c| c.type_ != "DisruptionTarget");
        conditions.push(PodCondition {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
            reason: Some("EvictionByEvictionAPI".into()),
            message: Some("Eviction API: evicting".into()),
            last_transition_time: since.or(Some(now)),
            ..PodCondition::default()
        });
        Ok(Made { value: serde_json::to_value(pod).map_err(internal)?, applied: true })
    };
    let how = How { part: None, checked: false, manager: "kube-apiserver" };
    let changed = modify(request, how, &make).await?.ok_or_else(|| request.not_found())?;
    if let Some(p) = options.preconditions.as_mut().filter(|p| p.resource_version.is_some()) {
        p.resource_version = Some(changed.entry().revision.to_string());
    }
    Ok(options)
}

fn refused() -> Status {
    Status::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 10)
}

/// Takes one disruption off the budget, or says that none is left. True if none is needed, since the pod is not ready.
async fn spend(request: &Request, budget: &PodDisruptionBudget, pod: &Pod) -> Result<bool, Status> {
    let ready = pod
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten())
        .any(|c| c.type_ == "Ready" && c.status == "True");
    let always =
        budget.spec.as_ref().and_then(|s| s.unhealthy_pod_eviction_policy.as_deref()) == Some("AlwaysAllow");
    if !ready && always {
        return Ok(true);
    }
    let resource = GroupResource::new("policy", "poddisruptionbudgets");
    let name = budget.metadata.name.clone().unwrap_or_default();
    let inner = request.another(&resource, &request.info.namespace, &name)?;
    let pod_name = pod.metadata.name.clone().unwrap_or_default();
    let now = Time(request.now);
    let spared = AtomicBool::new(false);
    let make = |old: &Value| {
        let mut budget: PodDisruptionBudget = serde_json::from_value(old.clone()).map_err(internal)?;
        let generation = budget.metadata.generation.unwrap_or(0);
        let status = budget.status.get_or_insert_default();
        let (allowed, current) =
            (status.disruptions_allowed.unwrap_or(0), status.current_healthy.unwrap_or(0));
        let desired = status.desired_healthy.unwrap_or(0);
        let healthy_enough = current >= desired && desired > 0;
        spared.store(!ready && healthy_enough, Ordering::Release);
        if spared.load(Ordering::Acquire) {
            return Ok(Made { value: old.clone(), applied: true });
        }
        let refuse = |message: &str| Err(refused().cause("DisruptionBudget", message, ""));
        if status.observed_generation.unwrap_or(0) < generation {
            return refuse(&format!(
                "The disruption budget {} is still being processed by the server.",
                inner.info.name
            ));
        }
        if allowed <= 0 {
            return refuse(&format!(
                "The disruption budget {} needs {} healthy pods and has {} currently",
                inner.info.name, desired, current
            ));
        }
        status.disruptions_allowed = Some(allowed - 1);
        status.disrupted_pods.get_or_insert_default().insert(pod_name.clone(), now.clone());
        Ok(Made { value: serde_json::to_value(budget).map_err(internal)?, applied: false })
    };
    if request.options.dry_run {
        let current = serde_json::to_value(budget).map_err(internal)?;
        make(&current)?;
    } else {
        modify(&inner, How { part: None, checked: false, manager: "kube-apiserver" }, &make).await?;
    }
    Ok(spared.into_inner())
}
