//! IPAddress: an address of a service, claimed.

use crate::kind::{age_column, path_segment_name};
use crate::{Column, Kind};
use k8s_openapi::api::networking::v1::IPAddress;

/// The rules of IPAddress.
pub static KIND: Kind<IPAddress> = Kind {
    name_rule: path_segment_name,
    columns: &[
        Column::text("ParentRef", "What it belongs to.", |a: &IPAddress, _| {
            let parent = a.spec.parent_ref.clone();
            let parts = [
                parent.group.unwrap_or_default(),
                parent.resource,
                parent.namespace.unwrap_or_default(),
                parent.name,
            ];
            parts.iter().filter(|p| !p.is_empty()).cloned().collect::<Vec<_>>().join("/").into()
        }),
        age_column(),
    ],
    ..Kind::cluster("ipaddress", "ipaddresses").called(&["ip"], &[])
};
