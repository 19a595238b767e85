//! What is served: groups, versions and resources. A value that is replaced whole when it changes.

use crate::cache::{Collection, Field, FieldTest, Filter};
use crate::request::RequestInfo;
use api::schema::SchemaRef;
use api::{GroupResource, GroupVersionKind, Status};
use resources::{AnyKind, Names};
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

/// A kind's rules: built in, or made of a definition.
#[derive(Clone)]
pub enum KindRef {
    /// Built in.
    Builtin(&'static dyn AnyKind),
    /// Of a custom resource.
    Custom(Arc<dyn AnyKind>),
}

impl std::ops::Deref for KindRef {
    type Target = dyn AnyKind;
    fn deref(&self) -> &(dyn AnyKind + 'static) {
        match self {
            KindRef::Builtin(kind) => *kind,
            KindRef::Custom(kind) => kind.as_ref(),
        }
    }
}

/// One resource in one version.
pub struct Resource {
    /// Its kind's rules.
    pub kind: KindRef,
    /// How it is called.
    pub names: Names,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Group, version and kind.
    pub gvk: GroupVersionKind,
    /// Group and plural.
    pub group_resource: GroupResource,
    /// How its objects look.
    pub schema: SchemaRef,
    /// Its objects; `None` for kinds that are never kept.
    pub collection: Option<Arc<Collection>>,
    /// Set where objects are kept in another version than this.
    pub facet: Option<Facet>,
}

/// How a version in which nothing is kept comes from the one in which it is.
pub struct Facet {
    /// The conversion.
    pub version: &'static resources::Version,
    /// The resource in the version in which it is kept.
    pub own: Arc<Resource>,
}

fn renamed(value: &mut Value, gvk: &GroupVersionKind) {
    if let Value::Object(map) = value {
        map.insert("apiVersion".into(), gvk.api_version().into());
        map.insert("kind".into(), gvk.kind.clone().into());
    }
}

impl Resource {
    /// The resource in the version in which its objects are kept.
    pub fn own(self: &Arc<Self>) -> &Arc<Resource> {
        self.facet.as_ref().map_or(self, |f| &f.own)
    }

    /// Makes an object of this version one as it is kept.
    pub fn to_own(&self, value: &mut Value) {
        if let Some(facet) = &self.facet {
            (facet.version.to_own)(value);
            renamed(value, &facet.own.gvk);
        }
    }

    /// Makes an object as it is kept one of this version.
    pub fn from_own(&self, value: &mut Value) {
        if let Some(facet) = &self.facet {
            (facet.version.from_own)(value);
            renamed(value, &self.gvk);
            api::json::omit_zeros(value, &self.schema);
        }
    }

    /// A selector's field by the name that it is kept under.
    fn own_field<'a>(&self, field: &'a str) -> Option<&'a str> {
        match &self.facet {
            None => Some(field),
            Some(f) => f.version.selectable.iter().find(|(here, _)| *here == field).map(|(_, own)| *own),
        }
    }

    /// The key of an object below the collection's prefix.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced { format!("{namespace}/{name}") } else { name.to_string() }
    }

    /// Its objects, or the answer that there are none to be had.
    pub fn collection(&self, verb: &str) -> Result<&Arc<Collection>, Status> {
        self.collection.as_ref().ok_or_else(|| Status::method_not_supported(&self.group_resource, verb))
    }

    /// What of the collection a list, a watch or a deletion wants: by its selectors, and by the name in its path,
    /// which a selector may repeat and not widen.
    pub fn filter(&self, info: &RequestInfo) -> Result<Filter, Status> {
        let selectors = info.selectors.as_ref().map_err(|e| Status::bad_request(e.to_string()))?;
        let namespace = (self.namespaced && !info.namespace.is_empty()).then(|| info.namespace.clone());
        let labels = (!selectors.labels.is_empty()).then(|| selectors.labels.clone());
        let mut filter = Filter { namespace, labels, ..Filter::default() };
        if !info.name.is_empty() {
            if !selectors.fields.is_empty() && selectors.requires("metadata.name") != Some(&info.name) {
                return Err(Status::bad_request("fieldSelector metadata.name doesn't match requested name"));
            }
            filter.name = Some(info.name.clone());
        }
        for term in &selectors.fields {
            let selectable = self.collection.as_ref().map_or(&[][..], |c| &c.selectable);
            let field = match term.field.as_str() {
                "metadata.name" if term.equal && filter.name.as_ref().is_none_or(|n| *n == term.value) => {
                    filter.name = Some(term.value.clone());
                    continue;
                }
                "metadata.name" => Field::Name,
                "metadata.namespace" if self.namespaced => Field::Namespace,
                field => match self
                    .own_field(field)
                    .and_then(|own| selectable.iter().position(|s| s.name == own))
                {
                    Some(i) => Field::Selectable(i),
                    None => return Err(Status::bad_request(format!("field label not supported: {field}"))),
                },
            };
            filter.fields.push(FieldTest { field, value: term.value.clone(), equal: term.equal });
        }
        // Across namespaces a name does not tell where to look.
        if self.namespaced
            && filter.namespace.is_none()
            && let Some(name) = filter.name.take()
        {
            filter.fields.push(FieldTest { field: Field::Name, value: name, equal: true });
        }
        Ok(filter)
    }
}

/// A group's versions and their resources, in the order in which discovery shows them.
pub struct Group {
    /// Empty for the core group.
    pub name: String,
    /// The preferred version first.
    pub versions: Vec<(String, Vec<Arc<Resource>>)>,
}

/// Everything that is served.
#[derive(Default)]
pub struct Catalog {
    /// In discovery's order.
    pub groups: Vec<Group>,
    by_path: HashMap<(String, String, String), Arc<Resource>>,
    by_resource: HashMap<GroupResource, Arc<Resource>>,
    by_kind: HashMap<GroupVersionKind, Arc<Resource>>,
}

impl Catalog {
    /// Makes a catalog. What is not `served` is there for the server alone.
    pub fn new(resources: Vec<Arc<Resource>>, served: impl Fn(&Resource) -> bool) -> Self {
        let mut catalog = Catalog::default();
        for resource in resources {
            catalog.by_resource.entry(resource.group_resource.clone()).or_insert_with(|| resource.clone());
            if !served(&resource) {
                continue;
            }
            let n = resource.names;
            let group = match catalog.groups.iter().position(|g| g.name == n.group) {
                Some(i) => &mut catalog.groups[i],
                None => {
                    catalog.groups.push(Group { name: n.group.into(), versions: Vec::new() });
                    let last = catalog.groups.len() - 1;
                    &mut catalog.groups[last]
                }
            };
            match group.versions.iter_mut().find(|(v, _)| v == n.version) {
                Some((_, list)) => list.push(resource.clone()),
                None => group.versions.push((n.version.into(), vec![resource.clone()])),
            }
            catalog.by_path.insert((n.group.into(), n.version.into(), n.plural.into()), resource.clone());
            catalog.by_kind.insert(resource.gvk.clone(), resource);
        }
        catalog.groups.sort_by_cached_key(|g| {
            let (priority, _) = priority(&g.name, "");
            (Reverse(priority), g.name.clone())
        });
        for group in &mut catalog.groups {
            group.versions.sort_by_cached_key(|(version, _)| Reverse(version_rank(version)));
        }
        catalog
    }

    /// The resource at a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.by_path.get(&(group.to_string(), version.to_string(), plural.to_string()))
    }

    /// The resource in its preferred version.
    pub fn resource(&self, resource: &GroupResource) -> Option<&Arc<Resource>> {
        self.by_resource.get(resource)
    }

    /// The resource of a kind.
    pub fn kind(&self, kind: &GroupVersionKind) -> Option<&Arc<Resource>> {
        self.by_kind.get(kind)
    }

    /// Whether a group and version is served.
    pub fn serves(&self, group: &str, version: &str) -> bool {
        self.groups.iter().any(|g| g.name == group && g.versions.iter().any(|(v, _)| v == version))
    }
}

/// Which APIs `--runtime-config` turns off.
pub struct Served(Vec<(String, bool)>);

impl Served {
    /// Reads the flag. What it names has to be known, but for what is off.
    pub fn new(config: &[(String, bool)], resources: &[Arc<Resource>]) -> Result<Self, String> {
        for (name, on) in config {
            let known = matches!(name.as_str(), "api/all" | "api/ga")
                || !on && matches!(name.as_str(), "api/beta" | "api/alpha" | "api/legacy")
                || resources.iter().any(|r| Self::names(r).contains(name));
            if !known && *on {
                return Err(format!("{name} can't be turned on: it is not known here"));
            }
        }
        Ok(Served(config.to_vec()))
    }

    /// How the flag may name a resource: its version, or itself.
    fn names(resource: &Resource) -> [String; 2] {
        let version = match resource.names.group {
            "" => resource.names.version.to_string(),
            group => format!("{group}/{}", resource.names.version),
        };
        let one = format!("{version}/{}", resource.names.plural);
        [version, one]
    }

    /// Whether a resource is served: what names it most closely counts.
    pub fn has(&self, resource: &Resource) -> bool {
        let said = |name: &str| self.0.iter().rev().find(|(n, _)| n == name).map(|(_, on)| *on);
        let version = resource.names.version;
        let stage = match version {
            v if v.contains("alpha") => "api/alpha",
            v if v.contains("beta") => "api/beta",
            _ => "api/ga",
        };
        let [of_version, one] = Self::names(resource);
        let legacy = || said("api/legacy").filter(|_| resource.names.group.is_empty());
        let said = said(&one).or_else(|| said(&of_version)).or_else(legacy);
        let said = said.or_else(|| self.0.iter().rev().find(|(n, _)| n == stage).map(|(_, on)| *on));
        said.or_else(|| self.0.iter().rev().find(|(n, _)| n == "api/all").map(|(_, on)| *on)).unwrap_or(true)
    }
}

/// Groups and upstream's priorities of them, by which discovery orders them and clients choose among equal
/// names; custom resources come after them.
const GROUPS: [(&str, u16); 22] = [
    ("apiregistration.k8s.io", 20000),
    ("", 18000),
    ("apps", 17800),
    ("events.k8s.io", 17750),
    ("authentication.k8s.io", 17700),
    ("authorization.k8s.io", 17600),
    ("autoscaling", 17500),
    ("batch", 17400),
    ("certificates.k8s.io", 17300),
    ("networking.k8s.io", 17200),
    ("policy", 17100),
    ("rbac.authorization.k8s.io", 17000),
    ("storage.k8s.io", 16800),
    ("admissionregistration.k8s.io", 16700),
    ("apiextensions.k8s.io", 16700),
    ("scheduling.k8s.io", 16600),
    ("coordination.k8s.io", 16500),
    ("node.k8s.io", 16300),
    ("discovery.k8s.io", 16200),
    ("resource.k8s.io", 16200),
    ("flowcontrol.apiserver.k8s.io", 16100),
    ("storagemigration.k8s.io", 15800),
];
const CUSTOM_PRIORITY: u16 = 1000;

/// Upstream's priorities of a group and of its version.
pub fn priority(group: &str, version: &str) -> (u16, u16) {
    let of =
        GROUPS.iter().find(|(name, _)| *name == group).map_or(CUSTOM_PRIORITY, |(_, priority)| *priority);
    let version = match (group, version) {
        ("", _) => 1,
        ("autoscaling", "v2") => 30,
        ("resource.k8s.io" | "flowcontrol.apiserver.k8s.io", "v1") => 21,
        (_, "v1") => 15,
        _ => 9,
    };
    (of, version)
}

/// Orders versions as apimachinery does: `v10` above `v2` above `v1` above `v2beta1` above `v1alpha3`, above
/// names of another form.
fn version_rank(version: &str) -> (u8, u64, u64, Reverse<String>) {
    let number = |text: &str| -> Option<u64> { text.parse().ok().filter(|n| *n > 0) };
    let parsed = version.strip_prefix('v').and_then(|rest| {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (major, rest) = rest.split_at(digits);
        let major = number(major)?;
        let (stage, minor) = match (rest, rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
            ("", ..) => (3, 0),
            (_, Some(n), _) => (2, number(n)?),
            (_, _, Some(n)) => (1, number(n)?),
            _ => return None,
        };
        Some((stage, major, minor, Reverse(String::new())))
    });
    parsed.unwrap_or((0, 0, 0, Reverse(version.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_upstreams_order() {
        let wanted =
            ["v10", "v2", "v1", "v11beta2", "v3beta1", "v1beta2", "v12alpha1", "v1alpha2", "foo1", "foo10"];
        let mut sorted = wanted;
        sorted.reverse();
        sorted.sort_by_key(|v| Reverse(version_rank(v)));
        assert_eq!(sorted, wanted);
    }
}
