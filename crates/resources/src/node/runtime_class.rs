//! RuntimeClass.

use crate::kind::age_column;
use crate::{Column, Kind};
use k8s_openapi::api::node::v1::RuntimeClass;

/// The rules of RuntimeClass.
pub static KIND: Kind<RuntimeClass> = Kind {
    validate_update: |new, old, errors| {
        if new.handler != old.handler {
            errors.invalid(api::field::FieldPath::root("handler"), &new.handler, "field is immutable");
        }
    },
    columns: &[
        Column::text("Handler", "What the runtime calls it.", |o: &RuntimeClass, _| o.handler.clone().into()),
        age_column(),
    ],
    ..Kind::cluster("runtimeclass", "runtimeclasses")
};
