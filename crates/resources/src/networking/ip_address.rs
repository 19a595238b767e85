//! IPAddress: an address of a service, claimed.

use crate::addresses::address_faults;
use crate::check::{immutable, required_text, segment};
use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::FieldPath;
use k8s_openapi::api::networking::v1::IPAddress;

const SPEC: FieldPath<'static> = FieldPath::root("spec");

/// The rules of IPAddress.
pub static KIND: Kind<IPAddress> = Kind {
    name_rule: |name, _| address_faults(name, true),
    validate: |a, errors| {
        let parent = &a.spec.parent_ref;
        let at = SPEC.child("parentRef");
        if let Some(group) = parent.group.as_deref().filter(|g| !g.is_empty()) {
            errors.all_invalid(at.child("group"), group, api::names::dns1123_subdomain(group));
        }
        required_text(&parent.resource, at.child("resource"), "", segment, errors);
        required_text(&parent.name, at.child("name"), "", segment, errors);
        if let Some(namespace) = parent.namespace.as_deref() {
            errors.all_invalid(at.child("namespace"), namespace, segment(namespace));
        }
    },
    validate_update: |new, old, errors| {
        immutable(&new.spec.parent_ref, &old.spec.parent_ref, SPEC.child("parentRef"), errors);
    },
    selectable: &[
        "spec.parentRef.group",
        "spec.parentRef.resource",
        "spec.parentRef.namespace",
        "spec.parentRef.name",
    ],
    columns: &[
        Column::text("ParentRef", "What it belongs to.", |a: &IPAddress, _| {
            let parent = &a.spec.parent_ref;
            let some = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
            let group = some(&parent.group).map(|g| format!(".{g}")).unwrap_or_default();
            let namespace = some(&parent.namespace).map(|n| format!("/{n}")).unwrap_or_default();
            format!("{}{namespace}/{}", format!("{}{group}", parent.resource).to_lowercase(), parent.name)
                .into()
        }),
        age_column(),
    ],
    ..Kind::cluster("ipaddress", "ipaddresses").called(&["ip"], &[])
};
