//! What admission plugins may ask of the server.

use super::modify::{How, Made, from_store, modify};
use super::{Request, internal};
use admission::{Change, Future, Host};
use api::{GroupResource, GroupVersion, GroupVersionKind, Status};
use auth::{Attributes, Decision};
use serde_json::Value;

impl Request {
    /// A request of the same user for another object.
    pub fn another(&self, resource: &GroupResource, namespace: &str, name: &str) -> Result<Request, Status> {
        let target = self.server.catalog().resource(resource).cloned();
        let target = target.ok_or_else(|| internal(format!("{resource} are not served")))?;
        let mut info = (*self.info).clone();
        (info.namespace, info.name) = (namespace.into(), name.into());
        Ok(self.derived(info, target))
    }
}

impl Host for Request {
    fn authorize(
        &self,
        verb: &str,
        resource: &GroupResource,
        subresource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<(), String> {
        let asked = Attributes {
            verb,
            is_resource: true,
            group: &resource.group,
            version: "*",
            resource: &resource.resource,
            subresource,
            namespace,
            name,
            ..Attributes::default()
        };
        match self.server.authorizers.authorize(&self.user, &asked, &*self.server) {
            Decision::Allow => Ok(()),
            Decision::Deny(why) | Decision::NoOpinion(why) => Err(why),
        }
    }

    fn warn(&self, text: String) {
        Request::warn(self, text);
    }

    fn annotate(&self, key: &str, value: String) {
        Request::annotate(self, key, value);
    }

    fn resource_of(&self, api_version: &str, kind: &str) -> Option<(GroupResource, bool)> {
        let GroupVersion { group, version } = GroupVersion::parse(api_version);
        let catalog = self.server.catalog();
        let resource = catalog.kind(&GroupVersionKind::new(group, version, kind))?;
        Some((resource.group_resource.clone(), resource.namespaced))
    }

    fn newest<'a>(
        &'a self,
        resource: &'a GroupResource,
        namespace: &'a str,
        name: &'a str,
    ) -> Future<'a, Result<Option<Value>, Status>> {
        Box::pin(async move {
            let request = self.another(resource, namespace, name)?;
            let entry = from_store(&request, &request.key()).await?;
            entry.map(|e| e.value().map_err(internal)).transpose()
        })
    }

    fn change<'a>(
        &'a self,
        resource: &'a GroupResource,
        namespace: &'a str,
        name: &'a str,
        change: Change<'a>,
    ) -> Future<'a, Result<Option<Value>, Status>> {
        Box::pin(async move {
            self.withdraw();
            let request = self.another(resource, namespace, name)?;
            let make = |old: &Value| Ok(Made { value: change(old)?, applied: false });
            let how = How { part: Some("status"), checked: false, manager: "kube-apiserver" };
            let outcome = modify(&request, how, &make).await?;
            outcome.map(|o| o.entry().value().map_err(internal)).transpose()
        })
    }
}
