//! PersistentVolume.

use crate::check::{self, OneOf, is_set, list, required, text};
use crate::core::persistent_volume_claim::{CLASS, access_modes, annotation_warnings, class};
use crate::core::pod::warnings::node_term;
use crate::core::pod_spec::{scheduling, sources};
use crate::diff;
use crate::kind::age_column;
use crate::table::text_or;
use crate::{Column, Context, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec, SecretReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::sync::LazyLock;

/// The rules of PersistentVolume.
pub static KIND: Kind<PersistentVolume> = Kind {
    answers_deleted: true,
    has_status: true,
    default: |v| {
        let spec = v.spec.get_or_insert_default();
        spec.persistent_volume_reclaim_policy.get_or_insert_with(|| "Retain".into());
        spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
        if let Some(path) = &mut spec.host_path {
            path.type_.get_or_insert_default();
        }
        let status = v.status.get_or_insert_default();
        if !is_set(&status.phase) {
            status.phase = Some("Pending".into());
        }
    },
    prepare_create: |v, context| {
        v.status = Some(Default::default());
        let status = v.status.get_or_insert_default();
        status.phase = Some("Pending".into());
        status.last_phase_transition_time = Some(Time(whole_second(context)));
    },
    prepare_status,
    validate,
    validate_update,
    warnings: |v, _| warnings(v),
    columns: &[
        Column::text("Capacity", "How large it is.", |v: &PersistentVolume, _| {
            spec(v).capacity.as_ref().and_then(|c| c.get("storage")).map_or("0", |q| &q.0).into()
        }),
        Column::text("Access Modes", "How it may be mounted.", |v: &PersistentVolume, _| {
            crate::storage::access_modes(spec(v).access_modes.as_deref())
        }),
        Column::text(
            "Reclaim Policy",
            "What becomes of it when it is released.",
            |v: &PersistentVolume, _| text(&spec(v).persistent_volume_reclaim_policy).into(),
        ),
        Column::text("Status", "Available, Bound, Released or Failed.", |v: &PersistentVolume, _| {
            match v.metadata.deletion_timestamp {
                Some(_) => "Terminating".into(),
                None => v.status.as_ref().map_or("", |s| text(&s.phase)).into(),
            }
        }),
        Column::text("Claim", "The claim it is bound to.", |v: &PersistentVolume, _| {
            let claim = spec(v).claim_ref.as_ref();
            claim.map(|c| format!("{}/{}", text(&c.namespace), text(&c.name))).unwrap_or_default().into()
        }),
        Column::text("StorageClass", "StorageClass of the pv", |v: &PersistentVolume, _| {
            class(&v.metadata, &spec(v).storage_class_name).into()
        }),
        Column::text(
            "VolumeAttributesClass",
            "VolumeAttributesClass of the pv",
            |v: &PersistentVolume, _| {
                spec(v).volume_attributes_class_name.as_deref().unwrap_or("<unset>").into()
            },
        ),
        Column::text("Reason", "Why it is as it is.", |v: &PersistentVolume, _| {
            v.status.as_ref().map_or("", |s| text(&s.reason)).into()
        }),
        age_column(),
        Column::text("VolumeMode", "A file system, or a block device.", |v: &PersistentVolume, _| {
            text_or(&spec(v).volume_mode, "<unset>")
        })
        .wide(),
    ],
    ..Kind::cluster("persistentvolume", "persistentvolumes").called(&["pv"], &[])
};

static NO_SPEC: LazyLock<PersistentVolumeSpec> = LazyLock::new(PersistentVolumeSpec::default);
const AT: FieldPath<'static> = FieldPath::root("spec");
const MOUNT_OPTIONS: (&str, &str) = (
    "volume.beta.kubernetes.io/mount-options",
    "deprecated since v1.31; use \"mountOptions\" attribute instead",
);

fn spec(v: &PersistentVolume) -> &PersistentVolumeSpec {
    v.spec.as_ref().unwrap_or(&NO_SPEC)
}

fn whole_second(context: &Context<'_>) -> jiff::Timestamp {
    jiff::Timestamp::from_second(context.now.as_second()).unwrap_or(context.now)
}

/// When the phase last changed is kept, or set where the writer leaves it out.
fn prepare_status(new: &mut PersistentVolume, old: &PersistentVolume, context: &Context<'_>) {
    let none = Default::default();
    let was = old.status.as_ref().unwrap_or(&none);
    let now = new.status.get_or_insert_default();
    let (since, before) = (&mut now.last_phase_transition_time, &was.last_phase_transition_time);
    if text(&now.phase) == text(&was.phase) {
        if since.is_none() {
            since.clone_from(before);
        }
    } else if since.is_none() || since == before {
        *since = Some(Time(whole_second(context)));
    }
}

fn warnings(v: &PersistentVolume) -> Vec<String> {
    let mut out = annotation_warnings(&v.metadata, &[CLASS, MOUNT_OPTIONS]);
    let s = spec(v);
    if s.persistent_volume_reclaim_policy.as_deref() == Some("Recycle") {
        out.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".into());
    }
    if let Some(selector) = s.node_affinity.as_ref().and_then(|a| a.required.as_ref()) {
        let affinity = AT.child("nodeAffinity");
        let required = affinity.child("required");
        let terms = required.child("nodeSelectorTerms");
        for (i, term) in selector.node_selector_terms.iter().enumerate() {
            node_term(term, false, terms.index(i), &mut out);
        }
    }
    for (name, set, why) in [
        ("cephfs", s.cephfs.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
        (
            "photonPersistentDisk",
            s.photon_persistent_disk.is_some(),
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        ("scaleIO", s.scale_io.is_some(), "deprecated in v1.16, non-functional in v1.22+"),
        ("storageOS", s.storageos.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", s.glusterfs.is_some(), "deprecated in v1.25, non-functional in v1.26+"),
        ("rbd", s.rbd.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
    ] {
        if set {
            out.push(format!("spec.{name}: {why}"));
        }
    }
    out
}

fn validate(v: &PersistentVolume, errors: &mut FieldErrors) {
    let s = spec(v);
    let modes = list(&s.access_modes);
    if modes.is_empty() {
        errors.required(AT.child("accessModes"), "");
    }
    access_modes(modes, AT.child("accessModes"), errors);
    let at = AT.child("capacity");
    let none = Default::default();
    let capacity = s.capacity.as_ref().unwrap_or(&none);
    if capacity.is_empty() {
        errors.required(at, "");
    }
    if !capacity.contains_key("storage") || capacity.len() > 1 {
        let said = api::field::quoted(capacity);
        errors.push(at, api::field::FieldFault::NotSupported(said, vec!["storage".into()]));
    }
    for (name, value) in capacity {
        check::basic_amount(value, at.key(name), errors);
        check::positive_amount(value, at.key(name), errors);
    }
    if is_set(&s.persistent_volume_reclaim_policy) {
        let policies = ["Delete", "Recycle", "Retain"];
        let at = AT.child("persistentVolumeReclaimPolicy");
        check::maybe_one_of(&s.persistent_volume_reclaim_policy, &policies, at, errors);
    }
    if let Some(affinity) = &s.node_affinity {
        let at = AT.child("nodeAffinity");
        match &affinity.required {
            Some(selector) => scheduling::node_selector(selector, false, at.child("required"), errors),
            None => errors.required(at.child("required"), "must specify required node constraints"),
        }
    }
    source(v, s, errors);
    let recycled = s.persistent_volume_reclaim_policy.as_deref() == Some("Recycle");
    let is_root = |p: &str| p.starts_with('/') && p.split('/').all(|part| matches!(part, "" | "." | ".."));
    if recycled && s.host_path.as_ref().is_some_and(|h| is_root(&h.path)) {
        let why = "may not be 'recycle' for a hostPath mount of '/'";
        errors.forbidden(AT.child("persistentVolumeReclaimPolicy"), why);
    }
    if is_set(&s.storage_class_name) {
        check::subdomain(text(&s.storage_class_name), AT.child("storageClassName"), errors);
    }
    check::maybe_one_of(&s.volume_mode, &["Block", "Filesystem"], AT.child("volumeMode"), errors);
    if let Some(class) = &s.volume_attributes_class_name {
        let at = AT.child("volumeAttributesClassName");
        match class.is_empty() {
            true => errors.required(at, "an empty string is disallowed"),
            false => check::subdomain(class, at, errors),
        }
        if s.csi.is_none() {
            errors.required(AT.child("csi"), "has to be specified when using volumeAttributesClassName");
        }
    }
    let takes_options = s.gce_persistent_disk.is_some()
        || s.aws_elastic_block_store.is_some()
        || s.glusterfs.is_some()
        || s.nfs.is_some()
        || s.rbd.is_some()
        || s.quobyte.is_some()
        || s.iscsi.is_some()
        || s.cinder.is_some()
        || s.cephfs.is_some()
        || s.azure_file.is_some()
        || s.vsphere_volume.is_some()
        || s.azure_disk.is_some()
        || s.photon_persistent_disk.is_some();
    let annotated = v.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MOUNT_OPTIONS.0));
    if annotated && !takes_options {
        let metadata = FieldPath::root("metadata");
        let annotations = metadata.child("annotations");
        let why = "may not specify mount options for this volume type";
        errors.forbidden(annotations.child(MOUNT_OPTIONS.0), why);
    }
}

/// A secret in a namespace, both of which must be named.
fn secret(name: &Option<String>, namespace: &Option<String>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    required(text(name), at.child("name"), errors);
    required(text(namespace), at.child("namespace"), errors);
}

fn source(v: &PersistentVolume, s: &PersistentVolumeSpec, errors: &mut FieldErrors) {
    let mut one = OneOf::new(AT, "may not specify more than 1 volume type");
    if let Some(h) = &s.host_path
        && one.first("hostPath", errors)
    {
        sources::host_path(h, AT.child("hostPath"), errors);
    }
    if let Some(d) = &s.gce_persistent_disk
        && one.first("gcePersistentDisk", errors)
    {
        sources::gce_persistent_disk(d, AT.child("persistentDisk"), errors);
    }
    if let Some(d) = &s.aws_elastic_block_store
        && one.first("awsElasticBlockStore", errors)
    {
        sources::aws_elastic_block_store(d, AT.child("awsElasticBlockStore"), errors);
    }
    if let Some(g) = &s.glusterfs
        && one.first("glusterfs", errors)
    {
        let at = AT.child("glusterfs");
        sources::glusterfs(&g.endpoints, &g.path, at, errors);
        match g.endpoints_namespace.as_deref() {
            Some("") => errors.invalid(
                at.child("endpointsNamespace"),
                &"",
                "if the endpointnamespace is set, it must be a valid namespace name",
            ),
            Some(namespace) => check::label(namespace, at.child("endpointsNamespace"), errors),
            None => {}
        }
    }
    if let Some(f) = &s.flocker
        && one.first("flocker", errors)
    {
        sources::flocker(f, AT.child("flocker"), errors);
    }
    if let Some(n) = &s.nfs
        && one.first("nfs", errors)
    {
        sources::nfs(n, AT.child("nfs"), errors);
    }
    if let Some(r) = &s.rbd
        && one.first("rbd", errors)
    {
        sources::rbd(&r.monitors, &r.image, AT.child("rbd"), errors);
    }
    if let Some(q) = &s.quobyte
        && one.first("quobyte", errors)
    {
        sources::quobyte(q, AT.child("quobyte"), errors);
    }
    if let Some(c) = &s.cephfs
        && one.first("cephFS", errors)
        && c.monitors.is_empty()
    {
        errors.required(AT.child("cephfs").child("monitors"), "");
    }
    if let Some(i) = &s.iscsi
        && one.first("iscsi", errors)
    {
        let at = AT.child("iscsi");
        required(&i.target_portal, at.child("targetPortal"), errors);
        let name = text(&v.metadata.name);
        if i.initiator_name.is_some() && name.len() + 1 + i.target_portal.len() > 64 {
            errors.invalid(at.child("targetportal"), &i.target_portal, sources::ISCSI_TOO_LONG);
        }
        sources::iscsi_name(&i.iqn, sources::IQN_FORMAT, at.child("iqn"), errors);
        check::in_range(i.lun, 0, 255, at.child("lun"), errors);
        let chap = i.chap_auth_discovery == Some(true) || i.chap_auth_session == Some(true);
        match &i.secret_ref {
            None if chap => errors.required(at.child("secretRef"), ""),
            Some(secret) => {
                required(text(&secret.name), at.child("secretRef").child("name"), errors);
            }
            None => {}
        }
        if let Some(name) = &i.initiator_name {
            sources::iscsi_initiator(name, sources::IQN_FORMAT, at.child("initiatorname"), errors);
        }
    }
    if let Some(c) = &s.cinder
        && one.first("cinder", errors)
    {
        let at = AT.child("cinder");
        required(&c.volume_id, at.child("volumeID"), errors);
        if let Some(r) = &c.secret_ref {
            secret(&r.name, &r.namespace, at.child("secretRef"), errors);
        }
    }
    if let Some(f) = &s.fc
        && one.first("fc", errors)
    {
        sources::fc(f, AT.child("fc"), errors);
    }
    if let Some(f) = &s.flex_volume
        && one.first("flexVolume", errors)
    {
        sources::flex(&f.driver, f.options.as_ref(), AT.child("flexVolume"), errors);
    }
    if let Some(a) = &s.azure_file
        && one.first("azureFile", errors)
    {
        let at = AT.child("azureFile");
        required(&a.secret_name, at.child("secretName"), errors);
        required(&a.share_name, at.child("shareName"), errors);
        if let Some(namespace) = &a.secret_namespace {
            required(namespace, at.child("secretNamespace"), errors);
        }
    }
    if let Some(d) = &s.vsphere_volume
        && one.first("vsphereVolume", errors)
    {
        required(&d.volume_path, AT.child("vsphereVolume").child("volumePath"), errors);
    }
    if let Some(d) = &s.photon_persistent_disk
        && one.first("photonPersistentDisk", errors)
    {
        required(&d.pd_id, AT.child("photonPersistentDisk").child("pdID"), errors);
    }
    if let Some(d) = &s.portworx_volume
        && one.first("portworxVolume", errors)
    {
        required(&d.volume_id, AT.child("portworxVolume").child("volumeID"), errors);
    }
    if let Some(d) = &s.azure_disk
        && one.first("azureDisk", errors)
    {
        sources::azure_disk(d, AT.child("azureDisk"), errors);
    }
    if let Some(d) = &s.scale_io
        && one.first("scaleIO", errors)
    {
        sources::scale_io(&d.gateway, &d.system, text(&d.volume_name), AT.child("scaleIO"), errors);
    }
    if let Some(l) = &s.local
        && one.first("local", errors)
    {
        let at = AT.child("local");
        if !required(&l.path, at.child("path"), errors) {
            check::no_backsteps(&l.path, at.child("path"), errors);
        }
        if s.node_affinity.is_none() {
            errors.required(AT.child("nodeAffinity"), "Local volume requires node affinity");
        }
    }
    if let Some(d) = &s.storageos
        && one.first("storageos", errors)
    {
        let at = AT.child("storageos");
        sources::storageos(text(&d.volume_name), text(&d.volume_namespace), at, errors);
        if let Some(r) = &d.secret_ref {
            secret(&r.name, &r.namespace, at.child("secretRef"), errors);
        }
    }
    if let Some(c) = &s.csi
        && one.first("csi", errors)
    {
        let at = AT.child("csi");
        sources::csi_driver_name(&c.driver, at.child("driver"), errors);
        required(&c.volume_handle, at.child("volumeHandle"), errors);
        for (name, r) in [
            ("controllerPublishSecretRef", &c.controller_publish_secret_ref),
            ("controllerExpandSecretRef", &c.controller_expand_secret_ref),
            ("nodePublishSecretRef", &c.node_publish_secret_ref),
            ("nodeExpandSecretRef", &c.node_expand_secret_ref),
        ] {
            if let Some(SecretReference { name: secret, namespace }) = r {
                let at = at.child(name);
                if !required(text(secret), at.child("name"), errors) {
                    check::subdomain(text(secret), at.child("name"), errors);
                }
                check::required_label(text(namespace), at.child("namespace"), errors);
            }
        }
    }
    one.required("must specify a volume type", errors);
}

/// A spec with nothing but its source.
fn only_source(s: &PersistentVolumeSpec) -> PersistentVolumeSpec {
    PersistentVolumeSpec {
        access_modes: None,
        capacity: None,
        claim_ref: None,
        mount_options: None,
        node_affinity: None,
        persistent_volume_reclaim_policy: None,
        storage_class_name: None,
        volume_attributes_class_name: None,
        volume_mode: None,
        ..s.clone()
    }
}

fn validate_update(new: &PersistentVolume, old: &PersistentVolume, errors: &mut FieldErrors) {
    validate(new, errors);
    let (mut now, had) = (only_source(spec(new)), only_source(spec(old)));
    if let (Some(now), Some(had)) = (&mut now.csi, &had.csi)
        && had.controller_expand_secret_ref.is_none()
    {
        now.controller_expand_secret_ref = None;
    }
    if now != had {
        let why =
            format!("spec.persistentvolumesource is immutable after creation\n{}", diff::of(&had, &now));
        errors.forbidden(AT.child("persistentvolumesource"), &why);
    }
    check::immutable(&spec(new).volume_mode, &spec(old).volume_mode, FieldPath::root("volumeMode"), errors);
    let (affinity, before) = (&spec(new).node_affinity, &spec(old).node_affinity);
    if before.is_some() && affinity != before && !only_renamed(affinity.as_ref(), before.as_ref()) {
        let why = format!("{}, except for updating from beta label to GA", check::IMMUTABLE);
        errors.invalid(FieldPath::root("nodeAffinity"), affinity, why);
    }
    if spec(old).volume_attributes_class_name.is_some() && spec(new).volume_attributes_class_name.is_none() {
        let why = "update from non-nil value to nil is forbidden";
        errors.forbidden(AT.child("volumeAttributesClassName"), why);
    }
}

/// Whether labels got their later names and nothing else has changed.
fn only_renamed(
    new: Option<&k8s_openapi::api::core::v1::VolumeNodeAffinity>,
    old: Option<&k8s_openapi::api::core::v1::VolumeNodeAffinity>,
) -> bool {
    let (Some(new), Some(old)) = (new, old) else { return false };
    let later = |key: &str| match key {
        "failure-domain.beta.kubernetes.io/zone" => Some("topology.kubernetes.io/zone"),
        "failure-domain.beta.kubernetes.io/region" => Some("topology.kubernetes.io/region"),
        "beta.kubernetes.io/os" => Some("kubernetes.io/os"),
        "beta.kubernetes.io/arch" => Some("kubernetes.io/arch"),
        "beta.kubernetes.io/instance-type" => Some("node.kubernetes.io/instance-type"),
        _ => None,
    };
    let mut renamed = old.clone();
    let terms = |a: &'_ k8s_openapi::api::core::v1::VolumeNodeAffinity| {
        a.required.as_ref().map(|r| r.node_selector_terms.clone()).unwrap_or_default()
    };
    let wanted = terms(new);
    let mine = renamed.required.iter_mut().flat_map(|r| &mut r.node_selector_terms);
    for (term, wanted) in mine.zip(&wanted) {
        let pairs = term.match_expressions.iter_mut().flatten().zip(list(&wanted.match_expressions));
        for (mine, wanted) in pairs.filter(|(m, w)| later(&m.key) == Some(w.key.as_str())) {
            mine.key.clone_from(&wanted.key);
        }
    }
    renamed == *new
}
