//! ControllerRevision: an older form of what a controller keeps.

use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::FieldPath;
use k8s_openapi::api::apps::v1::ControllerRevision;

/// The rules of ControllerRevision.
pub static KIND: Kind<ControllerRevision> = Kind {
    create_on_update: true,
    columns: &[
        Column::text("Controller", "Whose it is.", |r: &ControllerRevision, _| {
            let owner = r.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true));
            owner.map_or("<none>".into(), |o| format!("{}/{}", o.kind.to_lowercase(), o.name)).into()
        }),
        Column::number("Revision", "Its number.", |r: &ControllerRevision, _| r.revision.into()),
        age_column(),
    ],
    validate_update: |new, old, errors| {
        if new.data != old.data {
            errors.invalid(FieldPath::root("data"), &"", "field is immutable");
        }
    },
    ..Kind::namespaced("controllerrevision", "controllerrevisions")
};
