//! Discovery: /api and /apis, plain and aggregated (apidiscovery.k8s.io), and /version.

use crate::catalog::{Catalog, Resource};
use resources::Subresource;
use serde_json::{Value, json};
use std::sync::Arc;

/// Verbs of discovery, in upstream's order.
const ALL_VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

const NOT_DELETE_COLLECTION: [&str; 7] = ["create", "delete", "get", "list", "patch", "update", "watch"];

/// `/version`.
pub fn version() -> Value {
    let built = telemetry::version::get();
    let (major, minor) = (telemetry::version::MAJOR, telemetry::version::MINOR);
    let earlier = minor.parse::<u32>().map_or_else(|_| String::new(), |n| n.saturating_sub(1).to_string());
    json!({
        "major": major, "minor": minor, "emulationMajor": major, "emulationMinor": minor,
        "minCompatibilityMajor": major, "minCompatibilityMinor": earlier,
        "gitVersion": built.version, "gitCommit": built.commit, "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": format!("{}/{}", built.platform.0, built.platform.1),
    })
}

/// A subresource as discovery shows it: kind, verbs and the group and version of its body.
fn subresource(
    resource: &Resource,
    subresource: Subresource,
) -> (String, Vec<&'static str>, (String, String)) {
    let own = (resource.gvk.group.clone(), resource.gvk.version.clone());
    match subresource {
        Subresource::Part("finalize") => (resource.gvk.kind.clone(), vec!["update"], own),
        Subresource::Part(_) => (resource.gvk.kind.clone(), vec!["get", "patch", "update"], own),
        Subresource::Scale => {
            ("Scale".into(), vec!["get", "patch", "update"], ("autoscaling".into(), "v1".into()))
        }
        Subresource::Edit(name) | Subresource::Served(name) => match resource.kind.served(name) {
            Some(((group, version, kind), verbs)) => {
                (kind.into(), verbs.to_vec(), (group.into(), version.into()))
            }
            None => (resource.gvk.kind.clone(), Vec::new(), own),
        },
    }
}

/// Verbs of a resource.
fn verbs(resource: &Resource) -> &'static [&'static str] {
    match resource.kind.verbs() {
        resources::Verbs::All => &ALL_VERBS,
        resources::Verbs::NotDeleteCollection => &NOT_DELETE_COLLECTION,
        resources::Verbs::CreateOnly => &ALL_VERBS[..1],
        resources::Verbs::Computed => &ALL_VERBS[3..5],
    }
}

/// `/api`.
pub fn legacy_versions(address: &str) -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]})
}

fn group_value(name: &str, versions: &[(String, Vec<Arc<Resource>>)]) -> Value {
    let versions: Vec<Value> =
        versions.iter().map(|(v, _)| json!({"groupVersion": format!("{name}/{v}"), "version": v})).collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

/// `/apis`.
pub fn groups(catalog: &Catalog) -> Value {
    let groups: Vec<Value> = catalog
        .groups
        .iter()
        .filter(|g| !g.name.is_empty())
        .map(|g| group_value(&g.name, &g.versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub fn group(catalog: &Catalog, name: &str) -> Option<Value> {
    let group = catalog.groups.iter().find(|g| g.name == name && !name.is_empty())?;
    let mut value = group_value(&group.name, &group.versions);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Some(value)
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
pub fn resources(catalog: &Catalog, group: &str, version: &str) -> Option<Value> {
    let (_, list) =
        catalog.groups.iter().find(|g| g.name == group)?.versions.iter().find(|(v, _)| v == version)?;
    let mut out = Vec::new();
    for resource in list {
        let n = resource.names;
        let mut value = json!({"name": n.plural, "singularName": n.singular, "namespaced": resource.namespaced, "kind": n.kind, "verbs": verbs(resource)});
        if !n.short.is_empty() {
            value["shortNames"] = json!(n.short);
        }
        if !n.categories.is_empty() {
            value["categories"] = json!(n.categories);
        }
        if resource.collection.is_some() {
            value["storageVersionHash"] = storage_hash(resource).into();
        }
        out.push(value);
        for sub in resource.kind.subresources() {
            let (kind, verbs, (g, v)) = subresource(resource, sub);
            let mut value = json!({"name": format!("{}/{}", n.plural, sub.name()), "singularName": "", "namespaced": resource.namespaced, "kind": kind, "verbs": verbs});
            if (g.as_str(), v.as_str()) != (group, version) {
                value["group"] = g.into();
                value["version"] = v.into();
            }
            out.push(value);
        }
    }
    let group_version = if group.is_empty() { version.to_string() } else { format!("{group}/{version}") };
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": out}),
    )
}

/// A short text that changes when the stored form of a resource does.
fn storage_hash(resource: &Resource) -> String {
    use base64::Engine;
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    resource.facet.as_ref().map_or(&resource.gvk, |f| &f.own.gvk).hash(&mut hasher);
    base64::engine::general_purpose::STANDARD.encode(hasher.finish().to_be_bytes())
}

/// Aggregated discovery of `/api` (`legacy`) or `/apis`, in version `v2` or `v2beta1`.
pub fn aggregated(catalog: &Catalog, legacy: bool, version: &str) -> Value {
    let items: Vec<Value> = catalog
        .groups
        .iter()
        .filter(|g| g.name.is_empty() == legacy)
        .map(|g| {
            let versions: Vec<Value> = g
                .versions
                .iter()
                .map(|(v, list)| json!({"version": v, "freshness": "Current", "resources": list.iter().map(|r| aggregated_resource(r)).collect::<Vec<_>>()}))
                .collect();
            let metadata = if legacy { json!({"creationTimestamp": null}) } else { json!({"name": g.name, "creationTimestamp": null}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let n = resource.names;
    let kind =
        |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut value = json!({
        "resource": n.plural, "responseKind": kind(n.group, n.version, n.kind), "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": n.singular, "verbs": verbs(resource),
    });
    if !n.short.is_empty() {
        value["shortNames"] = json!(n.short);
    }
    if !n.categories.is_empty() {
        value["categories"] = json!(n.categories);
    }
    let subs: Vec<Value> = resource
        .kind
        .subresources()
        .into_iter()
        .map(|sub| {
            let (k, verbs, (g, v)) = subresource(resource, sub);
            json!({"subresource": sub.name(), "responseKind": kind(&g, &v, &k), "verbs": verbs})
        })
        .collect();
    if !subs.is_empty() {
        value["subresources"] = subs.into();
    }
    value
}
