//! What may be said of a Job's state, and when a condition may be set.

use super::{indexes, spec, status};
use crate::check::{list, not_negative};
use api::field::{FieldErrors, FieldFault, FieldPath};
use k8s_openapi::api::batch::v1::{Job, JobStatus};

const AT: FieldPath<'static> = FieldPath::root("status");

fn is(s: &JobStatus, kind: &str) -> bool {
    list(&s.conditions).iter().any(|c| c.type_ == kind && c.status == "True")
}

pub(super) fn validate(new: &Job, old: &Job, errors: &mut FieldErrors) {
    let (s, was, job) = (status(new), status(old), spec(new));
    for (name, n) in [
        ("active", s.active),
        ("succeeded", s.succeeded),
        ("failed", s.failed),
        ("ready", s.ready),
        ("terminating", s.terminating),
    ] {
        not_negative(n, AT.child(name), errors);
    }
    uncounted(s, errors);
    conditions(s, was, job.success_policy.is_some(), errors);
    times(s, was, job.suspend == Some(true), errors);
    let finished = is(s, "Complete") || is(s, "Failed");
    let active = s.active.unwrap_or(0);
    if finished {
        if active > 0 && !(is(was, "Complete") || is(was, "Failed")) {
            errors.invalid(AT.child("active"), &active, "active>0 is invalid for finished job");
        }
        if s.start_time.is_none() {
            errors.required(AT.child("startTime"), "startTime is required for finished job");
        }
        if let Some(pods) = &s.uncounted_terminated_pods
            && !(list(&pods.failed).is_empty() && list(&pods.succeeded).is_empty())
        {
            errors.invalid(AT.child("uncountedTerminatedPods"), pods, "must be empty for finished job");
        }
        if let Some(n) = s.terminating.filter(|n| *n > 0) {
            errors.invalid(AT.child("terminating"), &n, "terminating>0 is invalid for finished job");
        }
    }
    if let Some(ready) = s.ready.filter(|n| *n > active) {
        errors.invalid(AT.child("ready"), &ready, "cannot set more ready pods than active");
    }
    for (name, now, before) in [("failed", s.failed, was.failed), ("succeeded", s.succeeded, was.succeeded)] {
        let (now, before) = (now.unwrap_or(0), before.unwrap_or(0));
        if now < before {
            errors.invalid(AT.child(name), &now, format!("cannot decrease the {name} counter"));
        }
    }
    index_lists(new, s, errors);
}

fn uncounted(s: &JobStatus, errors: &mut FieldErrors) {
    let Some(pods) = &s.uncounted_terminated_pods else { return };
    let at = AT.child("uncountedTerminatedPods");
    let mut seen = Vec::new();
    for (name, uids) in [("succeeded", list(&pods.succeeded)), ("failed", list(&pods.failed))] {
        let path = at.child(name);
        for (i, uid) in uids.iter().enumerate() {
            if uid.is_empty() {
                errors.invalid(path.index(i), uid, "must not be empty");
            } else if seen.contains(&uid) {
                errors.duplicate(path.index(i), uid);
            } else {
                seen.push(uid);
            }
        }
    }
}

fn conditions(s: &JobStatus, was: &JobStatus, has_policy: bool, errors: &mut FieldErrors) {
    let at = AT.child("conditions");
    let mut refuse = |wrong: bool, why: &str| {
        if wrong {
            errors.push(at, FieldFault::InvalidOmitted(why.into()));
        }
    };
    let (complete, failed) = (is(s, "Complete"), is(s, "Failed"));
    let (target, met) = (is(s, "FailureTarget"), is(s, "SuccessCriteriaMet"));
    refuse(complete && failed, "cannot set Complete=True and Failed=true conditions");
    refuse(complete && target, "cannot set Complete=True and FailureTarget=true conditions");
    refuse(
        failed && !target && !is(was, "Failed"),
        "cannot set Failed=True condition without the FailureTarget=true condition",
    );
    refuse(
        complete && !met && !is(was, "Complete"),
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
    );
    refuse(met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
    refuse(met && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    refuse(
        has_policy && !met && complete,
        "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
    );
    for kind in ["Failed", "Complete", "FailureTarget"] {
        let why = format!("cannot disable the terminal {kind}=True condition");
        refuse(is(was, kind) && !is(s, kind), &why);
    }
    let was_met = is(was, "SuccessCriteriaMet");
    refuse(was_met && !met, "cannot disable the SuccessCriteriaMet=True condition");
    refuse(
        is(was, "Complete") && !was_met && met,
        "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
    );
}

fn times(s: &JobStatus, was: &JobStatus, suspended: bool, errors: &mut FieldErrors) {
    let at = AT.child("completionTime");
    match (&s.completion_time, is(s, "Complete")) {
        (Some(time), false) => {
            errors.invalid(at, time, "cannot set completionTime when there is no Complete=True condition");
        }
        (None, true) => errors.required(at, "completionTime is required for Complete jobs"),
        _ => {}
    }
    if let (Some(start), Some(end)) = (&s.start_time, &s.completion_time)
        && end.0 < start.0
    {
        errors.invalid(at, end, "must be equal to or after `startTime`");
    }
    if let (Some(now), Some(before)) = (&s.completion_time, &was.completion_time)
        && now != before
    {
        errors.invalid(at, now, "field is immutable");
    }
    if was.start_time.is_some() && was.start_time != s.start_time && !suspended {
        let why = "field is immutable for unsuspended job once set";
        errors.invalid(AT.child("startTime"), &s.start_time, why);
    }
}

fn index_lists(job: &Job, s: &JobStatus, errors: &mut FieldErrors) {
    let spec = spec(job);
    let (done_at, failed_at) = (AT.child("completedIndexes"), AT.child("failedIndexes"));
    let done = s.completed_indexes.as_deref().unwrap_or_default();
    if let Some(completions) = spec.completions {
        if let Err(why) = indexes::count(done, completions) {
            errors.invalid(done_at, &done, format!("error parsing completedIndexes: {why}"));
        }
        if let Some(failed) = &s.failed_indexes {
            if spec.backoff_limit_per_index.is_some()
                && let Err(why) = indexes::count(failed, completions)
            {
                errors.invalid(failed_at, failed, format!("error parsing failedIndexes: {why}"));
            }
            if let Some(index) = indexes::overlap(done, failed, completions) {
                let why = format!("failedIndexes and completedIndexes overlap at index: {index}");
                errors.invalid(failed_at, failed, why);
            }
        }
    }
    if !done.is_empty() && spec.completion_mode.as_deref() != Some("Indexed") {
        let why = "cannot set non-empty completedIndexes when non-indexed completion mode";
        errors.invalid(done_at, &done, why);
    }
    if let (Some(failed), None) = (&s.failed_indexes, spec.backoff_limit_per_index) {
        let why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        errors.invalid(failed_at, failed, why);
    }
}
