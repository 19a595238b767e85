//! An Ingress that names no class gets the one that is marked as the default.

use crate::{Plugin, Request};
use api::object::Object;
use api::{Status, read};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use std::cmp::Reverse;

/// See the module.
pub struct DefaultIngressClass;

const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// How a class was named before there was a field for it.
const NAMED: &str = "kubernetes.io/ingress.class";

impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn admit(&self, request: &Request<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        if !request.creates("networking.k8s.io", "ingresses") {
            return Ok(());
        }
        let Some(ingress) = object.and_then(|o| o.get_mut::<Ingress>()) else { return Ok(()) };
        let annotated = ingress.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(NAMED));
        let spec = ingress.spec.get_or_insert_default();
        if annotated || spec.ingress_class_name.is_some() {
            return Ok(());
        }
        // Of several, the newest; of those, the first by name.
        let default = read::list::<IngressClass>(request.reader, None)
            .into_iter()
            .map(|c| c.metadata)
            .filter(|m| m.annotations.as_ref().and_then(|a| a.get(IS_DEFAULT)).is_some_and(|v| v == "true"))
            .min_by_key(|m| (Reverse(m.creation_timestamp.as_ref().map(|t| t.0)), m.name.clone()));
        if let Some(class) = default {
            spec.ingress_class_name = class.name;
        }
        Ok(())
    }
}
