//! Nothing is made in a namespace that is not there or is being deleted, and the namespaces that the
//! cluster needs are not deleted.

use crate::{Operation, Plugin, Request};
use api::object::Object;
use api::{GroupResource, Status, read};
use k8s_openapi::api::core::v1::Namespace;
use std::sync::Arc;

/// See the module.
pub struct NamespaceLifecycle;

/// The same for a namespace that is not there, alone: off by default.
pub struct NamespaceExists;

/// Namespaces that stay.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

fn is_within(request: &Request<'_>) -> bool {
    !request.namespace.is_empty() && request.resource.resource != "namespaces"
}

impl Plugin for NamespaceExists {
    fn name(&self) -> &'static str {
        "NamespaceExists"
    }

    fn validate(&self, request: &Request<'_>, _object: Option<&Object>) -> Result<(), Status> {
        let there = || read::kept::<Namespace>(request.reader, "", request.namespace).is_some();
        if !is_within(request) || there() {
            return Ok(());
        }
        Err(Status::not_found(&GroupResource::new("", "namespaces"), request.namespace))
    }
}

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn admit(&self, request: &Request<'_>, _object: Option<&mut Object>) -> Result<(), Status> {
        if request.operation == Operation::Delete
            && request.is("", "namespaces")
            && IMMORTAL.contains(&request.name)
        {
            return Err(request.forbidden("this namespace may not be deleted"));
        }
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        // Reviews of access may be asked about any namespace.
        if !writes || !is_within(request) || request.resource.group == "authorization.k8s.io" {
            return Ok(());
        }
        let namespaces = GroupResource::new("", "namespaces");
        let namespace: Arc<Namespace> = read::kept(request.reader, "", request.namespace)
            .ok_or_else(|| Status::not_found(&namespaces, request.namespace))?;
        if request.operation != Operation::Create {
            return Ok(());
        }
        let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
        if namespace.metadata.deletion_timestamp.is_some() || phase == Some("Terminating") {
            let why = format!(
                "unable to create new content in namespace {} because it is being terminated",
                request.namespace
            );
            let message = format!("namespace {} is being terminated", request.namespace);
            return Err(request.forbidden(why).cause("NamespaceTerminating", message, "metadata.namespace"));
        }
        Ok(())
    }
}
