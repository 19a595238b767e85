//! OwnerReferencesPermissionEnforcement: whoever names an owner must be allowed to delete the dependent, and
//! whoever makes the owner's deletion wait for it must be allowed to set the owner's finalizers.

use crate::{Operation, Plugin, Request};
use api::Status;
use api::object::Object;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

/// See the module.
pub struct OwnerReferences;

fn owners(object: Option<&Object>) -> &[OwnerReference] {
    object.and_then(|o| o.meta().owner_references.as_deref()).unwrap_or_default()
}

impl Plugin for OwnerReferences {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn validate(&self, request: &Request<'_>, object: Option<&Object>) -> Result<(), Status> {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        // Bindings and status writes carry no owners of their own.
        let free = request.resource.resource == "pods" && matches!(request.subresource, "status" | "binding");
        let (new, old) = (owners(object), owners(request.old));
        if !writes || free || object.is_none() || new == old {
            return Ok(());
        }
        let host = request.host;
        if request.operation == Operation::Update {
            host.authorize("delete", request.resource, request.subresource, request.namespace, request.name)
                .map_err(|why| {
                    request.forbidden(format!(
                        "cannot set an ownerRef on a resource you can't delete: {why}, <nil>"
                    ))
                })?;
        }
        let blocks = |r: &OwnerReference| r.block_owner_deletion == Some(true);
        let blocked = |uid: &str| old.iter().any(|r| r.uid == uid && blocks(r));
        let fresh: Vec<&OwnerReference> = new.iter().filter(|r| blocks(r) && !blocked(&r.uid)).collect();
        let anything = api::GroupResource::new("*", "*");
        if fresh.is_empty() || host.authorize("update", &anything, "finalizers", "", "*").is_ok() {
            return Ok(());
        }
        for owner in fresh {
            let (resource, namespaced) = host.resource_of(&owner.api_version, &owner.kind).ok_or_else(|| {
                request.forbidden(format!(
                    "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {} Kind {}: no matches for kind {:?} in version {:?}",
                    owner.api_version, owner.kind, owner.kind, owner.api_version
                ))
            })?;
            let namespace = if namespaced { request.namespace } else { "" };
            host.authorize("update", &resource, "finalizers", namespace, &owner.name).map_err(|why| {
                request.forbidden(format!(
                    "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {why}, <nil>"
                ))
            })?;
        }
        Ok(())
    }
}
