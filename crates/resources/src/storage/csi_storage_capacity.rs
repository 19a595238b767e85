//! CSIStorageCapacity: how much room a storage class has left, seen from some nodes.

use crate::check::{self, immutable, not_negative_amount};
use crate::kind::subdomain_name;
use crate::{Column, Kind};
use api::field::FieldPath;
use k8s_openapi::api::storage::v1::CSIStorageCapacity;

/// The rules of CSIStorageCapacity.
pub static KIND: Kind<CSIStorageCapacity> = Kind {
    unconditional_update: false,
    validate: |c, errors| {
        check::label_selector(c.node_topology.as_ref(), false, FieldPath::root("nodeTopology"), errors);
        let class = &c.storage_class_name;
        errors.all_invalid(FieldPath::root("storageClassName"), class, subdomain_name(class, false));
        if let Some(capacity) = &c.capacity {
            not_negative_amount(capacity, FieldPath::root("capacity"), errors);
        }
    },
    validate_update: |new, old, errors| {
        immutable(&new.node_topology, &old.node_topology, FieldPath::root("nodeTopology"), errors);
        let at = FieldPath::root("storageClassName");
        immutable(&new.storage_class_name, &old.storage_class_name, at, errors);
    },
    columns: &[
        Column::text("StorageClassName", "The storage class.", |c: &CSIStorageCapacity, _| {
            c.storage_class_name.clone().into()
        }),
        Column::text("Capacity", "The room that is left.", |c: &CSIStorageCapacity, _| {
            c.capacity.as_ref().map_or_else(|| "<unset>".into(), |q| q.0.clone()).into()
        }),
    ],
    ..Kind::namespaced("csistoragecapacity", "csistoragecapacities")
};
