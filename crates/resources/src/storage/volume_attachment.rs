//! VolumeAttachment: a volume that should be attached to a node.

use crate::check::{driver_name, immutable};
use crate::kind::{age_column, subdomain_name};
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::storage::v1::{VolumeAttachment, VolumeError};

const MAX_METADATA: usize = 256 << 10;
const MAX_MESSAGE: usize = 1024;
const SPEC: FieldPath<'static> = FieldPath::root("spec");

/// The rules of VolumeAttachment.
pub static KIND: Kind<VolumeAttachment> = Kind {
    answers_deleted: true,
    has_status: true,
    unconditional_update: false,
    validate,
    validate_update: |new, old, errors| {
        validate(new, errors);
        immutable(&new.spec, &old.spec, SPEC, errors);
    },
    validate_status: |new, _, errors| validate(new, errors),
    columns: &[
        Column::text("Attacher", "The driver that attaches it.", |a: &VolumeAttachment, _| {
            a.spec.attacher.clone().into()
        }),
        Column::text("PV", "The volume.", |a: &VolumeAttachment, _| {
            a.spec.source.persistent_volume_name.clone().unwrap_or_default().into()
        }),
        Column::text("Node", "The node.", |a: &VolumeAttachment, _| a.spec.node_name.clone().into()),
        Column {
            kind: "boolean",
            ..Column::text("Attached", "Whether it is attached.", |a: &VolumeAttachment, _| {
                a.status.as_ref().is_some_and(|s| s.attached).into()
            })
        },
        age_column(),
    ],
    ..Kind::cluster("volumeattachment", "volumeattachments")
};

fn validate(a: &VolumeAttachment, errors: &mut FieldErrors) {
    driver_name(&a.spec.attacher, SPEC.child("attacher"), errors);
    let at = SPEC.child("source");
    let either = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (&a.spec.source.inline_volume_spec, a.spec.source.persistent_volume_name.as_deref()) {
        (None, None) => errors.required(at, either),
        (Some(_), Some(_)) => errors.forbidden(at, either),
        (None, Some("")) => {
            errors.required(at.child("persistentVolumeName"), "must specify non empty persistentVolumeName");
        }
        (None, Some(name)) => {
            errors.all_invalid(at.child("persistentVolumeName"), name, subdomain_name(name, false));
        }
        (Some(_), None) => {}
    }
    errors.all_invalid(SPEC.child("nodeName"), &a.spec.node_name, subdomain_name(&a.spec.node_name, false));
    let status = a.status.clone().unwrap_or_default();
    let at = FieldPath::root("status");
    let size: usize = status.attachment_metadata.iter().flatten().map(|(k, v)| k.len() + v.len()).sum();
    if size > MAX_METADATA {
        errors.too_long(at.child("attachmentMetadata"), MAX_METADATA);
    }
    for (name, error) in [("attachError", &status.attach_error), ("detachError", &status.detach_error)] {
        if let Some(error) = error {
            validate_error(error, at.child(name), errors);
        }
    }
}

fn validate_error(error: &VolumeError, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if error.message.as_ref().is_some_and(|m| m.len() > MAX_MESSAGE) {
        errors.too_long(at.child("message"), MAX_METADATA);
    }
    if let Some(code) = error.error_code.filter(|c| *c < 0) {
        errors.invalid(at.child("errorCode"), &code, "must be between 0 and 2147483647, inclusive");
    }
}
