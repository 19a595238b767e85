//! The `scale` subresource: the replicas of any kind that has them, as an autoscaling/v1 Scale.

use super::modify::{How, Made, modify};
use super::{Answer, Request, internal, to_json};
use crate::cache::Entry;
use crate::negotiate::content_type;
use crate::request::Verb;
use crate::respond;
use api::field::{FieldErrors, FieldPath};
use api::schema::builtin;
use api::{GroupKind, GroupVersionKind, Status};
use bytes::Bytes;
use serde_json::{Value, json};

fn scale_of(request: &Request, entry: &Entry) -> Result<Value, Status> {
    scale_of_value(request, &entry.value().map_err(internal)?)
}

fn scale_of_value(request: &Request, value: &Value) -> Result<Value, Status> {
    let object = request.resource.kind.read(value)?;
    let (replicas, current, selector) =
        request.resource.kind.scale(&object).ok_or_else(Status::no_such_path)?;
    let meta = |field: &str| value.pointer(&format!("/metadata/{field}")).cloned().unwrap_or_default();
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if !meta(field).is_null() {
            metadata[field] = meta(field);
        }
    }
    let mut status = json!({"replicas": current});
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    let spec = if replicas == 0 { json!({}) } else { json!({"replicas": replicas}) };
    Ok(
        json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}),
    )
}

/// Answers with the scale.
pub async fn get(request: &Request) -> Answer {
    let entry = super::get::read(request).await?;
    respond::value(request, 200, &scale_of(request, &entry)?)
}

/// Sets the scale, by PUT or PATCH of a Scale.
pub async fn write(request: &Request, body: Bytes) -> Answer {
    let gvk = GroupVersionKind::new("autoscaling", "v1", "Scale");
    let schema = builtin().kind(&gvk).ok_or_else(|| internal("the schema of Scale is missing"))?;
    let put = match request.info.verb {
        Verb::Update => Some(request.decode(&body, schema, &gvk)?),
        _ => None,
    };
    let manager = request.manager();
    let make = |old: &Value| {
        let scale = match &put {
            Some(sent) => sent.clone(),
            None => {
                let mut scale = scale_of_value(request, old)?;
                let bad =
                    |e: &dyn std::fmt::Display| Status::bad_request(format!("error decoding patch: {e}"));
                let patch = match content_type(&request.headers) {
                    "application/apply-patch+yaml" => api::yaml::decode_any(&body).map_err(|e| bad(&e))?,
                    _ => api::json::decode_any(&body).map_err(|e| bad(&e))?,
                };
                match content_type(&request.headers) {
                    "application/json-patch+json" => {
                        api::patch::json_patch(&mut scale, &patch).map_err(|e| bad(&e))?
                    }
                    _ => api::patch::merge(&mut scale, patch),
                }
                api::json::check(scale, schema).map_err(|e| bad(&e))?.value
            }
        };
        let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
        if replicas < 0 {
            let mut errors = FieldErrors::default();
            errors.invalid(
                FieldPath::root("spec").child("replicas"),
                &replicas,
                "must be greater than or equal to 0",
            );
            return Err(Status::invalid(
                &GroupKind { group: "autoscaling".into(), kind: "Scale".into() },
                &request.info.name,
                &errors,
            ));
        }
        let mut object = request.resource.kind.read(old)?;
        request.resource.kind.set_scale(&mut object, replicas as i32);
        let mut value = to_json(request, &object)?;
        // Which object and which state is meant is looked at as for any update.
        for field in ["name", "uid"] {
            if let Some(said) = scale.pointer(&format!("/metadata/{field}")) {
                value["metadata"][field] = said.clone();
            }
        }
        let version = scale.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
        value["metadata"]["resourceVersion"] = if version.is_null() { "".into() } else { version };
        Ok(Made { value, applied: false })
    };
    let how = How { part: None, checked: true, manager: &manager };
    match modify(request, how, &make).await? {
        Some(outcome) => respond::value(request, 200, &scale_of(request, &outcome.entry())?),
        None => Err(request.not_found()),
    }
}
