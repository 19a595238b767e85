//! A Deployment's status and conditions.

use super::rollout::{Bounds, available, bounds, replicas};
use api::time;
use client::ObjectExt;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::sync::Arc;
use std::time::Duration;

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const FAILURE: &str = "ReplicaFailure";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

type Conditions = Vec<DeploymentCondition>;

fn find<'a>(conditions: &'a [DeploymentCondition], kind: &str) -> Option<&'a DeploymentCondition> {
    conditions.iter().find(|c| c.type_ == kind)
}

fn condition(kind: &str, status: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    let now = Time(time::truncate(now));
    DeploymentCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now),
    }
}

/// Sets a condition, unless it says the same already. The time of transition stays as long as the status does.
fn set(conditions: &mut Conditions, mut new: DeploymentCondition) -> bool {
    match conditions.iter_mut().find(|c| c.type_ == new.type_) {
        Some(old) if old.status == new.status && old.reason == new.reason => false,
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time.clone();
            }
            *old = new;
            true
        }
        None => {
            conditions.push(new);
            true
        }
    }
}

/// The progress deadline, if there is one.
pub fn deadline(d: &Deployment) -> Option<Duration> {
    let seconds = d.spec.as_ref()?.progress_deadline_seconds.filter(|s| *s != i32::MAX)?;
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

/// Sets Progressing to say what happened to the newest ReplicaSet; whether that was news.
pub fn note_progress(
    d: &mut Deployment,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> bool {
    deadline(d).is_some()
        && set(
            d.status.get_or_insert_default().conditions.get_or_insert_default(),
            condition(PROGRESSING, status, reason, message, now),
        )
}

/// Whether Progressing is there.
pub fn has_progress(d: &Deployment) -> bool {
    d.status.as_ref().and_then(|s| s.conditions.as_ref()).is_some_and(|c| find(c, PROGRESSING).is_some())
}

/// Says that the Deployment was paused or goes on, so that it does not time out for the time between.
pub fn note_pause(d: &mut Deployment, now: Timestamp) -> bool {
    let paused = d.spec.as_ref().and_then(|s| s.paused).unwrap_or_default();
    let conditions = d.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let reason = find(conditions, PROGRESSING).and_then(|c| c.reason.as_deref()).unwrap_or_default();
    if reason == TIMED_OUT || (reason == "DeploymentPaused") == paused {
        return false;
    }
    let (reason, message) = if paused {
        ("DeploymentPaused", "Deployment is paused")
    } else {
        ("DeploymentResumed", "Deployment is resumed")
    };
    note_progress(d, "Unknown", reason, message.into(), now)
}

/// The numbers, and whether enough pods are available.
pub fn counts(
    d: &Deployment,
    new: Option<&ReplicaSet>,
    all: &[Arc<ReplicaSet>],
    now: Timestamp,
) -> DeploymentStatus {
    let b = bounds(d);
    let sum = |f: &dyn Fn(&ReplicaSet) -> i32| all.iter().map(|rs| f(rs)).sum::<i32>();
    let actual = |rs: &ReplicaSet| rs.status.as_ref().map_or(0, |s| s.replicas);
    let old = d.status.clone().unwrap_or_default();
    let available = sum(&available);
    let terminating =
        all.iter().map(|rs| rs.status.as_ref().and_then(|s| s.terminating_replicas)).sum::<Option<i32>>();
    let mut conditions = old.conditions.unwrap_or_default();
    let enough = available >= b.replicas - b.unavailable;
    set(
        &mut conditions,
        if enough {
            condition(
                AVAILABLE,
                "True",
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.".into(),
                now,
            )
        } else {
            let message = "Deployment does not have minimum availability.".into();
            condition(AVAILABLE, "False", "MinimumReplicasUnavailable", message, now)
        },
    );
    DeploymentStatus {
        observed_generation: d.metadata.generation,
        replicas: some(sum(&actual)),
        updated_replicas: some(new.map_or(0, actual)),
        ready_replicas: some(sum(&|rs| {
            rs.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or_default()
        })),
        available_replicas: some(available),
        unavailable_replicas: some((sum(&replicas) - available).max(0)),
        terminating_replicas: terminating,
        collision_count: old.collision_count,
        conditions: Some(conditions),
    }
}

/// The server leaves out what is zero; a status must be comparable to what comes back.
fn some(n: i32) -> Option<i32> {
    (n != 0).then_some(n)
}

/// Whether all that is wanted is there, new and available, and nothing else.
pub fn is_complete(d: &Deployment, s: &DeploymentStatus, b: Bounds) -> bool {
    let wanted = some(b.replicas);
    s.updated_replicas == wanted
        && s.replicas == wanted
        && s.available_replicas == wanted
        && s.observed_generation >= d.metadata.generation
}

fn is_progress(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |v: Option<i32>| v.unwrap_or_default();
    let outdated = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || outdated(new) < outdated(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

/// When the Deployment has made no progress for too long, and whether that is past.
fn times_out(
    d: &Deployment,
    conditions: &[DeploymentCondition],
    now: Timestamp,
) -> Option<(bool, Timestamp)> {
    let c = find(conditions, PROGRESSING)?;
    if c.reason.as_deref() == Some(COMPLETE) {
        return None;
    }
    let end = time::later(c.last_update_time.as_ref()?.0, deadline(d)?);
    Some((c.reason.as_deref() == Some(TIMED_OUT) || end < now, end))
}

/// The status in the course of a rollout, and when to look again whether it is stuck.
pub fn rollout(
    d: &Deployment,
    new: Option<&ReplicaSet>,
    all: &[Arc<ReplicaSet>],
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let b = bounds(d);
    let mut status = counts(d, new, all, now);
    let mut conditions = status.conditions.take().unwrap_or_default();
    let old = d.status.clone().unwrap_or_default();
    let what = |text: &str| match new {
        Some(rs) => format!("ReplicaSet {:?} {text}", rs.name()),
        None => format!("Deployment {:?} {text}", d.name()),
    };
    if deadline(d).is_none() {
        conditions.retain(|c| c.type_ != PROGRESSING);
    }
    let current = find(&conditions, PROGRESSING).cloned();
    let was_complete = status.replicas == status.updated_replicas
        && current.as_ref().is_some_and(|c| c.reason.as_deref() == Some(COMPLETE));
    if deadline(d).is_some() && !was_complete {
        if is_complete(d, &status, b) {
            let message = what("has successfully progressed.");
            set(&mut conditions, condition(PROGRESSING, "True", COMPLETE, message, now));
        } else if is_progress(&old, &status) {
            let mut fresh = condition(PROGRESSING, "True", "ReplicaSetUpdated", what("is progressing."), now);
            if let Some(current) = current.filter(|c| c.status == "True") {
                fresh.last_transition_time = current.last_transition_time;
            }
            // Replaced even if it says the same, since its time is that of the last progress.
            conditions.retain(|c| c.type_ != PROGRESSING);
            conditions.push(fresh);
        } else if times_out(d, &conditions, now).is_some_and(|(past, _)| past) {
            let message = what("has timed out progressing.");
            set(&mut conditions, condition(PROGRESSING, "False", TIMED_OUT, message, now));
        }
    }
    match failure(new, all) {
        Some(c) => drop(set(&mut conditions, c)),
        None => conditions.retain(|c| c.type_ != FAILURE),
    }
    let recheck = match times_out(d, &conditions, now) {
        Some((false, end)) if !is_complete(d, &status, b) => {
            Some(time::between(now, end) + Duration::from_secs(1))
        }
        _ => None,
    };
    status.conditions = Some(conditions);
    (status, recheck)
}

/// What keeps ReplicaSets from making pods; the newest one's trouble first.
fn failure(new: Option<&ReplicaSet>, all: &[Arc<ReplicaSet>]) -> Option<DeploymentCondition> {
    let mut sets = new.into_iter().chain(all.iter().map(|rs| &**rs));
    let c = sets.find_map(|rs| {
        rs.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == FAILURE).cloned()
    })?;
    Some(DeploymentCondition {
        type_: FAILURE.into(),
        status: c.status,
        reason: c.reason,
        message: c.message,
        last_update_time: c.last_transition_time.clone(),
        last_transition_time: c.last_transition_time,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn deployment(status: Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "d", "generation": 1},
            "spec": {"replicas": 2, "selector": {}, "template": {}, "progressDeadlineSeconds": 600,
                     "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}},
            "status": status,
        }))
        .unwrap()
    }

    fn set_of(available: i32) -> Arc<ReplicaSet> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": "r"}, "spec": {"replicas": 2, "selector": {}},
                "status": {"replicas": 2, "readyReplicas": available, "availableReplicas": available, "terminatingReplicas": 0},
            }))
            .unwrap(),
        )
    }

    fn at(text: &str) -> Timestamp {
        format!("2026-01-01T{text}Z").parse().unwrap()
    }

    fn reasons(s: &DeploymentStatus) -> String {
        s.conditions
            .iter()
            .flatten()
            .map(|c| format!("{}={}", c.type_, c.reason.as_deref().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_rollout_progresses_and_completes() {
        let mut d = deployment(json!({}));
        let rs = set_of(1);
        let (s, recheck) = rollout(&d, Some(&rs), std::slice::from_ref(&rs), at("00:00:00"));
        assert_eq!(reasons(&s), "Available=MinimumReplicasUnavailable Progressing=ReplicaSetUpdated");
        assert_eq!(
            (s.unavailable_replicas, s.updated_replicas, s.terminating_replicas),
            (Some(1), Some(2), Some(0))
        );
        assert_eq!(recheck, Some(Duration::from_secs(601)));
        d.status = Some(s);
        let rs = set_of(2);
        let (s, recheck) = rollout(&d, Some(&rs), std::slice::from_ref(&rs), at("00:01:00"));
        assert_eq!(reasons(&s), "Available=MinimumReplicasAvailable Progressing=NewReplicaSetAvailable");
        assert_eq!(recheck, None);
        let progressing = find(s.conditions.as_ref().unwrap(), PROGRESSING).unwrap();
        assert_eq!(
            (
                progressing.last_transition_time.as_ref().unwrap().0,
                progressing.last_update_time.as_ref().unwrap().0
            ),
            (at("00:00:00"), at("00:01:00"))
        );
        d.status = Some(s.clone());
        assert_eq!(rollout(&d, Some(&rs), std::slice::from_ref(&rs), at("00:02:00")).0, s);
    }

    #[test]
    fn a_rollout_that_stands_still_times_out() {
        let mut d = deployment(json!({}));
        let rs = set_of(1);
        d.status = Some(rollout(&d, Some(&rs), std::slice::from_ref(&rs), at("00:00:00")).0);
        let (s, recheck) = rollout(&d, Some(&rs), std::slice::from_ref(&rs), at("00:09:59"));
        assert_eq!((reasons(&s).contains(TIMED_OUT), recheck), (false, Some(Duration::from_secs(2))));
        let (s, recheck) = rollout(&d, Some(&rs), std::slice::from_ref(&rs), at("00:10:01"));
        assert_eq!((reasons(&s).contains(TIMED_OUT), recheck), (true, None));
        d.spec.as_mut().unwrap().paused = Some(true);
        assert!(note_pause(&mut d, at("00:20:00")) && !note_pause(&mut d, at("00:20:00")));
        assert!(rollout(&d, Some(&rs), std::slice::from_ref(&rs), at("00:20:00")).1.is_some());
    }
}
