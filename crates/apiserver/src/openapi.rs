//! OpenAPI documents: made of the catalog when they are asked for, and kept while it is the same.

use crate::catalog::{Catalog, Resource};
use crate::respond;
use crate::verbs::{Answer, internal};
use api::Status;
use api::openapi::{Route, Verb};
use api::schema::{Schema, builtin};
use bytes::Bytes;
use http::HeaderMap;
use http::header::{ACCEPT, CACHE_CONTROL, HeaderValue, LOCATION, VARY};
use resources::{Subresource, Verbs};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The documents that have been asked for.
#[derive(Default)]
pub struct Documents(Mutex<Made>);

#[derive(Default)]
struct Made {
    of: Option<Arc<Catalog>>,
    documents: HashMap<(String, Form), Bytes>,
}

const TITLE_VERSION: &str = telemetry::version::VERSION;

/// What a document is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    Json,
    Protobuf,
}

impl Form {
    /// The first that is accepted.
    fn accepted(headers: &HeaderMap, v2: bool) -> Option<Self> {
        let kind = if v2 { "spec.v2" } else { "spec.v3" };
        let accepted = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).filter(|a| !a.is_empty());
        accepted.unwrap_or("*/*").split(',').find_map(|range| {
            match range.split(';').next().unwrap_or_default().trim() {
                "application/json" | "application/*" | "*/*" => Some(Form::Json),
                other => other
                    .strip_prefix("application/com.github.proto-openapi.")?
                    .strip_prefix(kind)
                    .filter(|rest| matches!(*rest, ".v1.0+protobuf" | "@v1.0+protobuf"))
                    .map(|_| Form::Protobuf),
            }
        })
    }

    fn media_type(self, v2: bool) -> &'static str {
        match (self, v2) {
            (Form::Json, _) => "application/json",
            (Form::Protobuf, true) => "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
            (Form::Protobuf, false) => "application/com.github.proto-openapi.spec.v3.v1.0+protobuf",
        }
    }
}

type List = [Arc<Resource>];

impl Documents {
    /// `/openapi/v2`.
    pub fn v2(&self, catalog: &Arc<Catalog>, headers: &HeaderMap) -> Answer {
        let all =
            || catalog.groups.iter().flat_map(|g| g.versions.iter().map(move |(v, l)| (path(&g.name, v), l)));
        let tag = fingerprint(all().map(|(path, list)| (path, &**list)));
        self.answer(catalog, headers, None, &tag, || {
            all().flat_map(|(_, list)| list).flat_map(|r| routes(r)).collect()
        })
    }

    /// `/openapi/v3/PATH`, where the path is `api/v1` or `apis/GROUP/VERSION`; `hash` is what the index said of it.
    pub fn v3(&self, catalog: &Arc<Catalog>, headers: &HeaderMap, asked: &str, hash: Option<&str>) -> Answer {
        let all =
            catalog.groups.iter().flat_map(|g| g.versions.iter().map(move |(v, l)| (path(&g.name, v), l)));
        let (_, list) = all.into_iter().find(|(p, _)| p == asked).ok_or_else(Status::no_such_path)?;
        let tag = fingerprint([(asked.to_string(), &**list)].into_iter());
        if hash.is_some_and(|h| h != tag) {
            let mut moved = respond::bytes(301, "application/json", Bytes::new());
            let to = HeaderValue::try_from(url(asked, &tag)).map_err(internal)?;
            moved.headers_mut().insert(LOCATION, to);
            return Ok(moved);
        }
        let routes = || list.iter().flat_map(|r| routes(r)).collect();
        let mut answer = self.answer(catalog, headers, Some(asked), &tag, routes)?;
        if hash.is_some() {
            // What has this hash never changes.
            answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        }
        Ok(answer)
    }

    /// The document in the form that is accepted, made if nobody has asked for it before.
    fn answer(
        &self,
        catalog: &Arc<Catalog>,
        headers: &HeaderMap,
        path: Option<&str>,
        tag: &str,
        routes: impl Fn() -> Vec<Route>,
    ) -> Answer {
        let v2 = path.is_none();
        let form = Form::accepted(headers, v2).ok_or_else(|| {
            Status::not_acceptable("only the following media types are accepted: application/json")
        })?;
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if made.of.as_ref().is_none_or(|of| !Arc::ptr_eq(of, catalog)) {
            *made = Made { of: Some(catalog.clone()), ..Made::default() };
        }
        let key = (path.unwrap_or_default().to_string(), form);
        let document = match made.documents.get(&key) {
            Some(document) => document.clone(),
            None => {
                let of = if v2 { api::openapi::v2 } else { api::openapi::v3 };
                let value = of(TITLE_VERSION, &routes());
                let document: Bytes = match (form, v2) {
                    (Form::Json, _) => serde_json::to_vec(&value).map_err(internal)?.into(),
                    (Form::Protobuf, true) => api::openapi::v2_protobuf(&value).into(),
                    (Form::Protobuf, false) => api::openapi::v3_protobuf(&value).into(),
                };
                made.documents.insert(key, document.clone());
                document
            }
        };
        drop(made);
        let mut answer = respond::tagged(headers, tag, respond::bytes(200, form.media_type(v2), document))?;
        answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
        Ok(answer)
    }
}

fn path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn url(path: &str, tag: &str) -> String {
    format!("/openapi/v3/{path}?hash={tag}")
}

/// Changes when a document of these resources does.
fn fingerprint<'a>(of: impl Iterator<Item = (String, &'a List)>) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    TITLE_VERSION.hash(&mut hasher);
    for (path, list) in of {
        path.hash(&mut hasher);
        for r in list {
            (r.names.plural, r.names.kind, r.namespaced).hash(&mut hasher);
            r.schema.source.as_ref().map(|s| s.to_string()).hash(&mut hasher);
            r.kind.subresources().iter().for_each(|s| s.name().hash(&mut hasher));
        }
    }
    format!("{:016X}", hasher.finish())
}

/// `/openapi/v3`: where each group version's document is. The hash changes when the document does.
pub fn index(catalog: &Catalog) -> Value {
    let mut paths = Map::new();
    for group in &catalog.groups {
        for (version, list) in &group.versions {
            let path = path(&group.name, version);
            let tag = fingerprint([(path.clone(), &**list)].into_iter());
            let url = url(&path, &tag);
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
    }
    json!({ "paths": paths })
}

fn schema_of(group: &str, version: &str, kind: &str) -> Option<api::schema::SchemaRef> {
    builtin().kind_of(group, version, kind).cloned()
}

fn routes(resource: &Resource) -> Vec<Route> {
    let n = resource.names;
    let root = if n.group.is_empty() {
        format!("/api/{}", n.version)
    } else {
        format!("/apis/{}/{}", n.group, n.version)
    };
    let base = if resource.namespaced {
        format!("{root}/namespaces/{{namespace}}/{}", n.plural)
    } else {
        format!("{root}/{}", n.plural)
    };
    let list = schema_of(n.group, n.version, &format!("{}List", n.kind)).or_else(|| {
        resource.schema.custom.then(|| Schema::list_of(&format!("{}List", n.kind), &resource.schema))
    });
    let route = |path: String, verbs: &[Verb]| Route {
        path,
        group: n.group.into(),
        version: n.version.into(),
        kind: n.kind.into(),
        namespaced: resource.namespaced,
        collection: false,
        resource: n.plural.into(),
        subresource: String::new(),
        parent_kind: n.kind.into(),
        verbs: verbs.to_vec(),
        schema: resource.schema.clone(),
        list: list.clone(),
    };
    if resource.kind.verbs() == Verbs::CreateOnly {
        return vec![Route { collection: true, ..route(base, &[Verb::Create]) }];
    }
    if resource.kind.verbs() == Verbs::Computed {
        let one = route(format!("{base}/{{name}}"), &[Verb::Get]);
        return vec![Route { collection: true, ..route(base, &[Verb::List]) }, one];
    }
    let of_collection: &[Verb] = match resource.kind.verbs() {
        Verbs::NotDeleteCollection => &[Verb::List, Verb::Create],
        _ => &[Verb::List, Verb::Create, Verb::DeleteCollection],
    };
    let mut routes = vec![Route { collection: true, ..route(base.clone(), of_collection) }];
    if resource.namespaced {
        routes.push(Route { collection: true, ..route(format!("{root}/{}", n.plural), &[Verb::List]) });
    }
    let object = format!("{base}/{{name}}");
    routes.push(route(object.clone(), &[Verb::Get, Verb::Update, Verb::Patch, Verb::Delete]));
    for sub in resource.kind.subresources() {
        let path = format!("{object}/{}", sub.name());
        let mut made = route(path, &[Verb::Get, Verb::Update, Verb::Patch]);
        made.subresource = sub.name().into();
        made.list = None;
        let body = match sub {
            Subresource::Part(_) => None,
            Subresource::Scale => Some((("autoscaling", "v1", "Scale"), &["get", "patch", "update"][..])),
            Subresource::Edit(name) | Subresource::Served(name) => resource.kind.served(name),
        };
        if let Some(((group, version, kind), verbs)) = body {
            // Connections are not described: nobody makes clients of them.
            let Some(schema) = schema_of(group, version, kind) else { continue };
            if verbs == ["create"] {
                made.verbs = vec![Verb::Create];
            } else if sub != Subresource::Scale {
                continue;
            }
            (made.group, made.version, made.kind, made.schema) =
                (group.into(), version.into(), kind.into(), schema);
        }
        routes.push(made);
    }
    routes
}
