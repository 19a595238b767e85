//! DELETE of an object, or of a collection.

use super::modify::{How, Made, Outcome, from_store, modify, remove};
use super::{Answer, Request, internal, store_failed, to_json};
use crate::cache::Entry;
use crate::request::Verb;
use crate::respond;
use admission::Operation;
use api::Status;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Time};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Expect, StoreError};

/// Times the object may change under a deletion before it is given up.
const TRIES: usize = 32;

/// Deletes the object asked for.
pub async fn delete(request: &Request) -> Answer {
    request.resource.collection("delete")?;
    let options = request.options.delete.clone().unwrap_or_default();
    let unsaid = options.propagation_policy.is_none() && options.orphan_dependents.is_none();
    if unsaid && request.resource.names.plural == "jobs" {
        request.warn("child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning");
    }
    match delete_one(request, &options).await? {
        Outcome::Kept(entry) => request.answer(200, &entry),
        Outcome::Gone(last) if request.resource.kind.answers_deleted() => request.answer(200, &last),
        Outcome::Gone(last) => {
            let uid = last
                .value()
                .map_err(internal)?
                .pointer("/metadata/uid")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_string();
            let status = Status::success(&request.face.group_resource, &request.info.name, &uid);
            Ok(respond::status(&status, request.accepted.format))
        }
    }
}

/// Deletes the object asked for, or begins to. It is kept while something holds it.
pub async fn delete_one(request: &Request, options: &DeleteOptions) -> Result<Outcome, Status> {
    let collection = request.resource.collection("delete")?;
    let key = request.key();
    let mut current = collection.get(&key);
    let mut fresh = false;
    for _ in 0..TRIES {
        if current.is_none() && !fresh {
            (current, fresh) = (from_store(request, &key).await?, true);
        }
        let Some(old) = current.take() else { return Err(request.not_found()) };
        let value = old.value().map_err(internal)?;
        if let Err(refused) = preconditions(request, options, &value, &old) {
            if fresh {
                return Err(refused);
            }
            continue;
        }
        let object = request.resource.kind.read(&value)?;
        let admission = request.admission(Operation::Delete, "", &request.info.name, Some(&object));
        request.server.admission.admit(&admission, None).await?;
        request.server.admission.validate(&admission, None).await?;
        let plan = plan(request, options, &value, &object)?;
        let done = match plan {
            Plan::Nothing => return Ok(Outcome::Kept(old)),
            Plan::Remove => remove(request, &old, Expect::Unchanged(old.revision))
                .await
                .map(|revision| Outcome::Gone(Arc::new(old.at(revision)))),
            Plan::Mark(marked) => mark(request, &old, marked).await?,
        };
        match done {
            Ok(outcome) => return Ok(outcome),
            Err(StoreError::Conflict(_)) => fresh = false,
            Err(e) => return Err(store_failed(e)),
        }
    }
    Err(Status::modified(&request.face.group_resource, &request.info.name))
}

fn preconditions(
    request: &Request,
    options: &DeleteOptions,
    value: &Value,
    old: &Entry,
) -> Result<(), Status> {
    let Some(wanted) = &options.preconditions else { return Ok(()) };
    let conflict = |why: String| Status::conflict(&request.face.group_resource, &request.info.name, &why);
    let uid = value.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
    if let Some(want) = wanted.uid.as_deref().filter(|w| *w != uid) {
        return Err(conflict(format!(
            "Precondition failed: UID in precondition: {want}, UID in object meta: {uid}"
        )));
    }
    if let Some(want) = wanted.resource_version.as_deref().filter(|w| *w != old.revision.to_string()) {
        return Err(conflict(format!(
            "Precondition failed: ResourceVersion in precondition: {want}, ResourceVersion in object meta: {}",
            old.revision
        )));
    }
    Ok(())
}

enum Plan {
    Nothing,
    Remove,
    Mark(Value),
}

/// Whether the object goes at once, or is marked and waits for its grace period and its finalizers.
fn plan(
    request: &Request,
    options: &DeleteOptions,
    value: &Value,
    object: &api::object::Object,
) -> Result<Plan, Status> {
    let kind = &request.resource.kind;
    let mut grace = kind.grace(object, options.grace_period_seconds);
    let mut marked = value.clone();
    let meta = object.meta();
    let deleting = meta.deletion_timestamp.is_some();
    if deleting {
        // A period once set can only be shortened.
        let left = meta.deletion_grace_period_seconds.unwrap_or(0);
        if grace.is_some_and(|g| g >= left) && left > 0 {
            return Ok(Plan::Nothing);
        }
        if left == 0 {
            grace = None;
        }
    }
    let before: Vec<String> = meta.finalizers.clone().unwrap_or_default();
    let finalizers = with_propagation(options, before.clone(), kind.orphans());
    marked["metadata"]["finalizers"] = json!(finalizers);
    if finalizers.is_empty()
        && let Some(Value::Object(meta)) = marked.get_mut("metadata")
    {
        meta.remove("finalizers");
    }
    let seconds = grace.unwrap_or(0);
    let held = !finalizers.is_empty() || seconds > 0 || kind.held(object);
    if !held {
        return Ok(Plan::Remove);
    }
    let shortened = deleting && grace.is_some();
    if deleting && finalizers == before && !shortened {
        return Ok(Plan::Nothing);
    }
    if !deleting || shortened {
        let at = Time(
            request.now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(jiff::Timestamp::MAX),
        );
        marked["metadata"]["deletionTimestamp"] = serde_json::to_value(at).map_err(internal)?;
        marked["metadata"]["deletionGracePeriodSeconds"] = seconds.into();
    }
    if !deleting {
        if let Some(generation) = meta.generation.filter(|g| *g > 0) {
            marked["metadata"]["generation"] = (generation + 1).into();
        }
        let mut object = kind.read(&marked)?;
        kind.prepare_delete(&mut object);
        marked = to_json(request, &object)?;
    }
    Ok(Plan::Mark(marked))
}

/// What becomes of dependents is a finalizer's business.
fn with_propagation(options: &DeleteOptions, mut finalizers: Vec<String>, orphans: bool) -> Vec<String> {
    let policy = match (options.propagation_policy.as_deref(), options.orphan_dependents) {
        (None, Some(true)) => Some("Orphan"),
        (None, Some(false)) => Some("Background"),
        // What the object says itself goes before what its kind does.
        (None, None) if orphans && !finalizers.iter().any(|f| f == "foregroundDeletion") => Some("Orphan"),
        (policy, _) => policy,
    };
    let Some(policy) = policy else { return finalizers };
    let wanted = match policy {
        "Orphan" => Some("orphan"),
        "Foreground" => Some("foregroundDeletion"),
        _ => None,
    };
    finalizers
        .retain(|f| !matches!(f.as_str(), "orphan" | "foregroundDeletion") || Some(f.as_str()) == wanted);
    if let Some(wanted) = wanted
        && !finalizers.iter().any(|f| f == wanted)
    {
        finalizers.push(wanted.into());
    }
    finalizers
}

async fn mark(
    request: &Request,
    old: &Arc<Entry>,
    marked: Value,
) -> Result<Result<Outcome, StoreError>, Status> {
    let how = How { part: None, checked: false, manager: "" };
    let revision = old.revision;
    let make = move |now: &Value| {
        // Another state than the one the plan was made for: plan again.
        let same =
            now.pointer("/metadata/resourceVersion").and_then(Value::as_str) == Some(&revision.to_string());
        if same {
            Ok(Made { value: marked.clone(), applied: true })
        } else {
            Err(Status::modified(&request.face.group_resource, &request.info.name))
        }
    };
    match modify(request, how, &make).await {
        Ok(Some(outcome)) => Ok(Ok(outcome)),
        Ok(None) => Err(request.not_found()),
        Err(e) if e.is_conflict() => Ok(Err(StoreError::Conflict(None))),
        Err(e) => Err(e),
    }
}

/// Deletes every object that the selectors want.
pub async fn delete_collection(request: Arc<Request>) -> Answer {
    if request.resource.kind.verbs() != resources::Verbs::All {
        return Err(Status::method_not_supported(&request.face.group_resource, "deletecollection"));
    }
    let collection = request.resource.collection("deletecollection")?.clone();
    let options = request.options.delete.clone().unwrap_or_default();
    let filter = request.face.filter(&request.info)?;
    super::get::wait(&request, None).await?;
    let (items, revision) = collection.narrowed(&filter, request.server.cache.applied());
    let wanted = super::list::select(&items, &filter, None, usize::MAX);
    for entry in &wanted {
        let mut info = (*request.info).clone();
        info.namespace = entry.namespace().to_string();
        info.name = entry.name().to_string();
        info.verb = Verb::Delete;
        let one = request.derived(info, request.face.clone());
        match delete_one(&one, &options).await {
            Ok(_) => {}
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e),
        }
    }
    respond::list(&request, wanted.into_iter(), respond::ListMeta { revision, next: None, remaining: None })
        .await
}
