//! Requests below an object: which code answers them.

use super::modify::{How, Made, modify};
use super::{Answer, Request, internal, to_json};
use crate::request::Verb;
use crate::respond;
use admission::Operation;
use api::object::{Custom, Object};
use api::schema::builtin;
use api::{GroupVersionKind, Status};
use bytes::Bytes;
use k8s_openapi::api::core::v1::Binding;
use resources::Subresource;
use serde_json::{Value, json};
use std::sync::Arc;

/// The subresource a request names.
pub fn find(request: &Request) -> Result<Subresource, Status> {
    let name = request.info.subresource.as_str();
    request
        .resource
        .kind
        .subresources()
        .into_iter()
        .find(|s| s.name() == name)
        .ok_or_else(Status::no_such_path)
}

/// Answers a request for a subresource whose body has been read.
pub async fn answer(request: Arc<Request>, subresource: Subresource, body: Bytes) -> Answer {
    let verb = request.info.verb;
    match (subresource, verb) {
        (Subresource::Part("finalize"), Verb::Get | Verb::Patch) => {
            Err(Status::method_not_supported(&request.face.group_resource, verb.name()))
        }
        (Subresource::Part(_), Verb::Get) => super::get::get(&request).await,
        (Subresource::Part(part), Verb::Update) => super::update::update(&request, body, Some(part)).await,
        (Subresource::Part(part), Verb::Patch) => super::patch::patch(&request, body, Some(part)).await,
        (Subresource::Scale, Verb::Get) => super::scale::get(&request).await,
        (Subresource::Scale, Verb::Update | Verb::Patch) => super::scale::write(&request, body).await,
        (Subresource::Edit(name), Verb::Create) => edit(&request, name, body).await,
        (Subresource::Served("token"), Verb::Create) => crate::served::token::create(&request, body).await,
        (Subresource::Served("eviction"), Verb::Create) => {
            crate::served::eviction::create(&request, body).await
        }
        _ => Err(Status::method_not_supported(&request.face.group_resource, verb.name())),
    }
}

/// The body of a POST to a subresource, in its own kind.
pub fn body_of(request: &Request, subresource: &str, body: &Bytes) -> Result<Value, Status> {
    let ((group, version, kind), _) =
        request.resource.kind.served(subresource).ok_or_else(Status::no_such_path)?;
    let gvk = GroupVersionKind::new(group, version, kind);
    let schema = builtin().kind(&gvk).ok_or_else(|| internal(format!("the schema of {gvk} is missing")))?;
    let mut value = request.decode(body, schema, &gvk)?;
    api::json::default(&mut value, schema);
    Ok(value)
}

async fn edit(request: &Request, name: &'static str, body: Bytes) -> Answer {
    let mut sent = body_of(request, name, &body)?;
    // What is admitted is what was sent: a Binding, not the pod.
    let mut object = match name {
        "binding" => Object::from_value::<Binding>(&sent),
        _ => Custom::from_value(&sent).map(Object::new),
    }
    .map_err(internal)?;
    let admission = request.admission(Operation::Create, name, &request.info.name, None);
    request.server.admission.admit(&admission, Some(&mut object)).await?;
    request.server.admission.validate(&admission, Some(&object)).await?;
    sent = object.to_value().map_err(internal)?;
    let manager = request.manager();
    let make = |old: &Value| {
        let mut object = request.resource.kind.read(old)?;
        request.resource.kind.edit(name, &mut object, &sent)?;
        Ok(Made { value: to_json(request, &object)?, applied: false })
    };
    let how = How { part: None, checked: false, manager: &manager };
    match modify(request, how, &make).await? {
        Some(_) => respond::value(
            request,
            201,
            &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
        ),
        None => Err(request.not_found()),
    }
}
