//! POST of an object.

use super::{Answer, Request, internal, store_failed, to_json};
use crate::cache::Entry;
use admission::Operation;
use api::apply::FieldSet;
use api::field::FieldErrors;
use api::object::Object;
use api::read::ObjectReader;
use api::{GroupKind, GroupResource, Status};
use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use resources::meta;
use serde_json::Value;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use store::{Change, Commit, Durability, Expect, StoreError};

/// Names tried for one `generateName`: upstream's.
const GENERATE_TRIES: usize = 8;
/// Characters of a generated name's end, and how long its start may be.
const SUFFIX: usize = 5;
const MAX_PREFIX: usize = 63 - SUFFIX;

/// Makes the object in the body.
pub async fn create(request: &Request, body: Bytes) -> Answer {
    request.resource.collection("create")?;
    let value = request.decode_own(&body)?;
    let entry = create_value(request, value, false).await?;
    request.answer(201, &entry)
}

/// Makes an object of JSON that fits the schema. One that was `applied` says itself who owns its fields.
pub async fn create_value(request: &Request, mut value: Value, applied: bool) -> Result<Arc<Entry>, Status> {
    let resource = &request.resource;
    request.announce();
    if resource.kind.has_status()
        && let Value::Object(map) = &mut value
    {
        map.remove("status");
    }
    api::json::default(&mut value, &resource.schema);
    api::json::omit_zeros(&mut value, &resource.schema);
    let read = || {
        let mut object = resource.kind.read(&value)?;
        check_scope(request, &mut object).map(|()| object)
    };
    let object = read()?;
    see_namespace(request).await?;
    let generate = object.meta().name.as_ref().is_none_or(String::is_empty)
        && object.meta().generate_name.as_ref().is_some_and(|g| !g.is_empty());
    if !generate {
        return attempt(request, object, applied).await;
    }
    let mut last = String::new();
    let mut first = Some(object);
    for _ in 0..GENERATE_TRIES {
        let mut object = match first.take() {
            Some(object) => object,
            None => read()?,
        };
        let prefix: String =
            object.meta().generate_name.iter().flat_map(|g| g.chars()).take(MAX_PREFIX).collect();
        last = format!("{prefix}{}", api::names::random_suffix(&mut rand::rng(), SUFFIX));
        object.meta_mut().name = Some(last.clone());
        match attempt(request, object, applied).await {
            Err(e) if e.is_already_exists() => {}
            done => return done,
        }
    }
    Err(Status::already_exists(&request.face.group_resource, &last).retry_after(1))
}

/// The namespace of the path is the object's.
pub fn check_scope(request: &Request, object: &mut Object) -> Result<(), Status> {
    let meta = object.meta_mut();
    let given = meta.namespace.clone().unwrap_or_default();
    if !request.resource.namespaced {
        return Ok(());
    }
    if given.is_empty() {
        meta.namespace = Some(request.info.namespace.clone());
    } else if given != request.info.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// A namespace that was made just now may not be in the cache yet: then this waits for what the store has.
async fn see_namespace(request: &Request) -> Result<(), Status> {
    let (server, name) = (&request.server, &request.info.namespace);
    let there = || server.get(&GroupResource::new("", "namespaces"), "", name).is_some();
    if request.resource.namespaced && !there() {
        server.consistent().await.map_err(store_failed)?;
    }
    Ok(())
}

async fn attempt(request: &Request, mut object: Object, applied: bool) -> Result<Arc<Entry>, Status> {
    let resource = &request.resource;
    let kind = &resource.kind;
    let name = object.meta().name.clone().unwrap_or_default();
    kind.default(&mut object);
    let fields = match applied {
        true => None,
        // What admission and the server itself add is nobody's.
        false => Some(owners(request, &object)?),
    };
    let admission = request.admission(Operation::Create, "", &name, None);
    request.server.admission.admit(&admission, Some(&mut object)).await?;
    let given = {
        let meta = object.meta_mut();
        meta.uid = Some(uid());
        meta.creation_timestamp = Some(Time(request.now));
        meta.generation = kind.has_generation().then_some(1);
        meta.deletion_timestamp = None;
        meta.deletion_grace_period_seconds = None;
        meta.self_link = None;
        meta.resource_version.take()
    };
    if given.is_some_and(|v| !v.is_empty()) {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    kind.prepare_create(&mut object, &request.context());
    let mut errors = FieldErrors::default();
    meta::validate(object.meta(), resource.namespaced, |n, p| kind.name_faults(n, p), &mut errors);
    kind.validate(&object, &mut errors);
    request.check_face(&object, None, &mut errors)?;
    crate::capabilities::check(&request.server.options, &object, None, &mut errors);
    if !errors.is_empty() {
        return Err(Status::invalid(&group_kind(request), &name, &errors));
    }
    kind.warnings(&object, None).into_iter().for_each(|w| request.warn(w));
    crate::served::escalation::check(request, &object, None)?;
    request.server.admission.validate(&admission, Some(&object)).await?;
    let claim = request.server.services.claim(request, &mut object, None).await?;
    let json = api::json::print(&object, &resource.schema, fields.as_deref()).map_err(internal)?;
    let outcome = commit(request, &name, Expect::Absent, json.into()).await;
    claim.settle(request, matches!(outcome, Ok(Ok(_)))).await;
    outcome.map_err(|e| match e {
        StoreError::Conflict(there) => {
            let mut status = Status::already_exists(&request.face.group_resource, &name);
            if is_being_deleted(request, &name, there) {
                status.message = format!("object is being deleted: {}", status.message);
            }
            status
        }
        e => store_failed(e),
    })?
}

/// Whether what has a name already is about to go.
fn is_being_deleted(request: &Request, name: &str, there: Option<store::KeyValue>) -> bool {
    let resource = &request.resource;
    let json = match there {
        Some(kv) => crate::codec::decode(&kv.value, &resource.schema, &*resource.kind).ok(),
        None => {
            let cached = resource.collection.as_ref();
            cached.and_then(|c| c.get(&resource.key(&request.info.namespace, name))).map(|e| e.json.clone())
        }
    };
    let value = json.and_then(|json| serde_json::from_slice::<Value>(&json).ok());
    value.is_some_and(|v| v.pointer("/metadata/deletionTimestamp").is_some())
}

/// The managedFields of a new object, as JSON; empty for none.
fn owners(request: &Request, object: &Object) -> Result<Vec<u8>, Status> {
    let mut sent = to_json(request, object)?;
    if let (true, Value::Object(map)) = (request.resource.kind.has_status(), &mut sent) {
        map.remove("status");
    }
    request.track(None, &mut sent, "", &request.manager());
    let fields = take_fields(&mut sent).map(|fields| serde_json::to_vec(&fields)).transpose();
    fields.map(Option::unwrap_or_default).map_err(internal)
}

/// Takes an object's managedFields out.
pub fn take_fields(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

/// Gives an object these managedFields, or none.
pub fn put_fields(object: &mut Value, fields: Option<Value>) {
    take_fields(object);
    if let (Some(fields), Some(Value::Object(metadata))) = (fields, object.get_mut("metadata")) {
        metadata.insert("managedFields".into(), fields);
    }
}

/// What a write of the object leaves as it is, and so does not own; and what one of its status does.
static STATUS: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_paths(&["status"]));
static SPEC: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_paths(&["spec"]));

/// Who sets the fields of this request.
pub fn author<'a>(request: &'a Request, manager: &'a str, subresource: &'a str) -> api::apply::Author<'a> {
    api::apply::Author {
        manager,
        api_version: &request.api_version,
        subresource,
        now: request.now,
        reset: match subresource {
            "" if request.resource.kind.has_status() => Some(&STATUS),
            "status" => Some(&SPEC),
            _ => None,
        },
        versions: (request.face.facet.is_some() || !request.resource.kind.versions().is_empty())
            .then_some(request),
    }
}

/// The kind, as validation's Status names it.
pub fn group_kind(request: &Request) -> GroupKind {
    GroupKind { group: request.face.gvk.group.clone(), kind: request.face.gvk.kind.clone() }
}

/// A new unique id (RFC 9562, version 4).
pub fn uid() -> String {
    let mut b: [u8; 16] = rand::random();
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    format!("{}-{}-{}-{}-{}", hex(&b[..4]), hex(&b[4..6]), hex(&b[6..8]), hex(&b[8..10]), hex(&b[10..]))
}

/// Writes an object, given as canonical JSON, if it is as expected. A dry run ends here, with the answer that would be
/// given.
pub async fn commit(
    request: &Request,
    name: &str,
    expect: Expect,
    json: Bytes,
) -> Result<Result<Arc<Entry>, Status>, StoreError> {
    let resource = &request.resource;
    let key = resource.key(&request.info.namespace, name);
    let collection = match resource.collection("update") {
        Ok(collection) => collection,
        Err(e) => return Ok(Err(e)),
    };
    let entry = |revision| Ok(Arc::new(Entry::answer(key.as_str().into(), revision, &json)));
    if request.options.dry_run {
        let current = match expect {
            Expect::Absent if collection.get(&key).is_some() => return Err(StoreError::Conflict(None)),
            Expect::Absent => 0,
            Expect::Unchanged(revision) => revision,
        };
        return Ok(entry(current));
    }
    let stored = match crate::codec::encode(&*request.server.store, &json, &resource.schema, &*resource.kind)
    {
        Ok(stored) => stored,
        Err(e) => return Ok(Err(internal(e))),
    };
    let how = resource.kind.stored();
    let ttl = match how.ttl_seconds {
        0 => None,
        _ if resource.names.plural == "events" => Some(request.server.options.event_ttl),
        seconds => Some(Duration::from_secs(seconds)),
    };
    let stored_key: Arc<str> = format!("{}{key}", collection.prefix).into();
    if request.server.store.shared_with_upstream() {
        collection.will_write(&stored_key, &stored, &json);
    }
    let commit = Commit {
        key: stored_key.clone(),
        expect,
        change: Change::Put { value: stored, ttl },
        durability: if how.in_memory { Durability::Memory } else { Durability::Disk },
    };
    match request.store(commit).await {
        Ok(revision) => Ok(entry(revision)),
        Err(e) => {
            collection.has_not_written(&stored_key);
            Err(e)
        }
    }
}
