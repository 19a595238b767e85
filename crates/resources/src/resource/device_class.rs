//! DeviceClass: devices that are alike.

use super::{MOST, configuration, selectors};
use crate::Kind;
use crate::check::each;
use crate::kind::age_column;
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::api::resource::v1::DeviceClass;

/// The rules of DeviceClass.
pub static KIND: Kind<DeviceClass> = Kind {
    answers_deleted: true,
    has_generation: true,
    validate,
    validate_update: |new, _, errors| validate(new, errors),
    columns: &[age_column()],
    ..Kind::cluster("deviceclass", "deviceclasses")
};

fn validate(class: &DeviceClass, errors: &mut FieldErrors) {
    let at = FieldPath::root("spec");
    selectors(class.spec.selectors.as_ref(), at.child("selectors"), errors);
    each(class.spec.config.as_ref(), MOST, at.child("config"), errors, |config, at, errors| {
        configuration(config.opaque.as_ref(), at, errors);
    });
    if let Some(name) = class.spec.extended_resource_name.as_ref().filter(|n| !is_extended(n)) {
        errors.invalid(at.child("extendedResourceName"), name, "must be a valid extended resource name");
    }
}

/// Whether it names a resource that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    !native && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}
