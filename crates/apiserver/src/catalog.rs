//! What is served: groups, versions and resources. A value that is replaced whole when it changes.

use crate::cache::{Collection, Field, FieldTest, Filter};
use api::schema::SchemaRef;
use api::selector::{LabelSelector, parse_fields};
use api::{GroupResource, GroupVersionKind, Status};
use resources::{AnyKind, Names};
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
}

impl Resource {
    /// The key of an object below the collection's prefix.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced { format!("{namespace}/{name}") } else { name.to_string() }
    }

    /// Its objects, or the answer that there are none to be had.
    pub fn collection(&self, verb: &str) -> Result<&Arc<Collection>, Status> {
        self.collection.as_ref().ok_or_else(|| Status::method_not_supported(&self.group_resource, verb))
    }

    /// Reads the selectors of a list or watch.
    pub fn filter(
        &self,
        namespace: &str,
        labels: Option<&str>,
        fields: Option<&str>,
    ) -> Result<Filter, Status> {
        let mut filter =
            Filter { namespace: (!namespace.is_empty()).then(|| namespace.to_string()), ..Filter::default() };
        if let Some(labels) = labels {
            let selector = LabelSelector::parse(labels)
                .map_err(|e| Status::bad_request(format!("unable to parse requirement: {e}")))?;
            filter.labels = (!selector.is_empty()).then_some(selector);
        }
        for term in fields
            .map(parse_fields)
            .transpose()
            .map_err(|e| Status::bad_request(e.to_string()))?
            .into_iter()
            .flatten()
        {
            let selectable = self.collection.as_ref().map_or(&[][..], |c| &c.selectable);
            let field = match term.field.as_str() {
                "metadata.name" if term.equal && filter.name.is_none() => {
                    filter.name = Some(term.value);
                    continue;
                }
                "metadata.name" => Field::Name,
                "metadata.namespace" if self.namespaced => Field::Namespace,
                field => match selectable.iter().position(|s| s.name == field) {
                    Some(i) => Field::Selectable(i),
                    None => return Err(Status::bad_request(format!("field label not supported: {field}"))),
                },
            };
            filter.fields.push(FieldTest { field, value: term.value, equal: term.equal });
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
    /// Makes a catalog.
    pub fn new(resources: Vec<Arc<Resource>>) -> Self {
        let mut catalog = Catalog::default();
        for resource in resources {
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
            catalog.by_resource.entry(resource.group_resource.clone()).or_insert_with(|| resource.clone());
            catalog.by_kind.insert(resource.gvk.clone(), resource);
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
