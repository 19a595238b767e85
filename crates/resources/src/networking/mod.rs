//! The group `networking.k8s.io`.

pub mod ingress;
pub mod ingress_class;
mod ingress_v1beta1;
pub mod ip_address;
pub mod network_policy;
pub mod service_cidr;

use crate::check::{required_text, segment};
use api::field::{FieldErrors, FieldPath};

/// Checks a reference to an object of any kind.
fn typed_reference(group: Option<&str>, kind: &str, name: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if let Some(group) = group {
        errors.all_invalid(at.child("apiGroup"), group, api::names::dns1123_subdomain(group));
    }
    required_text(kind, at.child("kind"), "", segment, errors);
    required_text(name, at.child("name"), "", segment, errors);
}
