//! VolumeAttributesClass: what of a volume may be changed while it is there.

use super::{parameters, provisioner};
use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;

/// The rules of VolumeAttributesClass.
pub static KIND: Kind<VolumeAttributesClass> = Kind {
    answers_deleted: true,
    validate,
    validate_update: |new, old, errors| {
        if new.driver_name != old.driver_name {
            errors.forbidden(FieldPath::root("driverName"), "updates to driverName are forbidden.");
        }
        if new.parameters != old.parameters {
            errors.forbidden(FieldPath::root("parameters"), "updates to parameters are forbidden.");
        }
        validate(new, errors);
    },
    columns: &[
        Column::text("DriverName", "The driver.", |c: &VolumeAttributesClass, _| {
            c.driver_name.clone().into()
        }),
        age_column(),
    ],
    ..Kind::cluster("volumeattributesclass", "volumeattributesclasses").called(&["vac"], &[])
};

fn validate(c: &VolumeAttributesClass, errors: &mut FieldErrors) {
    provisioner(&c.driver_name, FieldPath::root("driverName"), errors);
    parameters(c.parameters.as_ref(), false, FieldPath::root("parameters"), errors);
}
