//! CSINode: the drivers of a node.

use crate::check::{self, IMMUTABLE, driver_name};
use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver};

const MAX_ID: usize = 192;
const SPEC: FieldPath<'static> = FieldPath::root("spec");

/// The rules of CSINode.
pub static KIND: Kind<CSINode> = Kind {
    answers_deleted: true,
    unconditional_update: false,
    validate,
    validate_update: |new, old, errors| {
        validate(new, errors);
        // How many volumes fit may change.
        let rest = |d: &CSINodeDriver| CSINodeDriver { allocatable: None, ..d.clone() };
        for before in &old.spec.drivers {
            for now in new.spec.drivers.iter().filter(|d| d.name == before.name) {
                if rest(now) != rest(before) {
                    errors.invalid(SPEC.child("drivers"), &rest(now), IMMUTABLE);
                }
            }
        }
    },
    columns: &[
        Column::number("Drivers", "How many there are.", |o: &CSINode, _| o.spec.drivers.len().into()),
        age_column(),
    ],
    ..Kind::cluster("csinode", "csinodes")
};

fn validate(node: &CSINode, errors: &mut FieldErrors) {
    let list = SPEC.child("drivers");
    let drivers = &node.spec.drivers;
    for (i, driver) in drivers.iter().enumerate() {
        let at = list.index(i);
        driver_name(&driver.name, at.child("name"), errors);
        if driver.node_id.is_empty() {
            errors.required(at.child("nodeID"), "");
        }
        if driver.node_id.len() > MAX_ID {
            let why = format!("must be {MAX_ID} characters or less");
            errors.invalid(at.child("nodeID"), &driver.node_id, why);
        }
        let count = driver.allocatable.as_ref().and_then(|a| a.count);
        check::not_negative(count, at.child("allocatable").child("count"), errors);
        if drivers.iter().take(i).any(|d| d.name == driver.name) {
            errors.duplicate(at.child("name"), &driver.name);
        }
        let keys = driver.topology_keys.as_deref().unwrap_or_default();
        for (j, key) in keys.iter().enumerate() {
            if key.is_empty() {
                errors.required(at, "");
            }
            if keys.iter().take(j).any(|k| k == key) {
                errors.duplicate(at, key);
            }
            errors.all_invalid(at, key, names::qualified_name(key));
        }
    }
}
