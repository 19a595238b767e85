//! Namespace.

use crate::kind::{Part, age_column, label_name};
use crate::{Column, Context, Kind};
use api::field::FieldErrors;
use k8s_openapi::api::core::v1::{Namespace, NamespaceSpec, NamespaceStatus};

/// The rules of Namespace.
pub static KIND: Kind<Namespace> = Kind {
    has_status: true,
    name_rule: label_name,
    prepare_create,
    prepare_update,
    parts: &[Part { name: "finalize", prepare: prepare_finalize, validate: |_, _, _: &mut FieldErrors| {} }],
    selectable: &["status.phase"],
    columns: &[
        Column::text("Status", "Active, or Terminating.", |n: &Namespace, _| {
            n.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default().into()
        }),
        age_column(),
    ],
    prepare_delete: |n| n.status.get_or_insert_default().phase = Some("Terminating".into()),
    held: |n| n.spec.as_ref().and_then(|s| s.finalizers.as_ref()).is_some_and(|f| !f.is_empty()),
    default: |n| {
        // Every namespace can be selected by its own name.
        if let Some(name) = n.metadata.name.clone().filter(|name| !name.is_empty()) {
            n.metadata.labels.get_or_insert_default().insert("kubernetes.io/metadata.name".into(), name);
        }
    },
    ..Kind::cluster("namespace", "namespaces").called(&["ns"], &[])
};

const FINALIZER: &str = "kubernetes";

fn prepare_create(n: &mut Namespace, _: &Context<'_>) {
    n.status = Some(NamespaceStatus { phase: Some("Active".into()), ..Default::default() });
    let finalizers = n.spec.get_or_insert_with(NamespaceSpec::default).finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.into());
    }
}

fn prepare_update(new: &mut Namespace, old: &Namespace, _: &Context<'_>) {
    new.spec.get_or_insert_default().finalizers = old.spec.as_ref().and_then(|s| s.finalizers.clone());
}

/// `finalize` alone changes `spec.finalizers`.
fn prepare_finalize(new: &mut Namespace, old: &Namespace, _: &Context<'_>) {
    new.status = old.status.clone();
}
