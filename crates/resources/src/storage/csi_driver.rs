//! CSIDriver: what a storage driver can, and wants to know.

use crate::check::{immutable, unique};
use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::storage::v1::CSIDriver;
use serde_json::Value;

const SPEC: FieldPath<'static> = FieldPath::root("spec");
const LEAST_TOKEN_SECONDS: i64 = 600;

/// The rules of CSIDriver.
pub static KIND: Kind<CSIDriver> = Kind {
    answers_deleted: true,
    has_generation: true,
    unconditional_update: false,
    default: |d| {
        d.spec.attach_required.get_or_insert(true);
        d.spec.pod_info_on_mount.get_or_insert(false);
        d.spec.storage_capacity.get_or_insert(false);
        d.spec.fs_group_policy.get_or_insert_with(|| "ReadWriteOnceWithFSType".into());
        d.spec.requires_republish.get_or_insert(false);
        d.spec.se_linux_mount.get_or_insert(false);
        let modes = d.spec.volume_lifecycle_modes.get_or_insert_default();
        if modes.is_empty() {
            modes.push("Persistent".into());
        }
    },
    validate,
    validate_update: |new, old, errors| {
        validate(new, errors);
        let (new, old) = (&new.spec, &old.spec);
        immutable(&new.attach_required, &old.attach_required, SPEC.child("attachedRequired"), errors);
        let modes = SPEC.child("volumeLifecycleModes");
        immutable(&new.volume_lifecycle_modes, &old.volume_lifecycle_modes, modes, errors);
    },
    columns: &[
        truth("AttachRequired", "Whether volumes are attached to nodes.", |d, _| {
            d.spec.attach_required.unwrap_or(true).into()
        }),
        truth("PodInfoOnMount", "Whether it is told of the pod.", |d, _| {
            d.spec.pod_info_on_mount.unwrap_or(false).into()
        }),
        truth("StorageCapacity", "Whether its capacity counts for the scheduler.", |d, _| {
            d.spec.storage_capacity.unwrap_or(false).into()
        }),
        Column::text("TokenRequests", "The audiences of tokens it gets.", |d: &CSIDriver, _| {
            match &d.spec.token_requests {
                Some(all) => all.iter().map(|t| t.audience.clone()).collect::<Vec<_>>().join(",").into(),
                None => "<unset>".into(),
            }
        }),
        truth("RequiresRepublish", "Whether volumes are published again and again.", |d, _| {
            d.spec.requires_republish.unwrap_or(false).into()
        }),
        Column::text("Modes", "How long its volumes live.", |d: &CSIDriver, _| {
            let modes = d.spec.volume_lifecycle_modes.clone().unwrap_or_default().join(",");
            if modes.is_empty() { "<none>".into() } else { modes.into() }
        }),
        age_column(),
    ],
    ..Kind::cluster("csidriver", "csidrivers")
};

const fn truth(
    name: &'static str,
    description: &'static str,
    cell: fn(&CSIDriver, jiff::Timestamp) -> Value,
) -> Column<CSIDriver> {
    let mut column = Column::text(name, description, cell);
    column.kind = "boolean";
    column
}

fn validate(d: &CSIDriver, errors: &mut FieldErrors) {
    let spec = &d.spec;
    for (name, value) in [
        ("attachedRequired", spec.attach_required),
        ("podInfoOnMount", spec.pod_info_on_mount),
        ("storageCapacity", spec.storage_capacity),
    ] {
        if value.is_none() {
            errors.required(SPEC.child(name), "");
        }
    }
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    if let Some(policy) = spec.fs_group_policy.as_deref().filter(|p| !policies.contains(p)) {
        errors.not_supported(SPEC.child("fsGroupPolicy"), policy, &policies);
    }
    let list = SPEC.child("tokenRequests");
    for (i, token) in spec.token_requests.iter().flatten().enumerate() {
        let at = list.index(i);
        match token.expiration_seconds {
            Some(seconds) if seconds < LEAST_TOKEN_SECONDS => {
                let why = "may not specify a duration less than 10 minutes";
                errors.invalid(at.child("expirationSeconds"), &seconds, why);
            }
            Some(seconds) if seconds > 1 << 32 => {
                let why = "may not specify a duration larger than 2^32 seconds";
                errors.invalid(at.child("expirationSeconds"), &seconds, why);
            }
            _ => {}
        }
    }
    unique(spec.token_requests.as_ref(), list, errors, |t| t.audience.clone());
    for mode in spec.volume_lifecycle_modes.iter().flatten() {
        if !matches!(mode.as_str(), "Persistent" | "Ephemeral") {
            errors.not_supported(SPEC.child("volumeLifecycleModes"), mode, &["Persistent", "Ephemeral"]);
        }
    }
    if spec.se_linux_mount.is_none() {
        errors.required(SPEC.child("seLinuxMount"), "");
    }
    if let Some(period) = spec.node_allocatable_update_period_seconds.filter(|p| *p < 10) {
        let at = SPEC.child("nodeAllocatableUpdatePeriodSeconds");
        errors.invalid(at, &period, "must be greater than or equal to 10 seconds");
    }
    let no_tokens = spec.token_requests.as_ref().is_none_or(Vec::is_empty);
    if let Some(said) = spec.service_account_token_in_secrets.filter(|_| no_tokens) {
        let why = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        errors.invalid(SPEC.child("serviceAccountTokenInSecrets"), &said, why);
    }
}
