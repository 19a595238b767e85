//! Routes as OpenAPI path items.

use super::definitions::{Definitions, gvk};
use super::{Format, Route, Verb};
use serde_json::{Map, Value, json};

/// Query parameters: name, type, what it is for.
type Query = (&'static str, &'static str, &'static str);

const DRY_RUN: Query =
    ("dryRun", "string", "Set to All, the request goes through every stage but the storing.");
const FIELD_MANAGER: Query =
    ("fieldManager", "string", "The name of the actor or entity that makes these changes.");
const FIELD_VALIDATION: Query = (
    "fieldValidation",
    "string",
    "What is done about unknown and duplicate fields: Ignore drops them, Warn answers with warnings, Strict fails \
     the request.",
);
const FORCE: Query =
    ("force", "boolean", "Whether an applied configuration takes over fields that others own.");
const SELECT: &[Query] = &[
    ("continue", "string", "The token of the previous answer, to retrieve what follows it."),
    ("fieldSelector", "string", "Selects objects by their fields."),
    ("labelSelector", "string", "Selects objects by their labels."),
    ("limit", "integer", "The most objects to answer with."),
    ("resourceVersion", "string", "How new the answer has to be."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."),
    ("sendInitialEvents", "boolean", "Whether a watch begins with the objects that are there."),
    ("timeoutSeconds", "integer", "How long the request may take."),
];
const WATCH: &[Query] = &[
    ("allowWatchBookmarks", "boolean", "Whether a watch may send BOOKMARK events."),
    ("watch", "boolean", "Whether to watch for changes instead of listing."),
];
const DELETE: &[Query] = &[
    ("gracePeriodSeconds", "integer", "How long the object may take to end; zero means at once."),
    (
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "Deletes an object even if it cannot be read.",
    ),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy. Whether dependents are orphaned."),
    ("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground."),
];

const BODIES: &[&str] =
    &["application/cbor", "application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];
const PATCHES: &[&str] = &[
    "application/apply-patch+cbor",
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

pub(super) fn item(route: &Route, definitions: &mut Definitions) -> Value {
    let mut item = Map::new();
    for verb in &route.verbs {
        for (method, operation) in operations(*verb, route, definitions) {
            item.insert(method.to_string(), operation);
        }
    }
    let format = definitions.format();
    let mut parameters = Vec::new();
    for name in route.path.split(['{', '}']).skip(1).step_by(2) {
        let name = name.trim_end_matches(":*");
        let about = match name {
            "name" => format!("name of the {}", route.kind),
            "namespace" => "the namespace of the object".to_string(),
            name => format!("{name} of the request"),
        };
        let mut p = json!({"name": name, "in": "path", "required": true, "description": about});
        typed(&mut p, "string", format);
        parameters.push(p);
    }
    parameters.push(query(("pretty", "string", "Set to true, the answer is indented."), format));
    item.insert("parameters".into(), Value::Array(parameters));
    Value::Object(item)
}

fn typed(parameter: &mut Value, ty: &str, format: Format) {
    match format {
        Format::V3 => parameter["schema"] = json!({"type": ty, "uniqueItems": true}),
        Format::V2 => {
            parameter["type"] = ty.into();
            parameter["uniqueItems"] = true.into();
        }
    }
}

fn query((name, ty, about): Query, format: Format) -> Value {
    let mut p = json!({"name": name, "in": "query", "description": about});
    typed(&mut p, ty, format);
    p
}

/// What a verb does on a path: its method and action, the beginning of its name, its query, its answers.
fn operations(verb: Verb, route: &Route, definitions: &mut Definitions) -> Vec<(&'static str, Value)> {
    let write = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
    let (method, action, name, mut queries, codes): (_, _, _, Vec<Query>, &[u16]) = match verb {
        Verb::Get => ("get", "get", "read", vec![], &[200]),
        Verb::List => ("get", "list", "list", [SELECT, WATCH].concat(), &[200]),
        Verb::Create => ("post", "post", "create", write.to_vec(), &[200, 201, 202]),
        Verb::Update => ("put", "put", "replace", write.to_vec(), &[200, 201]),
        Verb::Patch => ("patch", "patch", "patch", [&write[..], &[FORCE]].concat(), &[200, 201]),
        Verb::Delete => ("delete", "delete", "delete", [&[DRY_RUN], DELETE].concat(), &[200, 202]),
        Verb::DeleteCollection => {
            ("delete", "deletecollection", "delete", [&[DRY_RUN], DELETE, SELECT].concat(), &[200])
        }
        Verb::Connect => {
            let method = |m: &'static str| (m, connect(m, route, definitions.format()));
            return ["get", "post", "put", "delete", "patch", "head", "options"].map(method).to_vec();
        }
    };
    queries.sort_unstable_by_key(|q| q.0);
    let format = definitions.format();
    let object = definitions.reference(&route.schema);
    let answer = match (verb, &route.list) {
        (Verb::List, Some(list)) => definitions.reference(list),
        (Verb::Delete, _) if !returns_object(route) => definitions.meta("Status"),
        (Verb::DeleteCollection, _) => definitions.meta("Status"),
        _ => object.clone(),
    };
    let body = match verb {
        Verb::Create | Verb::Update => Some((object, vec!["*/*"])),
        Verb::Patch => Some((definitions.meta("Patch"), PATCHES.to_vec())),
        Verb::Delete | Verb::DeleteCollection => Some((definitions.meta("DeleteOptions"), vec!["*/*"])),
        _ => None,
    };
    let mut out = operation(route, action, operation_id(name, verb, route));
    out["description"] = format!(
        "{name} {}{}",
        if verb == Verb::List { "or watch objects of kind " } else { "the specified " },
        route.kind
    )
    .into();
    let mut parameters: Vec<Value> = queries.into_iter().map(|q| query(q, format)).collect();
    let mut responses = Map::new();
    for code in codes {
        let text = match code {
            201 => "Created",
            202 => "Accepted",
            _ => "OK",
        };
        responses.insert(code.to_string(), response(text, &answer, format));
    }
    responses.insert("401".into(), json!({"description": "Unauthorized"}));
    out["responses"] = Value::Object(responses);
    let required = matches!(verb, Verb::Create | Verb::Update | Verb::Patch);
    match (body, format) {
        (Some((schema, types)), Format::V3) => {
            out["requestBody"] = json!({"content": content(&types, &schema)});
            if required {
                out["requestBody"]["required"] = true.into();
            }
        }
        (Some((schema, types)), Format::V2) => {
            let mut body = json!({"name": "body", "in": "body", "schema": schema});
            if required {
                body["required"] = true.into();
            }
            parameters.insert(0, body);
            out["consumes"] = json!(types);
            out["produces"] = json!(BODIES);
        }
        (None, Format::V2) => {
            out["consumes"] = json!(["*/*"]);
            out["produces"] = json!(BODIES);
        }
        (None, Format::V3) => {}
    }
    if !parameters.is_empty() {
        out["parameters"] = Value::Array(parameters);
    }
    vec![(method, out)]
}

/// Kinds whose deletion answers with the object, as upstream's strategies have it.
fn returns_object(route: &Route) -> bool {
    matches!(
        (&*route.group, &*route.kind),
        (
            "",
            "Pod"
                | "PersistentVolume"
                | "PersistentVolumeClaim"
                | "PodTemplate"
                | "ResourceQuota"
                | "ServiceAccount"
                | "Service"
        ) | ("storage.k8s.io", _)
    )
}

fn operation(route: &Route, action: &str, id: String) -> Value {
    json!({
        "operationId": id,
        "tags": [tag(route)],
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk(&route.group, &route.version, &route.kind),
    })
}

fn response(text: &str, schema: &Value, format: Format) -> Value {
    match format {
        Format::V3 => json!({"description": text, "content": content(BODIES, schema)}),
        Format::V2 => json!({"description": text, "schema": schema}),
    }
}

fn content(types: &[&str], schema: &Value) -> Value {
    types.iter().map(|t| (t.to_string(), json!({"schema": schema}))).collect::<Map<_, _>>().into()
}

fn connect(method: &str, route: &Route, format: Format) -> Value {
    let name = format!("connect{}", capital(method));
    let mut out = operation(route, "connect", operation_id(&name, Verb::Connect, route));
    out["description"] = format!(
        "connect {} requests to {} of {}",
        method.to_uppercase(),
        route.subresource,
        route.parent_kind
    )
    .into();
    let ok = match format {
        Format::V3 => json!({"description": "OK", "content": {"*/*": {"schema": {"type": "string"}}}}),
        Format::V2 => json!({"description": "OK", "schema": {"type": "string"}}),
    };
    out["responses"] = json!({"200": ok, "401": {"description": "Unauthorized"}});
    out
}

/// The group and version that a path begins with.
fn served(route: &Route) -> (&str, &str) {
    let mut parts = route.path.split('/').skip(1);
    match parts.next() {
        Some("apis") => (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()),
        _ => ("", parts.next().unwrap_or_default()),
    }
}

fn short_group(group: &str) -> String {
    let group = group.strip_suffix(".k8s.io").unwrap_or(group);
    if group.is_empty() { "core".into() } else { group.to_string() }
}

fn tag(route: &Route) -> String {
    let (group, version) = served(route);
    let mut words = short_group(group).split(['.', '-']).map(capital).collect::<Vec<_>>().concat();
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    format!("{words}_{version}")
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn operation_id(name: &str, verb: Verb, route: &Route) -> String {
    let (group, version) = served(route);
    let group: String = short_group(group).split(['.', '-']).map(capital).collect();
    let in_namespace = route.path.contains("{namespace}");
    let scope = match (verb, in_namespace) {
        (Verb::DeleteCollection, true) => "CollectionNamespaced",
        (Verb::DeleteCollection, false) => "Collection",
        (_, true) => "Namespaced",
        _ => "",
    };
    let sub: String = route.subresource.split(['/', '-']).map(capital).collect();
    let all = if route.namespaced && !in_namespace && verb == Verb::List { "ForAllNamespaces" } else { "" };
    format!("{name}{group}{}{scope}{}{sub}{all}", capital(version), route.parent_kind)
}
