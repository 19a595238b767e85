//! The two kinds that keep replicas, seen as one.

use crate::common::owned::Owner;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The status of either kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicaStatus {
    pub replicas: i32,
    pub fully_labeled: i32,
    pub ready: i32,
    pub available: i32,
    pub terminating: Option<i32>,
    pub observed_generation: i64,
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    pub kind: String,
    pub status: String,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub since: Option<Time>,
}

pub trait ReplicaKind: Owner {
    /// Whether its status counts pods that are ending.
    const COUNTS_TERMINATING: bool;
    fn replicas(&self) -> i32;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn min_ready(&self) -> i32;
    fn status(&self) -> ReplicaStatus;
    fn with_status(&self, status: &ReplicaStatus) -> Self;
}

macro_rules! conditions {
    (read $from:expr) => {
        $from.into_iter().flatten().map(|c| Condition {
            kind: c.type_,
            status: c.status,
            reason: c.reason,
            message: c.message,
            since: c.last_transition_time,
        })
    };
    (write $kind:ident, $from:expr) => {
        $from.iter().cloned().map(|c| $kind {
            type_: c.kind,
            status: c.status,
            reason: c.reason,
            message: c.message,
            last_transition_time: c.since,
        })
    };
}

impl ReplicaKind for ReplicaSet {
    const COUNTS_TERMINATING: bool = true;

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn min_ready(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default()
    }

    fn status(&self) -> ReplicaStatus {
        let s = self.status.clone().unwrap_or_default();
        ReplicaStatus {
            replicas: s.replicas,
            fully_labeled: s.fully_labeled_replicas.unwrap_or_default(),
            ready: s.ready_replicas.unwrap_or_default(),
            available: s.available_replicas.unwrap_or_default(),
            terminating: s.terminating_replicas,
            observed_generation: s.observed_generation.unwrap_or_default(),
            conditions: conditions!(read s.conditions).collect(),
        }
    }

    fn with_status(&self, s: &ReplicaStatus) -> Self {
        let status = ReplicaSetStatus {
            replicas: s.replicas,
            fully_labeled_replicas: Some(s.fully_labeled),
            ready_replicas: Some(s.ready),
            available_replicas: Some(s.available),
            terminating_replicas: s.terminating,
            observed_generation: Some(s.observed_generation),
            conditions: Some(conditions!(write ReplicaSetCondition, s.conditions).collect()),
        };
        ReplicaSet { status: Some(status), ..self.clone() }
    }
}

impl ReplicaKind for ReplicationController {
    const COUNTS_TERMINATING: bool = false;

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn min_ready(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default()
    }

    fn status(&self) -> ReplicaStatus {
        let s = self.status.clone().unwrap_or_default();
        ReplicaStatus {
            replicas: s.replicas,
            fully_labeled: s.fully_labeled_replicas.unwrap_or_default(),
            ready: s.ready_replicas.unwrap_or_default(),
            available: s.available_replicas.unwrap_or_default(),
            terminating: None,
            observed_generation: s.observed_generation.unwrap_or_default(),
            conditions: conditions!(read s.conditions).collect(),
        }
    }

    fn with_status(&self, s: &ReplicaStatus) -> Self {
        let status = ReplicationControllerStatus {
            replicas: s.replicas,
            fully_labeled_replicas: Some(s.fully_labeled),
            ready_replicas: Some(s.ready),
            available_replicas: Some(s.available),
            observed_generation: Some(s.observed_generation),
            conditions: Some(conditions!(write ReplicationControllerCondition, s.conditions).collect()),
        };
        ReplicationController { status: Some(status), ..self.clone() }
    }
}
