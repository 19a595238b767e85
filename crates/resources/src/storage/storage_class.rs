//! StorageClass: how volumes are made.

use super::{parameters, provisioner};
use crate::check::{immutable, marked_default};
use crate::kind::{age_column, name_column};
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::api::core::v1::TopologySelectorTerm;
use k8s_openapi::api::storage::v1::StorageClass;
use std::collections::BTreeMap;

/// The rules of StorageClass.
pub static KIND: Kind<StorageClass> = Kind {
    answers_deleted: true,
    default: |c| {
        c.reclaim_policy.get_or_insert_with(|| "Delete".into());
        c.volume_binding_mode.get_or_insert_with(|| "Immediate".into());
    },
    validate: |c, errors| {
        provisioner(&c.provisioner, FieldPath::root("provisioner"), errors);
        parameters(c.parameters.as_ref(), true, FieldPath::root("parameters"), errors);
        let word = |value: Option<&str>, supported: &[&str], name: &str, errors: &mut FieldErrors| {
            if let Some(value) = value.filter(|v| !v.is_empty() && !supported.contains(v)) {
                errors.not_supported(FieldPath::root(name), value, supported);
            }
        };
        word(c.reclaim_policy.as_deref(), &["Delete", "Retain"], "reclaimPolicy", errors);
        let modes = ["Immediate", "WaitForFirstConsumer"];
        word(c.volume_binding_mode.as_deref(), &modes, "volumeBindingMode", errors);
        topologies(c.allowed_topologies.as_deref().unwrap_or_default(), errors);
    },
    validate_update: |new, old, errors| {
        immutable(&new.parameters, &old.parameters, FieldPath::root("parameters"), errors);
        immutable(&new.provisioner, &old.provisioner, FieldPath::root("provisioner"), errors);
        immutable(&new.reclaim_policy, &old.reclaim_policy, FieldPath::root("reclaimPolicy"), errors);
        let at = FieldPath::root("volumeBindingMode");
        immutable(&new.volume_binding_mode, &old.volume_binding_mode, at, errors);
    },
    columns: &[
        name_column(|c: &StorageClass, _| {
            marked_default(&c.metadata, "storageclass.kubernetes.io/is-default-class")
        }),
        Column::text("Provisioner", "Who makes its volumes.", |o: &StorageClass, _| {
            o.provisioner.clone().into()
        }),
        Column::text("ReclaimPolicy", "What becomes of them.", |o: &StorageClass, _| {
            o.reclaim_policy.clone().unwrap_or_else(|| "Delete".into()).into()
        }),
        Column::text("VolumeBindingMode", "When they are made.", |o: &StorageClass, _| {
            o.volume_binding_mode.clone().unwrap_or_else(|| "Immediate".into()).into()
        }),
        Column::text("AllowVolumeExpansion", "Whether they may grow.", |o: &StorageClass, _| {
            o.allow_volume_expansion.unwrap_or(false).into()
        }),
        age_column(),
    ],
    ..Kind::cluster("storageclass", "storageclasses").called(&["sc"], &[])
};

fn topologies(terms: &[TopologySelectorTerm], errors: &mut FieldErrors) {
    let list = FieldPath::root("allowedTopologies");
    let mut seen: Vec<BTreeMap<&str, Vec<&String>>> = Vec::new();
    for (i, term) in terms.iter().enumerate() {
        let at = list.index(i);
        let at = at.child("matchLabelExpressions");
        let mut keys: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
        for (j, wanted) in term.match_label_expressions.iter().flatten().enumerate() {
            let at = at.index(j);
            if wanted.values.is_empty() {
                errors.required(at.child("values"), "");
            }
            for (k, value) in wanted.values.iter().enumerate() {
                if wanted.values.iter().take(k).any(|v| v == value) {
                    errors.duplicate(at.child("values").index(k), value);
                }
            }
            errors.all_invalid(at.child("key"), &wanted.key, names::qualified_name(&wanted.key));
            let mut values: Vec<&String> = wanted.values.iter().collect();
            values.sort();
            if keys.insert(&wanted.key, values).is_some() {
                errors.duplicate(at.child("key"), &wanted.key);
            }
        }
        if seen.contains(&keys) {
            errors.duplicate(at, &"");
        }
        seen.push(keys);
    }
}
