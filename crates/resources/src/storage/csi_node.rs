//! CSINode: the drivers of a node.

use crate::kind::age_column;
use crate::{Column, Kind};
use k8s_openapi::api::storage::v1::CSINode;

/// The rules of CSINode.
pub static KIND: Kind<CSINode> = Kind {
    columns: &[
        Column::number("Drivers", "How many there are.", |o: &CSINode, _| o.spec.drivers.len().into()),
        age_column(),
    ],
    ..Kind::cluster("csinode", "csinodes")
};
