//! PATCH: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge patch, server-side apply.

use super::create::author;
use super::modify::{How, Made, modify};
use super::{Answer, Request};
use crate::heavy;
use crate::negotiate::content_type;
use crate::request::Verb;
use api::Status;
use api::apply::ApplyError;
use bytes::Bytes;
use serde_json::Value;

enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
    Apply(Value),
}

const TYPES: &str = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml, application/apply-patch+cbor";

fn read(request: &Request, body: &Bytes) -> Result<Patch, Status> {
    let json =
        || api::json::decode_any(body).map_err(|e| Status::bad_request(format!("error decoding patch: {e}")));
    match content_type(&request.headers) {
        "application/json-patch+json" => Ok(Patch::Json(json()?)),
        "application/merge-patch+json" => Ok(Patch::Merge(json()?)),
        "application/strategic-merge-patch+json" if request.resource.schema.custom => {
            Err(Status::unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            ))
        }
        "application/strategic-merge-patch+json" => Ok(Patch::Strategic(json()?)),
        "application/apply-patch+yaml" => {
            let schema = &request.face.schema;
            let decoded = api::yaml::decode(body, schema)
                .map_err(|e| Status::bad_request(format!("error decoding YAML: {e}")))?;
            request.faults_of(decoded.faults)?;
            Ok(Patch::Apply(decoded.value))
        }
        _ => Err(Status::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: {TYPES}"
        ))),
    }
}

/// Changes the object by the patch in the body. Apply makes it if it is not there.
pub async fn patch(request: &Request, body: Bytes, part: Option<&str>) -> Answer {
    request.resource.collection("patch")?;
    let patch = read(request, &body)?;
    let force = request.options.force;
    if let Patch::Apply(config) = &patch {
        check_config(request, config)?;
    }
    let manager = request.manager();
    let how = How { part, checked: true, manager: &manager };
    let size = body.len();
    let make = |old: &Value| {
        if request.face.facet.is_none() {
            return heavy::on(size, || make(request, &patch, old, part, &manager, force));
        }
        let mut shown = old.clone();
        request.face.from_own(&mut shown);
        let mut made = heavy::on(size, || make(request, &patch, &shown, part, &manager, force))?;
        request.face.to_own(&mut made.value);
        Ok(made)
    };
    match modify(request, how, &make).await? {
        Some(outcome) => request.answer(200, &outcome.entry()),
        None => match patch {
            Patch::Apply(config) if part.is_none() => {
                crate::access::check(request, Verb::Create)?;
                create(request, &config, &manager, force).await
            }
            _ => Err(request.not_found()),
        },
    }
}

fn check_config(request: &Request, config: &Value) -> Result<(), Status> {
    let gvk = &request.face.gvk;
    let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("apiVersion") != request.api_version || text("kind") != gvk.kind {
        return Err(Status::bad_request(format!(
            "incorrect type: {} in {} was expected, the applied configuration is {} in {}",
            gvk.kind,
            request.api_version,
            text("kind"),
            text("apiVersion")
        )));
    }
    let name = config.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    if !name.is_empty() && name != request.info.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            request.info.name
        )));
    }
    if config.pointer("/metadata/managedFields").is_some_and(|f| f.as_array().is_none_or(|a| !a.is_empty())) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

fn make(
    request: &Request,
    patch: &Patch,
    old: &Value,
    part: Option<&str>,
    manager: &str,
    force: bool,
) -> Result<Made, Status> {
    let schema = &request.face.schema;
    let mut value = old.clone();
    let failed = |e: api::patch::PatchError| {
        let reason = match e.http_code() {
            413 => "RequestEntityTooLarge",
            422 => "Invalid",
            _ => "BadRequest",
        };
        let message = if e.http_code() == 422 {
            format!("the server rejected our request due to an error in our request: {e}")
        } else {
            e.to_string()
        };
        Status::failure(e.http_code(), reason, message)
    };
    match patch {
        Patch::Json(p) => api::patch::json_patch(&mut value, p).map_err(failed)?,
        Patch::Merge(p) => api::patch::merge(&mut value, p.clone()),
        Patch::Strategic(p) => api::patch::strategic(&mut value, p.clone(), schema).map_err(failed)?,
        Patch::Apply(config) => {
            let by = author(request, manager, part.unwrap_or_default());
            let value = api::apply::apply(Some(old), config, schema, &by, force).map_err(refused)?;
            return Ok(Made { value, applied: true });
        }
    }
    let decoded = api::json::check(value, schema).map_err(|e| {
        Status::failure(
            422,
            "Invalid",
            format!(
                "{} in version {:?} cannot be handled as a {}: {e}",
                request.face.gvk.kind, request.face.gvk.version, request.face.gvk.kind
            ),
        )
    })?;
    request.faults_of(decoded.faults)?;
    let mut value = decoded.value;
    // The kind is not a patch's to change.
    for field in ["apiVersion", "kind"] {
        if value.get(field) != old.get(field) {
            let text = |v: &Value| v.get(field).and_then(Value::as_str).unwrap_or_default().to_string();
            return Err(Status::bad_request(format!(
                "{field} can't be changed from {:?} to {:?}",
                text(old),
                text(&value)
            )));
        }
    }
    // A patch that names no managedFields must not seem to set them; one that empties them does.
    if !matches!(patch, Patch::Json(_))
        && value.pointer("/metadata/managedFields").is_none()
        && let (Some(fields), Some(Value::Object(meta))) =
            (old.pointer("/metadata/managedFields"), value.get_mut("metadata"))
    {
        meta.insert("managedFields".into(), fields.clone());
    }
    Ok(Made { value, applied: false })
}

fn refused(e: ApplyError) -> Status {
    match e {
        ApplyError::Conflicts(conflicts) => conflicts.status(),
        ApplyError::Invalid(why) => Status::bad_request(why),
    }
}

async fn create(request: &Request, config: &Value, manager: &str, force: bool) -> Answer {
    let by = author(request, manager, "");
    let mut value = api::apply::apply(None, config, &request.face.schema, &by, force).map_err(refused)?;
    value["metadata"]["name"] = request.info.name.clone().into();
    if value.pointer("/metadata/uid").is_some() {
        let why = "Precondition failed: UID in precondition is set, but the object does not exist";
        return Err(Status::conflict(&request.face.group_resource, &request.info.name, why));
    }
    request.face.to_own(&mut value);
    let entry = super::create::create_value(request, value, true).await?;
    request.answer(201, &entry)
}
