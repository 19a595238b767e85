//! The built-in admission plugins, one file each: they change or refuse an object before it is kept.
//!
//! Start at [`Chain`]. A plugin sees the request, the object and, through an [`api::read::ObjectReader`], the
//! cluster as the server's cache has it. It does no I/O: what it wants of the server it asks its [`Host`] for.
//! Plugins that wait for something ([`Waiting`]) stand in the same order as those that do not.

pub mod always;
pub mod always_pull_images;
pub mod certificates;
pub mod config;
pub mod default_ingress_class;
pub mod default_storage_class;
pub mod default_toleration_seconds;
pub mod deny_service_external_ips;
pub mod extended_resource_toleration;
pub mod limit_pod_hard_anti_affinity;
pub mod limit_ranger;
pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod owner_references;
pub mod persistent_volume_claim_resize;
pub mod pod_node_selector;
pub mod pod_resize;
pub mod pod_security;
pub mod pod_topology_labels;
pub mod priority;
pub mod resource_quota;
pub mod runtime_class;
pub mod service_account;
pub mod storage_object_in_use;
pub mod taint_nodes_by_condition;

use api::object::Object;
use api::read::ObjectReader;
use api::{GroupResource, GroupVersionKind, Status};
use config::{Config, ConfigError};
use serde_json::Value;
use std::collections::BTreeMap;
use std::pin::Pin;

/// What is being done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// It is deleted.
    Delete,
    /// Someone is connected with it: exec, port-forward, proxy.
    Connect,
}

/// Something to wait for.
pub type Future<'a, T> = Pin<Box<dyn std::future::Future<Output = T> + Send + 'a>>;

/// Makes the new state of an object of the old one, or refuses.
pub type Change<'a> = &'a (dyn Fn(&Value) -> Result<Value, Status> + Send + Sync);

/// What a plugin may ask of the server on behalf of a request.
pub trait Host: Send + Sync {
    /// Whether the asker may do this too; if not, why.
    fn authorize(
        &self,
        verb: &str,
        resource: &GroupResource,
        subresource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<(), String>;

    /// Tells the client something without refusing.
    fn warn(&self, text: String);

    /// Tells the audit log something: a key such as `pod-security.kubernetes.io/enforce-policy`.
    fn annotate(&self, key: &str, value: String);

    /// The resource of a kind, and whether it is namespaced.
    fn resource_of(&self, api_version: &str, kind: &str) -> Option<(GroupResource, bool)>;

    /// An object as the store has it, which may be newer than what the reader shows.
    fn newest<'a>(
        &'a self,
        resource: &'a GroupResource,
        namespace: &'a str,
        name: &'a str,
    ) -> Future<'a, Result<Option<Value>, Status>>;

    /// Changes another object, on condition that nobody else has meanwhile; if so, `change` is asked again.
    /// `None` if it is not there.
    fn change<'a>(
        &'a self,
        resource: &'a GroupResource,
        namespace: &'a str,
        name: &'a str,
        change: Change<'a>,
    ) -> Future<'a, Result<Option<Value>, Status>>;
}

/// A request, as plugins see it.
pub struct Request<'a> {
    /// What is being done.
    pub operation: Operation,
    /// The kind of the resource.
    pub kind: &'a GroupVersionKind,
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
    /// Their unique id, if they have one.
    pub uid: &'a str,
    /// Their groups.
    pub groups: &'a [String],
    /// What else is known of them.
    pub extra: &'a BTreeMap<String, Vec<String>>,
    /// Whether nothing is to be kept.
    pub dry_run: bool,
    /// The object before; `None` when it is made.
    pub old: Option<&'a Object>,
    /// The rest of the cluster.
    pub reader: &'a dyn ObjectReader,
    /// The server.
    pub host: &'a dyn Host,
}

impl Request<'_> {
    /// Whether it is about this resource itself.
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.subresource.is_empty() && self.resource.group == group && self.resource.resource == resource
    }

    /// The same for an object that is made or changed.
    pub fn writes(&self, group: &str, resource: &str) -> bool {
        self.is(group, resource) && matches!(self.operation, Operation::Create | Operation::Update)
    }

    /// The same for an object that is made.
    pub fn creates(&self, group: &str, resource: &str) -> bool {
        self.is(group, resource) && self.operation == Operation::Create
    }

    /// A refusal in a plugin's name.
    pub fn forbidden(&self, why: impl std::fmt::Display) -> Status {
        Status::forbidden(self.resource, self.name, why)
    }
}

/// A plugin that knows at once.
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

/// A plugin that has to wait: for the store, for a webhook.
pub trait Waiting: Send + Sync {
    /// Its name, as `--enable-admission-plugins` has it.
    fn name(&self) -> &'static str;

    /// As [`Plugin::admit`].
    fn admit<'a>(
        &'a self,
        _request: &'a Request<'a>,
        _object: Option<&'a mut Object>,
    ) -> Future<'a, Result<(), Status>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// As [`Plugin::validate`].
    fn validate<'a>(
        &'a self,
        _request: &'a Request<'a>,
        _object: Option<&'a Object>,
    ) -> Future<'a, Result<(), Status>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A plugin of either sort.
pub enum Link {
    /// One that knows at once.
    Now(Box<dyn Plugin>),
    /// One that has to wait.
    Later(Box<dyn Waiting>),
}

impl Link {
    /// The plugin's name.
    pub fn name(&self) -> &'static str {
        match self {
            Link::Now(p) => p.name(),
            Link::Later(p) => p.name(),
        }
    }
}

/// All of upstream's plugins in their order, each with whether it is on by default.
pub const ORDER: [(&str, bool); 41] = [
    ("AlwaysAdmit", false),
    ("NamespaceAutoProvision", false),
    ("NamespaceLifecycle", true),
    ("NamespaceExists", false),
    ("LimitPodHardAntiAffinityTopology", false),
    ("LimitRanger", true),
    ("ServiceAccount", true),
    ("NodeRestriction", false),
    ("TaintNodesByCondition", true),
    ("AlwaysPullImages", false),
    ("ImagePolicyWebhook", false),
    ("PodSecurity", true),
    ("PodNodeSelector", false),
    ("Priority", true),
    ("DefaultTolerationSeconds", true),
    ("PodTolerationRestriction", false),
    ("EventRateLimit", false),
    ("ExtendedResourceToleration", false),
    ("DefaultStorageClass", true),
    ("StorageObjectInUseProtection", true),
    ("PodGroupProtection", true),
    ("OwnerReferencesPermissionEnforcement", false),
    ("PersistentVolumeClaimResize", true),
    ("RuntimeClass", true),
    ("CertificateApproval", true),
    ("CertificateSigning", true),
    ("ClusterTrustBundleAttest", true),
    ("CertificateSubjectRestriction", true),
    ("DefaultIngressClass", true),
    ("DenyServiceExternalIPs", false),
    ("PodTopologyLabels", true),
    ("PodGroupWorkloadExists", true),
    ("NodeDeclaredFeatureValidator", true),
    ("JobValidation", true),
    ("PodResizeValidator", true),
    ("MutatingAdmissionPolicy", true),
    ("MutatingAdmissionWebhook", true),
    ("ValidatingAdmissionPolicy", true),
    ("ValidatingAdmissionWebhook", true),
    ("ResourceQuota", true),
    ("AlwaysDeny", false),
];

/// Those without I/O of their own, and the quota.
fn built_in(config: &Config) -> Result<Vec<Link>, ConfigError> {
    let now = |p: Box<dyn Plugin>| Link::Now(p);
    let mut tolerations = default_toleration_seconds::DefaultTolerationSeconds::default();
    tolerations.not_ready = config.not_ready_seconds.unwrap_or(tolerations.not_ready);
    tolerations.unreachable = config.unreachable_seconds.unwrap_or(tolerations.unreachable);
    Ok(vec![
        now(Box::new(always::Admit)),
        now(Box::new(namespace_lifecycle::NamespaceLifecycle)),
        now(Box::new(namespace_lifecycle::NamespaceExists)),
        now(Box::new(limit_pod_hard_anti_affinity::LimitPodHardAntiAffinity)),
        now(Box::new(limit_ranger::LimitRanger)),
        now(Box::new(service_account::ServiceAccounts)),
        now(Box::new(node_restriction::NodeRestriction)),
        now(Box::new(taint_nodes_by_condition::TaintNodesByCondition)),
        now(Box::new(always_pull_images::AlwaysPullImages)),
        now(Box::new(pod_security::PodSecurity::new(config)?)),
        now(Box::new(pod_node_selector::PodNodeSelector::new(config)?)),
        now(Box::new(priority::Priority)),
        now(Box::new(tolerations)),
        now(Box::new(extended_resource_toleration::ExtendedResourceToleration)),
        now(Box::new(default_storage_class::DefaultStorageClass)),
        now(Box::new(storage_object_in_use::StorageObjectInUse)),
        now(Box::new(owner_references::OwnerReferences)),
        now(Box::new(persistent_volume_claim_resize::PersistentVolumeClaimResize)),
        now(Box::new(runtime_class::RuntimeClasses)),
        now(Box::new(certificates::Approval)),
        now(Box::new(certificates::Signing)),
        now(Box::new(certificates::SubjectRestriction)),
        now(Box::new(default_ingress_class::DefaultIngressClass)),
        now(Box::new(deny_service_external_ips::DenyServiceExternalIps)),
        now(Box::new(pod_topology_labels::PodTopologyLabels)),
        now(Box::new(pod_resize::PodResizeValidator)),
        Link::Later(Box::new(resource_quota::ResourceQuotas::new(config)?)),
        now(Box::new(always::Deny)),
    ])
}

/// The plugins in their order.
pub struct Chain(Vec<Link>);

impl Chain {
    /// The plugins that are on by default, with those enabled and without those disabled; `more` are those that
    /// the server brings itself. Who asks for one that nobody has here is told so.
    pub fn new(
        enabled: &[String],
        disabled: &[String],
        config: &Config,
        more: Vec<Link>,
    ) -> Result<Self, ConfigError> {
        let place = |name: &str| ORDER.iter().position(|(n, _)| *n == name);
        if let Some(unknown) = enabled.iter().chain(disabled).find(|n| place(n).is_none()) {
            return Err(ConfigError(format!("admission plugin {unknown:?} is unknown")));
        }
        if let Some(both) = enabled.iter().find(|n| disabled.contains(n)) {
            return Err(ConfigError(format!("admission plugin {both:?} is both enabled and disabled")));
        }
        let on = |name: &str| {
            let named = |list: &[String]| list.iter().any(|n| n == name);
            let by_default = ORDER.iter().any(|(n, on)| *n == name && *on);
            named(enabled) || by_default && !named(disabled)
        };
        let all: Vec<Link> = built_in(config)?.into_iter().chain(more).collect();
        if let Some(missing) = enabled.iter().find(|n| !all.iter().any(|l| l.name() == n.as_str())) {
            return Err(ConfigError(format!(
                "admission plugin {missing:?} can't be enabled: there is none of it here"
            )));
        }
        let mut links: Vec<Link> = all.into_iter().filter(|l| on(l.name())).collect();
        links.sort_by_key(|l| place(l.name()));
        Ok(Chain(links))
    }

    /// Lets every plugin change the object.
    pub async fn admit(&self, request: &Request<'_>, mut object: Option<&mut Object>) -> Result<(), Status> {
        for link in &self.0 {
            let object = object.as_deref_mut();
            match link {
                Link::Now(p) => p.admit(request, object)?,
                Link::Later(p) => p.admit(request, object).await?,
            }
        }
        Ok(())
    }

    /// Lets every plugin refuse the object.
    pub async fn validate(&self, request: &Request<'_>, object: Option<&Object>) -> Result<(), Status> {
        for link in &self.0 {
            match link {
                Link::Now(p) => p.validate(request, object)?,
                Link::Later(p) => p.validate(request, object).await?,
            }
        }
        Ok(())
    }
}
