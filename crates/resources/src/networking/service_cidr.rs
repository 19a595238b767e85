//! ServiceCIDR: a range of services' addresses.

use crate::kind::age_column;
use crate::{Column, Kind};
use k8s_openapi::api::networking::v1::ServiceCIDR;

/// The rules of ServiceCIDR.
pub static KIND: Kind<ServiceCIDR> = Kind {
    has_status: true,
    columns: &[
        Column::text("CIDRs", "The ranges.", |c: &ServiceCIDR, _| {
            c.spec.as_ref().and_then(|s| s.cidrs.clone()).unwrap_or_default().join(",").into()
        }),
        age_column(),
    ],
    ..Kind::cluster("servicecidr", "servicecidrs")
};
