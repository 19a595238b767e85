//! ControllerRevision: an older form of what a controller keeps.

use crate::check;
use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::FieldPath;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::Value;

/// The rules of ControllerRevision.
pub static KIND: Kind<ControllerRevision> = Kind {
    columns: &[
        Column::text("Controller", "Controller of the object", |r: &ControllerRevision, _| {
            let owner = r.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true));
            let shown = |o: &OwnerReference| {
                let kind = o.kind.to_lowercase();
                match o.api_version.split_once('/') {
                    Some((group, _)) => format!("{kind}.{group}/{}", o.name),
                    None => format!("{kind}/{}", o.name),
                }
            };
            owner.map_or("<none>".into(), shown).into()
        }),
        Column::text("Revision", "Its number.", |r: &ControllerRevision, _| r.revision.into()),
        age_column(),
    ],
    validate: |r, errors| {
        check::not_negative(Some(r.revision), FieldPath::root("revision"), errors);
        let at = FieldPath::root("data");
        match r.data.as_ref().map(|d| &d.0) {
            None | Some(Value::Null) => errors.required(at, "data is mandatory"),
            Some(Value::Object(_)) => {}
            Some(_) => errors.required(at, "data must be a valid JSON object"),
        }
    },
    validate_update: |new, old, errors| {
        check::not_negative(Some(new.revision), FieldPath::root("revision"), errors);
        check::immutable(&new.data, &old.data, FieldPath::root("data"), errors);
    },
    ..Kind::namespaced("controllerrevision", "controllerrevisions")
};
