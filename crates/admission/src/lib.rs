//! The built-in admission plugins, one file each: they change or refuse an object before it is kept.
//!
//! Start at [`Chain`]. A plugin sees the request, the object and, through an
//! [`api::read::ObjectReader`], the cluster as the server's cache has it. It does no I/O.

pub mod default_toleration_seconds;
pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod priority;
pub mod service_account;
pub mod taint_nodes_by_condition;

use api::object::Object;
use api::read::ObjectReader;
use api::{GroupResource, Status};

/// What is being done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// It is deleted.
    Delete,
}

/// A request, as plugins see it.
pub struct Request<'a> {
    /// What is being done.
    pub operation: Operation,
    /// Of which resource.
    pub resource: &'a GroupResource,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// Empty for a cluster-scoped resource.
    pub namespace: &'a str,
    /// Empty for a name that is yet to be generated.
    pub name: &'a str,
    /// Who asks.
    pub user: &'a str,
    /// Their groups.
    pub groups: &'a [String],
    /// The object before; `None` when it is made.
    pub old: Option<&'a Object>,
    /// The rest of the cluster.
    pub reader: &'a dyn ObjectReader,
}

impl Request<'_> {
    /// Whether it is about this resource itself.
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.subresource.is_empty() && self.resource.group == group && self.resource.resource == resource
    }

    /// A refusal in a plugin's name.
    pub fn forbidden(&self, why: impl std::fmt::Display) -> Status {
        Status::forbidden(self.resource, self.name, why)
    }
}

/// An admission plugin.
pub trait Plugin: Send + Sync {
    /// Its name, as `--enable-admission-plugins` has it.
    fn name(&self) -> &'static str;

    /// May change the object, or refuse it. There is no object when one is deleted.
    fn admit(&self, _request: &Request<'_>, _object: Option<&mut Object>) -> Result<(), Status> {
        Ok(())
    }

    /// May refuse the object as all plugins have left it.
    fn validate(&self, _request: &Request<'_>, _object: Option<&Object>) -> Result<(), Status> {
        Ok(())
    }
}

/// The plugins in their order.
pub struct Chain(Vec<Box<dyn Plugin>>);

/// All plugins, in upstream's order.
fn all() -> Vec<Box<dyn Plugin>> {
    vec![
        Box::new(namespace_lifecycle::NamespaceLifecycle),
        Box::new(service_account::ServiceAccounts),
        Box::new(node_restriction::NodeRestriction),
        Box::new(taint_nodes_by_condition::TaintNodesByCondition),
        Box::new(priority::Priority),
        Box::new(default_toleration_seconds::DefaultTolerationSeconds),
    ]
}

/// On only when `--enable-admission-plugins` names it.
const OFF_BY_DEFAULT: [&str; 1] = ["NodeRestriction"];

impl Chain {
    /// The plugins that are on by default, with those enabled and without those disabled.
    /// Names of upstream's that are not here are accepted: their rules are kept elsewhere, or come to nothing.
    pub fn new(enabled: &[String], disabled: &[String]) -> Self {
        let on = |p: &dyn Plugin| {
            let named = |list: &[String]| list.iter().any(|n| n == p.name());
            named(enabled) || !OFF_BY_DEFAULT.contains(&p.name()) && !named(disabled)
        };
        Chain(all().into_iter().filter(|p| on(p.as_ref())).collect())
    }

    /// Lets every plugin change the object.
    pub fn admit(&self, request: &Request<'_>, mut object: Option<&mut Object>) -> Result<(), Status> {
        self.0.iter().try_for_each(|p| p.admit(request, object.as_deref_mut()))
    }

    /// Lets every plugin refuse the object.
    pub fn validate(&self, request: &Request<'_>, object: Option<&Object>) -> Result<(), Status> {
        self.0.iter().try_for_each(|p| p.validate(request, object))
    }
}
