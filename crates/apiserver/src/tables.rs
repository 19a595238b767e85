//! Tables: what `kubectl get` prints (meta.k8s.io Table).

use crate::cache::Entry;
use crate::verbs::{Request, internal};
use api::Status;
use serde_json::{Value, json};
use std::sync::Arc;

/// The table of some objects.
pub fn table(request: &Request, version: &str, items: &[&Entry], meta: Value) -> Result<Value, Status> {
    let (headings, named) = headings(request);
    let include = request.query.get("includeObject").unwrap_or("Metadata");
    let rows = items
        .iter()
        .map(|entry| row(request, version, entry, include, named))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(
        json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": meta, "columnDefinitions": headings, "rows": rows}),
    )
}

/// A table up to its rows, and what makes the row of an object: a long one is written while it is sent.
pub fn begun(
    request: &Arc<Request>,
    version: &str,
    meta: &Value,
) -> Result<(Vec<u8>, impl FnMut(&Entry) -> Result<Vec<u8>, Status> + Send + 'static), Status> {
    let (headings, named) = headings(request);
    let mut head =
        format!("{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/{version}\",\"metadata\":").into_bytes();
    serde_json::to_writer(&mut head, meta).map_err(internal)?;
    head.extend_from_slice(b",\"columnDefinitions\":");
    serde_json::to_writer(&mut head, &headings).map_err(internal)?;
    head.extend_from_slice(b",\"rows\":[");
    let (request, version) = (request.clone(), version.to_string());
    let include = request.query.get("includeObject").unwrap_or("Metadata").to_string();
    let row = move |entry: &Entry| {
        let row = row(&request, &version, entry, &include, named)?;
        serde_json::to_vec(&row).map_err(internal)
    };
    Ok((head, row))
}

/// The headings, and whether one of the kind's own is the name's.
fn headings(request: &Request) -> (Vec<Value>, bool) {
    let columns = columns(request);
    // Most kinds' first column is the name; those that show it elsewhere say so.
    let named = columns.iter().any(|c| c.name == "Name");
    let name = (!named).then(|| json!({
        "name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
    }));
    let headings: Vec<Value> = name.into_iter().chain(columns.into_iter().map(|h| json!({"name": h.name, "type": h.kind, "format": h.format, "description": h.description, "priority": h.priority})))
    .collect();
    (headings, named)
}

/// Kinds that say nothing of their columns show their age.
fn columns(request: &Request) -> Vec<resources::table::Heading> {
    let headings = request.resource.kind.headings();
    if !headings.is_empty() {
        return headings;
    }
    vec![resources::table::Heading {
        name: "Created At".into(),
        kind: "date".into(),
        format: String::new(),
        description: "When it was created.".into(),
        priority: 0,
    }]
}

fn row(request: &Request, version: &str, entry: &Entry, include: &str, named: bool) -> Result<Value, Status> {
    let value = entry.value().map_err(internal)?;
    let object = request.resource.kind.read(&value)?;
    let mut cells = Vec::new();
    if !named {
        cells.push(Value::from(entry.name()));
    }
    let own = request.resource.kind.cells(&object, request.now);
    if own.is_empty() {
        cells.push(value.pointer("/metadata/creationTimestamp").cloned().unwrap_or_default());
    } else {
        cells.extend(own);
    }
    let object = match include {
        "None" => Value::Null,
        "Object" => {
            let mut value = value;
            request.face.from_own(&mut value);
            value
        }
        _ => crate::respond::metadata(version, entry)?,
    };
    Ok(json!({"cells": cells, "object": object}))
}
