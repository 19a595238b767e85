//! OpenAPI documents: made of the catalog when they are asked for, and kept while it is the same.

use crate::catalog::{Catalog, Resource};
use api::openapi::{Route, Verb};
use api::schema::{Schema, builtin};
use bytes::Bytes;
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
    v3: HashMap<String, Bytes>,
    v2: Option<Bytes>,
}

const TITLE_VERSION: &str = "v1.36.2";

impl Documents {
    fn made(&self, catalog: &Arc<Catalog>) -> std::sync::MutexGuard<'_, Made> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if made.of.as_ref().is_none_or(|of| !Arc::ptr_eq(of, catalog)) {
            *made = Made { of: Some(catalog.clone()), ..Made::default() };
        }
        made
    }

    /// `/openapi/v3/PATH`, where the path is `api/v1` or `apis/GROUP/VERSION`.
    pub fn v3(&self, catalog: &Arc<Catalog>, path: &str) -> Option<Bytes> {
        let (group, version) = match path.split('/').collect::<Vec<_>>().as_slice() {
            ["api", version] => (String::new(), version.to_string()),
            ["apis", group, version] => (group.to_string(), version.to_string()),
            _ => return None,
        };
        let mut made = self.made(catalog);
        if let Some(document) = made.v3.get(path) {
            return Some(document.clone());
        }
        let (_, list) =
            catalog.groups.iter().find(|g| g.name == group)?.versions.iter().find(|(v, _)| *v == version)?;
        let routes: Vec<Route> = list.iter().flat_map(|r| routes(r)).collect();
        let document: Bytes = serde_json::to_vec(&api::openapi::v3(TITLE_VERSION, &routes)).ok()?.into();
        made.v3.insert(path.into(), document.clone());
        Some(document)
    }

    /// `/openapi/v2`.
    pub fn v2(&self, catalog: &Arc<Catalog>) -> Option<Bytes> {
        let mut made = self.made(catalog);
        if let Some(document) = &made.v2 {
            return Some(document.clone());
        }
        let all = catalog.groups.iter().flat_map(|g| &g.versions).flat_map(|(_, list)| list);
        let routes: Vec<Route> = all.flat_map(|r| routes(r)).collect();
        let document: Bytes = serde_json::to_vec(&api::openapi::v2(TITLE_VERSION, &routes)).ok()?.into();
        made.v2 = Some(document.clone());
        Some(document)
    }
}

/// `/openapi/v3`: where each group version's document is. The hash changes when the document does.
pub fn index(catalog: &Catalog) -> Value {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut paths = Map::new();
    for group in &catalog.groups {
        for (version, list) in &group.versions {
            let path = if group.name.is_empty() {
                format!("api/{version}")
            } else {
                format!("apis/{}/{version}", group.name)
            };
            let mut hasher = DefaultHasher::new();
            (TITLE_VERSION, &path, list.len()).hash(&mut hasher);
            list.iter().for_each(|r| r.names.plural.hash(&mut hasher));
            let url = format!("/openapi/v3/{path}?hash={:016X}", hasher.finish());
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
    let mut routes = vec![Route {
        collection: true,
        ..route(base.clone(), &[Verb::List, Verb::Create, Verb::DeleteCollection])
    }];
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
