//! ComponentStatus: whether the cluster's parts are healthy. It is found out when it is asked for, and never kept.

use crate::kind::Verbs;
use crate::{Column, Kind};
use k8s_openapi::api::core::v1::{ComponentCondition, ComponentStatus};

/// The rules of ComponentStatus.
pub static KIND: Kind<ComponentStatus> = Kind {
    verbs: Verbs::Computed,
    columns: &[
        Column::text("Status", "Whether the component is healthy.", |c: &ComponentStatus, _| {
            match healthy(c) {
                Some(condition) if condition.status == "True" => "Healthy".into(),
                Some(_) => "Unhealthy".into(),
                None => "Unknown".into(),
            }
        }),
        Column::text("Message", "What it says.", |c: &ComponentStatus, _| {
            healthy(c).and_then(|c| c.message.clone()).unwrap_or_default().into()
        }),
        Column::text("Error", "Why it could not be asked.", |c: &ComponentStatus, _| {
            healthy(c).and_then(|c| c.error.clone()).unwrap_or_default().into()
        }),
    ],
    ..Kind::cluster("componentstatus", "componentstatuses").called(&["cs"], &[])
};

fn healthy(c: &ComponentStatus) -> Option<&ComponentCondition> {
    c.conditions.iter().flatten().find(|c| c.type_ == "Healthy")
}
