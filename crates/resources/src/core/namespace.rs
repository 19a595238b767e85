//! Namespace.

use crate::check::{self, list, text};
use crate::kind::{Part, age_column, label_name};
use crate::{Column, Context, Kind, Verbs};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::core::v1::{Namespace, NamespaceSpec, NamespaceStatus};

/// The rules of Namespace.
pub static KIND: Kind<Namespace> = Kind {
    answers_deleted: true,
    has_status: true,
    verbs: Verbs::NotDeleteCollection,
    name_rule: label_name,
    prepare_create,
    prepare_update,
    validate: |n, errors| {
        let at = FieldPath::root("spec");
        for name in finalizers(n) {
            finalizer(name, at.child("finalizers"), errors);
        }
    },
    validate_update: |new, _, errors| {
        let at = FieldPath::root("spec");
        for name in finalizers(new) {
            finalizer(name, at.child("finalizers"), errors);
        }
    },
    validate_status: |new, _, errors| {
        let phase = new.status.as_ref().map_or("", |s| text(&s.phase));
        let (wanted, when) = match new.metadata.deletion_timestamp {
            None => ("Active", "empty"),
            Some(_) => ("Terminating", "not empty"),
        };
        if phase != wanted {
            let why = format!("may only be '{wanted}' if `deletionTimestamp` is {when}");
            errors.invalid(FieldPath::root("status").child("Phase"), &phase, why);
        }
    },
    parts: &[Part { name: "finalize", prepare: prepare_finalize, validate: validate_finalize }],
    selectable: &["status.phase"],
    columns: &[
        Column::text("Status", "The status of the namespace", |n: &Namespace, _| {
            n.status.as_ref().map_or("", |s| text(&s.phase)).into()
        }),
        age_column(),
    ],
    prepare_delete: |n| n.status.get_or_insert_default().phase = Some("Terminating".into()),
    held: |n| !finalizers(n).is_empty(),
    default: |n| {
        // Every namespace can be selected by its own name.
        if let Some(name) = n.metadata.name.clone().filter(|name| !name.is_empty()) {
            n.metadata.labels.get_or_insert_default().insert("kubernetes.io/metadata.name".into(), name);
        }
    },
    ..Kind::cluster("namespace", "namespaces").called(&["ns"], &[])
};

const FINALIZER: &str = "kubernetes";

fn finalizers(n: &Namespace) -> &[String] {
    n.spec.as_ref().map_or(&[], |s| list(&s.finalizers))
}

fn finalizer(name: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    check::qualified(name, at, errors);
    crate::meta::finalizer_name(name, at, errors);
}

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

fn validate_finalize(new: &Namespace, _: &Namespace, errors: &mut FieldErrors) {
    let at = FieldPath::root("spec");
    let path = at.child("finalizers");
    for (i, name) in finalizers(new).iter().enumerate() {
        finalizer(name, path.index(i), errors);
    }
}
