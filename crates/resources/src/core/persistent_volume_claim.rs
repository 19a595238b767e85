//! PersistentVolumeClaim.

use crate::check::{self, IMMUTABLE, amount, is_set, list, required, text};
use crate::core::pod::warnings::of_claim;
use crate::core::pod_spec::resources;
use crate::diff;
use crate::kind::age_column;
use crate::table::text_or;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimTemplate,
    TypedLocalObjectReference, TypedObjectReference,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::sync::LazyLock;

/// The rules of PersistentVolumeClaim.
pub static KIND: Kind<PersistentVolumeClaim> = Kind {
    answers_deleted: true,
    has_status: true,
    default: |c| {
        c.spec.get_or_insert_default().volume_mode.get_or_insert_with(|| "Filesystem".into());
        let status = c.status.get_or_insert_default();
        if !is_set(&status.phase) {
            status.phase = Some("Pending".into());
        }
    },
    prepare_create: |c, _| {
        c.status = Some(Default::default());
        c.status.get_or_insert_default().phase = Some("Pending".into());
        if let Some(spec) = &mut c.spec {
            data_sources(spec, None);
        }
    },
    prepare_update: |new, old, _| {
        if let Some(spec) = &mut new.spec {
            data_sources(spec, old.spec.as_ref());
        }
    },
    validate: |c, errors| validate_spec(spec(c), FieldPath::root("spec"), errors),
    validate_update,
    validate_status,
    warnings: |c, _| {
        let mut out = annotation_warnings(&c.metadata, &[CLASS]);
        of_claim(spec(c), FieldPath::root("spec"), &mut out);
        out
    },
    columns: &[
        Column::text("Status", "Pending, Bound or Lost.", |c: &PersistentVolumeClaim, _| {
            match c.metadata.deletion_timestamp {
                Some(_) => "Terminating".into(),
                None => c.status.as_ref().map_or("", |s| text(&s.phase)).into(),
            }
        }),
        Column::text("Volume", "The volume it is bound to.", |c: &PersistentVolumeClaim, _| {
            text(&spec(c).volume_name).into()
        }),
        Column::text("Capacity", "How large that is.", |c: &PersistentVolumeClaim, _| {
            let capacity = c.status.as_ref().and_then(|s| s.capacity.as_ref()?.get("storage"));
            match is_set(&spec(c).volume_name) {
                true => capacity.map_or("0", |q| &q.0).into(),
                false => "".into(),
            }
        }),
        Column::text("Access Modes", "How it may be mounted.", |c: &PersistentVolumeClaim, _| {
            let modes = c.status.as_ref().and_then(|s| s.access_modes.as_deref());
            crate::storage::access_modes(modes.filter(|_| is_set(&spec(c).volume_name)))
        }),
        Column::text("StorageClass", "StorageClass of the pvc", |c: &PersistentVolumeClaim, _| {
            class(&c.metadata, &spec(c).storage_class_name).into()
        }),
        Column::text(
            "VolumeAttributesClass",
            "VolumeAttributesClass of the pvc",
            |c: &PersistentVolumeClaim, _| {
                spec(c).volume_attributes_class_name.as_deref().unwrap_or("<unset>").into()
            },
        ),
        age_column(),
        Column::text("VolumeMode", "A file system, or a block device.", |c: &PersistentVolumeClaim, _| {
            text_or(&spec(c).volume_mode, "<unset>")
        })
        .wide(),
    ],
    ..Kind::namespaced("persistentvolumeclaim", "persistentvolumeclaims").called(&["pvc"], &[])
};

/// The annotation that named a class before there was a field.
pub(super) const CLASS: (&str, &str) = (
    "volume.beta.kubernetes.io/storage-class",
    "deprecated since v1.8; use \"storageClassName\" attribute instead",
);

static NO_SPEC: LazyLock<PersistentVolumeClaimSpec> = LazyLock::new(PersistentVolumeClaimSpec::default);

fn spec(c: &PersistentVolumeClaim) -> &PersistentVolumeClaimSpec {
    c.spec.as_ref().unwrap_or(&NO_SPEC)
}

/// The class, which an older annotation may name too.
pub(super) fn class<'a>(meta: &'a ObjectMeta, own: &'a Option<String>) -> &'a str {
    meta.annotations.as_ref().and_then(|a| a.get(CLASS.0)).map_or(text(own), String::as_str)
}

/// Warnings of annotations that have become fields.
pub(super) fn annotation_warnings(meta: &ObjectMeta, known: &[(&str, &str)]) -> Vec<String> {
    let has = |key: &str| meta.annotations.as_ref().is_some_and(|a| a.contains_key(key));
    known
        .iter()
        .filter(|(key, _)| has(key))
        .map(|(key, why)| format!("metadata.annotations[{key}]: {why}"))
        .collect()
}

/// The older and the newer form of where the data comes from say the same.
fn data_sources(s: &mut PersistentVolumeClaimSpec, old: Option<&PersistentVolumeClaimSpec>) {
    let in_use = old.is_some_and(|o| o.data_source.is_some() || o.data_source_ref.is_some());
    let known = |d: &TypedLocalObjectReference| match text(&d.api_group) {
        "" => d.kind == "PersistentVolumeClaim",
        group => group == "snapshot.storage.k8s.io" && d.kind == "VolumeSnapshot",
    };
    if !in_use && s.data_source_ref.is_none() && !s.data_source.as_ref().is_some_and(known) {
        s.data_source = None;
    }
    match (&s.data_source, &s.data_source_ref) {
        (Some(d), None) => {
            s.data_source_ref = Some(TypedObjectReference {
                api_group: d.api_group.clone(),
                kind: d.kind.clone(),
                name: d.name.clone(),
                namespace: None,
            });
        }
        (None, Some(r)) if !is_set(&r.namespace) => {
            s.data_source = Some(TypedLocalObjectReference {
                api_group: r.api_group.clone(),
                kind: r.kind.clone(),
                name: r.name.clone(),
            });
        }
        _ => {}
    }
}

/// Checks the template of a claim.
pub fn validate_template(t: &PersistentVolumeClaimTemplate, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if let Some(meta) = &t.metadata {
        let at = at.child("metadata");
        crate::meta::annotations(meta.annotations.as_ref(), at.child("annotations"), errors);
        crate::meta::labels(meta.labels.as_ref(), at.child("labels"), errors);
        for (name, set) in [
            ("name", meta.name.is_some()),
            ("generateName", meta.generate_name.is_some()),
            ("namespace", meta.namespace.is_some()),
            ("uID", meta.uid.is_some()),
            ("resourceVersion", meta.resource_version.is_some()),
            ("ownerReferences", meta.owner_references.is_some()),
            ("finalizers", meta.finalizers.is_some()),
        ] {
            if set {
                errors.forbidden(at.child(name), "cannot be set");
            }
        }
    }
    validate_spec(&t.spec, at.child("spec"), errors);
}

/// Checks how a volume may be mounted.
pub(super) fn access_modes(modes: &[String], at: FieldPath<'_>, errors: &mut FieldErrors) {
    let supported = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in modes {
        check::one_of(mode, &supported, at, errors);
    }
    let once = |m: &&String| *m == "ReadWriteOncePod";
    let other = modes.iter().any(|m| !once(&m) && supported.contains(&m.as_str()));
    if other && modes.iter().any(|m| once(&m)) {
        errors.forbidden(at, "may not use ReadWriteOncePod with other access modes");
    }
}

/// Checks a claim's spec.
pub fn validate_spec(s: &PersistentVolumeClaimSpec, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let modes = list(&s.access_modes);
    if modes.is_empty() {
        errors.required(at.child("accessModes"), "at least 1 access mode is required");
    }
    check::label_selector(s.selector.as_ref(), false, at.child("selector"), errors);
    access_modes(modes, at.child("accessModes"), errors);
    let resources_at = at.child("resources");
    let storage_at = resources_at.key("storage");
    match s.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("storage")) {
        None => errors.required(storage_at, ""),
        Some(storage) => {
            check::positive_amount(storage, storage_at, errors);
        }
    }
    if is_set(&s.storage_class_name) {
        check::subdomain(text(&s.storage_class_name), at.child("storageClassName"), errors);
    }
    check::maybe_one_of(&s.volume_mode, &["Block", "Filesystem"], at.child("volumeMode"), errors);
    if let Some(d) = &s.data_source {
        data_source(&d.name, &d.kind, text(&d.api_group), at.child("dataSource"), errors);
    }
    if let Some(d) = &s.data_source_ref {
        let at = at.child("dataSourceRef");
        data_source(&d.name, &d.kind, text(&d.api_group), at, errors);
        if is_set(&d.namespace) {
            check::label(text(&d.namespace), at.child("namespace"), errors);
        }
    }
    if let (Some(d), Some(r)) = (&s.data_source, &s.data_source_ref) {
        let said = at.child("dataSource").to_string();
        if is_set(&r.namespace) {
            errors.invalid(at, &said, "may not be specified when dataSourceRef.namespace is specified");
        } else if (&d.api_group, &d.kind, &d.name) != (&r.api_group, &r.kind, &r.name) {
            errors.invalid(at, &said, "must match dataSourceRef");
        }
    }
    if is_set(&s.volume_attributes_class_name) {
        let class = text(&s.volume_attributes_class_name);
        check::subdomain(class, at.child("volumeAttributesClassName"), errors);
    }
}

fn data_source(name: &str, kind: &str, group: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    required(name, at.child("name"), errors);
    required(kind, at.child("kind"), errors);
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        errors.invalid(at, &kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
    }
    if !group.is_empty() {
        check::subdomain(group, at.child("apiGroup"), errors);
    }
}

fn storage(s: &PersistentVolumeClaimSpec) -> Quantity {
    let asked = s.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("storage"));
    asked.map(amount).unwrap_or_default()
}

fn validate_update(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim, errors: &mut FieldErrors) {
    let root = FieldPath::root("spec");
    validate_spec(spec(new), root, errors);
    let (mut now, mut had) = (spec(new).clone(), spec(old).clone());
    if !is_set(&had.volume_name) {
        had.volume_name.clone_from(&now.volume_name);
    }
    let annotation = |c: &'_ PersistentVolumeClaim| c.metadata.annotations.as_ref()?.get(CLASS.0).cloned();
    let (before, after) = (annotation(old), annotation(new));
    let class = now.storage_class_name.clone();
    if before.is_some()
        && had.storage_class_name.is_none()
        && class == before
        && (after.is_none() || after == before)
    {
        now.storage_class_name = None;
    } else {
        if after != before {
            let metadata = FieldPath::root("metadata");
            let annotations = metadata.child("annotations");
            errors.invalid(annotations.child(CLASS.0), &after.unwrap_or_default(), IMMUTABLE);
        }
        if class.is_some() && had.storage_class_name.is_none() && (before.is_none() || class == before) {
            now.storage_class_name.clone_from(&had.storage_class_name);
        }
    }
    let bound = new.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Bound"));
    if bound {
        let asked = had.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("storage")).cloned();
        if let (Some(requests), Some(asked)) =
            (now.resources.as_mut().and_then(|r| r.requests.as_mut()), asked)
        {
            requests.insert("storage".into(), asked);
        }
        now.volume_attributes_class_name.clone_from(&had.volume_attributes_class_name);
    }
    if now != had {
        let why = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{}",
            diff::of(&had, &now)
        );
        errors.forbidden(root, &why);
    }
    let capacity = old.status.as_ref().and_then(|s| s.capacity.as_ref()?.get("storage"));
    let (asked, before) = (storage(spec(new)), storage(spec(old)));
    if asked < before && asked <= capacity.map(amount).unwrap_or_default() {
        let resources = root.child("resources");
        let requests = resources.child("requests");
        errors.forbidden(requests.child("storage"), "field can not be less than status.capacity");
    }
    let mode = FieldPath::root("volumeMode");
    check::immutable(&spec(new).volume_mode, &spec(old).volume_mode, mode, errors);
    let at = root.child("volumeAttributesClassName");
    let current = old.status.as_ref().is_some_and(|s| s.current_volume_attributes_class_name.is_some());
    let (class, before) = (&spec(new).volume_attributes_class_name, &spec(old).volume_attributes_class_name);
    let rest = "is forbidden when status.currentVolumeAttributesClassName is not nil";
    match class.as_deref() {
        _ if class == before || !current => {}
        None => errors.forbidden(at, &format!("update to nil {rest}")),
        Some("") => errors.forbidden(at, &format!("update to empty string {rest}")),
        Some(_) => {}
    }
}

fn validate_status(new: &PersistentVolumeClaim, _: &PersistentVolumeClaim, errors: &mut FieldErrors) {
    let root = FieldPath::root("status");
    if list(&spec(new).access_modes).is_empty() {
        errors.required(FieldPath::root("Spec").child("accessModes"), "");
    }
    let Some(status) = &new.status else { return };
    let at = root.child("capacity");
    for (name, value) in status.capacity.iter().flatten() {
        check::basic_amount(value, at.key(name), errors);
    }
    let at = root.child("allocatedResourceStatuses");
    let states = [
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    for (name, state) in status.allocated_resource_statuses.iter().flatten() {
        resource_key(name, at, errors);
        if !states.contains(&state.as_str()) {
            errors.not_supported(at, name, &states);
        }
    }
    let at = root.child("allocatedResources");
    for (name, value) in status.allocated_resources.iter().flatten() {
        let before = errors.len();
        resource_key(name, at, errors);
        if errors.len() == before {
            check::basic_amount(value, at.key(name), errors);
        }
    }
}

fn resource_key(name: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let before = errors.len();
    check::qualified(name, at, errors);
    if errors.len() == before && resources::is_native(name) {
        check::one_of(name, &["storage"], at, errors);
    }
}
