//! IngressClass.

use crate::kind::age_column;
use crate::{Column, Kind};
use k8s_openapi::api::networking::v1::IngressClass;

/// The rules of IngressClass.
pub static KIND: Kind<IngressClass> = Kind {
    has_generation: true,
    columns: &[
        Column::text("Controller", "Who serves it.", |o: &IngressClass, _| {
            o.spec.as_ref().and_then(|s| s.controller.clone()).unwrap_or_default().into()
        }),
        age_column(),
    ],
    ..Kind::cluster("ingressclass", "ingressclasses")
};
