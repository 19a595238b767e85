//! Changing an object that is there: read it, make the new one, check it, write it if the old one has not
//! changed meanwhile; otherwise again. PUT, PATCH, apply, subresources and graceful deletion all end here.

use super::create::{commit, group_kind, put_fields, take_fields};
use super::{Request, internal, store_failed, to_json};
use crate::cache::Entry;
use crate::cache::entry::canonical;
use admission::Operation;
use api::Status;
use api::field::{FieldErrors, FieldPath};
use api::object::Object;
use resources::meta;
use serde_json::{Map, Value};
use std::sync::Arc;
use store::{Change, Commit, Durability, Expect, StoreError};

/// How often an object may change under a request that does not say which state it means.
const TRIES: usize = 32;

/// Makes the new object of the old one.
pub type Make<'a> = &'a (dyn Fn(&Value) -> Result<Made, Status> + Send + Sync);

/// A new object, and whether the fields it owns are settled.
pub struct Made {
    /// The object.
    pub value: Value,
    /// Server-side apply has settled managedFields itself.
    pub applied: bool,
}

/// What a change is.
#[derive(Clone, Copy)]
pub struct How<'a> {
    /// The subresource that is written: `None` for the object itself.
    pub part: Option<&'a str>,
    /// The rules of updates hold: PUT and PATCH. Without it, `make` is trusted: deletion and bindings.
    pub checked: bool,
    /// The field manager's name.
    pub manager: &'a str,
}

/// What came of a change.
pub enum Outcome {
    /// It is written, or nothing was to be written.
    Kept(Arc<Entry>),
    /// The change took away what held a deleted object, and it is gone; this is its last state.
    Gone(Arc<Entry>),
}

impl Outcome {
    /// The object after it.
    pub fn entry(self) -> Arc<Entry> {
        match self {
            Outcome::Kept(entry) | Outcome::Gone(entry) => entry,
        }
    }
}

/// The object of a name as the store has it now, which may be newer than the cache.
pub async fn from_store(request: &Request, key: &str) -> Result<Option<Arc<Entry>>, Status> {
    let collection = request.resource.collection("update")?;
    let kv = request.server.store.get(&format!("{}{key}", collection.prefix)).await.map_err(store_failed)?;
    kv.map(|kv| entry_of(request, &kv)).transpose()
}

fn entry_of(request: &Request, kv: &store::KeyValue) -> Result<Arc<Entry>, Status> {
    let collection = request.resource.collection("update")?;
    let json = crate::codec::decode(&kv.value, &request.resource.schema, &*request.resource.kind)
        .map_err(internal)?;
    let key = kv.key.strip_prefix(&*collection.prefix).unwrap_or(&kv.key);
    Entry::new(key.into(), kv.mod_revision, &json, &collection.selectable).map(Arc::new).map_err(internal)
}

/// Changes the object asked for. `None` if it is not there.
pub async fn modify(request: &Request, how: How<'_>, make: Make<'_>) -> Result<Option<Outcome>, Status> {
    let collection = request.resource.collection("update")?;
    let key = request.key();
    request.announce();
    // What the cache has is tried first; the store says if it is not the newest.
    let mut current = match collection.get(&key) {
        Some(entry) => Some(entry),
        None => from_store(request, &key).await?,
    };
    for _ in 0..TRIES {
        let Some(old) = current else { return Ok(None) };
        let error = match attempt(request, how, make, &old).await {
            Ok(Outcome::Kept(kept)) if Arc::ptr_eq(&kept, &old) => {
                // Nothing was to be written, which holds only for the newest state.
                let newest = from_store(request, &key).await?;
                if newest.as_ref().is_some_and(|n| n.revision == old.revision) {
                    return Ok(Some(Outcome::Kept(kept)));
                }
                current = newest;
                continue;
            }
            Ok(outcome) => return Ok(Some(outcome)),
            Err(Failed::Store(StoreError::Conflict(now))) => {
                current = now.map(|kv| entry_of(request, &kv)).transpose()?;
                continue;
            }
            Err(Failed::Store(e)) => store_failed(e),
            Err(Failed::Refused(status)) => status,
        };
        // A refusal may come of a state that is no longer: look again before it is given.
        let newest = from_store(request, &key).await?;
        if newest.as_ref().is_some_and(|n| n.revision == old.revision) {
            return Err(error);
        }
        current = newest;
    }
    Err(Status::modified(&request.face.group_resource, &request.info.name))
}

enum Failed {
    Store(StoreError),
    Refused(Status),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Failed::Refused(status)
    }
}

/// Metadata that only the server writes.
const SYSTEM_FIELDS: [&str; 6] =
    ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"];

async fn attempt(
    request: &Request,
    how: How<'_>,
    make: Make<'_>,
    old_entry: &Arc<Entry>,
) -> Result<Outcome, Failed> {
    let resource = &request.resource;
    let kind = &resource.kind;
    let name = request.info.name.as_str();
    let mut old_value = old_entry.value().map_err(internal)?;
    let Made { mut value, applied } = make(&old_value)?;
    // Nothing but the tracking of fields looks at them.
    let old_fields = take_fields(&mut old_value);
    let old = kind.read(&old_value)?;
    put_fields(&mut old_value, old_fields);
    let mut new_object = None;
    let mut claim = crate::services::Claim::default();
    if how.checked {
        preconditions(request, &value, old_entry, &old_value)?;
        keep_system_fields(&mut value, &old_value);
        match how.part {
            None if kind.has_status() => copy(&old_value, &mut value, "status"),
            Some("status") => only_status(&mut value, &old_value),
            _ => {}
        }
        api::json::default(&mut value, &resource.schema);
        api::json::omit_zeros(&mut value, &resource.schema);
        let mut fields = take_fields(&mut value);
        let unchanged = fields.as_ref() == old_value.pointer("/metadata/managedFields");
        if !applied && !unchanged {
            put_fields(&mut value, fields.clone()); // they were sent, and are to be valid
        }
        let mut new = kind.read(&value)?;
        super::create::check_scope(request, &mut new)?;
        kind.default(&mut new);
        if !applied {
            // What admission and the server itself change is nobody's.
            let mut sent = to_json(request, &new)?;
            put_fields(&mut sent, fields);
            request.track(Some(&old_value), &mut sent, how.part.unwrap_or_default(), how.manager);
            fields = take_fields(&mut sent);
        }
        let admission = request.admission(Operation::Update, how.part.unwrap_or_default(), name, Some(&old));
        request.server.admission.admit(&admission, Some(&mut new)).await?;
        match how.part {
            None => kind.prepare_update(&mut new, &old, &request.context()),
            Some(part) => kind.prepare_part(part, &mut new, &old, &request.context()),
        }
        check(request, how, &new, &old, &admission).await?;
        claim = match how.part {
            None => request.server.services.claim(request, &mut new, Some(&old)).await?,
            _ => Default::default(),
        };
        value = to_json(request, &new)?;
        put_fields(&mut value, fields);
        if kind.has_generation() && how.part.is_none_or(|p| p != "status") && spec_changed(&value, &old_value)
        {
            let generation = old.meta().generation.unwrap_or(0) + 1;
            value["metadata"]["generation"] = generation.into();
        }
        new_object = Some(new);
    } else if !applied {
        request.track(Some(&old_value), &mut value, how.part.unwrap_or_default(), how.manager);
    }
    if same(&value, &old_value) {
        claim.settle(request, false).await;
        return Ok(Outcome::Kept(old_entry.clone()));
    }
    let meta_of =
        |v: &Value, field: &str| v.pointer(&format!("/metadata/{field}")).cloned().unwrap_or_default();
    let deleting = !meta_of(&value, "deletionTimestamp").is_null();
    let expect = Expect::Unchanged(old_entry.revision);
    if deleting && !is_held(request, &value, new_object.as_ref())? {
        let outcome = remove(request, old_entry, expect).await.map_err(Failed::Store)?;
        let last = Entry::new(
            old_entry.key.clone(),
            outcome,
            &canonical(&value).map_err(internal)?,
            &resource.collection("delete")?.selectable,
        );
        return Ok(Outcome::Gone(Arc::new(last.map_err(internal)?)));
    }
    let committed = match canonical(&value) {
        Ok(json) => commit(request, name, expect, json.into()).await,
        Err(e) => Ok(Err(internal(e))),
    };
    claim.settle(request, matches!(committed, Ok(Ok(_)))).await;
    Ok(Outcome::Kept(committed.map_err(Failed::Store)??))
}

/// Whether a deleted object still waits for someone: finalizers, its grace period, or what its kind says.
pub fn is_held(request: &Request, value: &Value, object: Option<&Object>) -> Result<bool, Status> {
    let finalizers =
        value.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty());
    let grace =
        value.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|s| s > 0);
    if finalizers || grace {
        return Ok(true);
    }
    match object {
        Some(object) => Ok(request.resource.kind.held(object)),
        None => Ok(request.resource.kind.held(&request.resource.kind.read(value)?)),
    }
}

/// Removes an object from the store.
pub async fn remove(request: &Request, old: &Arc<Entry>, expect: Expect) -> Result<u64, StoreError> {
    if request.options.dry_run {
        return Ok(old.revision);
    }
    let prefix = request.resource.collection.as_ref().map(|c| c.prefix.as_str()).unwrap_or_default();
    let how = request.resource.kind.stored();
    let commit = Commit {
        key: format!("{prefix}{}", old.key).into(),
        expect,
        change: Change::Delete,
        durability: if how.in_memory { Durability::Memory } else { Durability::Disk },
    };
    let revision = request.store(commit).await?;
    request.server.services.release(request, old).await;
    Ok(revision)
}

fn preconditions(request: &Request, value: &Value, old: &Entry, old_value: &Value) -> Result<(), Status> {
    let resource = &request.resource;
    let text = |field: &str| {
        value.pointer(&format!("/metadata/{field}")).and_then(Value::as_str).unwrap_or_default()
    };
    let name = text("name");
    if !name.is_empty() && name != request.info.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            request.info.name
        )));
    }
    let (uid, old_uid) =
        (text("uid"), old_value.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default());
    if !uid.is_empty() && uid != old_uid {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {old_uid}");
        return Err(Status::conflict(&request.face.group_resource, &request.info.name, &why));
    }
    match text("resourceVersion") {
        "" | "0" if resource.kind.unconditional_update() => Ok(()),
        "" | "0" => {
            let mut errors = FieldErrors::default();
            errors.invalid(
                FieldPath::root("metadata").child("resourceVersion"),
                &0,
                "must be specified for an update",
            );
            Err(Status::invalid(&group_kind(request), &request.info.name, &errors))
        }
        version if version == old.revision.to_string() => Ok(()),
        version if version.parse::<u64>().is_err() => Err(Status::bad_request(format!(
            "metadata.resourceVersion: Invalid value: {version:?}: must be a number"
        ))),
        _ => Err(Status::modified(&request.face.group_resource, &request.info.name)),
    }
}

fn object_of<'a>(value: &'a mut Value, field: &str) -> Option<&'a mut Map<String, Value>> {
    value.as_object_mut()?.entry(field).or_insert_with(|| Value::Object(Map::new())).as_object_mut()
}

fn copy(from: &Value, to: &mut Value, field: &str) {
    let Value::Object(to) = to else { return };
    match from.get(field) {
        Some(value) => to.insert(field.into(), value.clone()),
        None => to.remove(field),
    };
}

fn keep_system_fields(value: &mut Value, old: &Value) {
    let Some(meta) = object_of(value, "metadata") else { return };
    let old = old.get("metadata").and_then(Value::as_object);
    for field in SYSTEM_FIELDS.into_iter().chain(["name", "namespace"]) {
        match old.and_then(|old| old.get(field)) {
            Some(kept) => meta.insert(field.into(), kept.clone()),
            None if field == "name" || field == "namespace" => None,
            None => meta.remove(field),
        };
    }
}

/// A write of `status` changes status, and labels, annotations and finalizers along with it.
fn only_status(value: &mut Value, old: &Value) {
    let status = value.get("status").cloned();
    let metadata = value.get("metadata").cloned();
    *value = old.clone();
    let Value::Object(map) = value else { return };
    match status {
        Some(status) => map.insert("status".into(), status),
        None => map.remove("status"),
    };
    if let Some(mut metadata) = metadata {
        copy_from(old, &mut metadata, "ownerReferences");
        map.insert("metadata".into(), metadata);
    }
}

fn copy_from(old: &Value, metadata: &mut Value, field: &str) {
    let Value::Object(to) = metadata else { return };
    match old.pointer(&format!("/metadata/{field}")) {
        Some(value) => to.insert(field.into(), value.clone()),
        None => to.remove(field),
    };
}

async fn check(
    request: &Request,
    how: How<'_>,
    new: &Object,
    old: &Object,
    admission: &admission::Request<'_>,
) -> Result<(), Status> {
    let resource = &request.resource;
    let mut errors = FieldErrors::default();
    meta::validate(new.meta(), resource.namespaced, |_, _| Vec::new(), &mut errors);
    meta::validate_update(new.meta(), old.meta(), &mut errors);
    resource.kind.validate_update(how.part, new, old, &mut errors);
    if how.part.is_none() {
        request.check_face(new, Some(old), &mut errors)?;
    }
    if how.part.is_none_or(|part| part == "ephemeralcontainers") {
        crate::capabilities::check(&request.server.options, new, Some(old), &mut errors);
    }
    if !errors.is_empty() {
        return Err(Status::invalid(&group_kind(request), &request.info.name, &errors));
    }
    if how.part.is_none() {
        resource.kind.warnings(new, Some(old)).into_iter().for_each(|w| request.warn(w));
    }
    crate::served::escalation::check(request, new, Some(old))?;
    request.server.admission.validate(admission, Some(new)).await
}

/// Whether anything but metadata and status differs.
fn spec_changed(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return new != old };
    let counts = |k: &&String| !matches!(k.as_str(), "metadata" | "status" | "apiVersion" | "kind");
    new.keys().chain(old.keys()).filter(counts).any(|k| new.get(k) != old.get(k))
}

/// Whether nothing differs but the resourceVersion and the times in managedFields.
fn same(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return new == old };
    let (meta, old_meta) = (new.get("metadata"), old.get("metadata"));
    let (Some(meta), Some(old_meta)) = (meta.and_then(Value::as_object), old_meta.and_then(Value::as_object))
    else {
        return new == old;
    };
    same_but(new, old, &["metadata"])
        && same_but(meta, old_meta, &["resourceVersion", "managedFields"])
        && match (meta.get("managedFields"), old_meta.get("managedFields")) {
            (Some(Value::Array(new)), Some(Value::Array(old))) => {
                new.len() == old.len()
                    && new.iter().zip(old).all(|(new, old)| match (new.as_object(), old.as_object()) {
                        (Some(new), Some(old)) => same_but(new, old, &["time"]),
                        _ => new == old,
                    })
            }
            (new, old) => new == old,
        }
}

/// Whether two maps are the same but for these members.
fn same_but(a: &Map<String, Value>, b: &Map<String, Value>, except: &[&str]) -> bool {
    let counts = |(name, _): &(&String, &Value)| !except.contains(&name.as_str());
    a.iter().filter(counts).eq(b.iter().filter(counts))
}
