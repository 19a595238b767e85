//! What a pod's failure means to its Job, when a failed pod may be replaced, and when a Job has succeeded early.

use super::indexes::Indexes;
use crate::common::pods;
use api::time;
use client::ObjectExt;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, PodFailurePolicyOnExitCodesRequirement};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use std::time::Duration;

pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// A failed pod is replaced after ten seconds, then after twice as long, up to ten minutes.
const FIRST: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(600);

/// What the failure policy says about a failed pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It counts.
    Count,
    /// It does not.
    Ignore,
    /// Its index has failed.
    FailIndex,
    /// The whole Job has, for this reason.
    FailJob(String),
}

pub fn spec(job: &Job) -> JobSpec {
    job.spec.clone().unwrap_or_default()
}

/// Whether a pod is replaced only when it has failed for good, not already when it is ending.
pub fn replaces_failed_only(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some()
}

pub fn is_failed(pod: &Pod, spec: &JobSpec) -> bool {
    match pods::phase(pod) {
        "Failed" => true,
        // One that is deleted may never get to say how it ended.
        phase => !replaces_failed_only(spec) && pod.is_deleting() && phase != "Succeeded",
    }
}

pub fn verdict(spec: &JobSpec, pod: &Pod) -> Verdict {
    let status = pod.status.clone().unwrap_or_default();
    let rules = spec.pod_failure_policy.iter().flat_map(|p| &p.rules);
    for (i, rule) in rules.enumerate() {
        let why = match (&rule.on_exit_codes, rule.on_pod_conditions.as_deref().unwrap_or_default()) {
            (Some(codes), _) => {
                let lists = [status.container_statuses.as_deref(), status.init_container_statuses.as_deref()];
                lists.into_iter().flatten().find_map(|l| exit_code(l, codes)).map(|(container, code)| {
                    format!("Container {container} for pod {} failed with exit code {code} matching {} rule at index {i}", pod.key(), rule.action)
                })
            }
            (None, patterns) => {
                let conditions = status.conditions.iter().flatten();
                let hit = conditions.into_iter().find(|c| {
                    patterns
                        .iter()
                        .any(|p| p.type_ == c.type_ && p.status.as_deref().unwrap_or("True") == c.status)
                });
                hit.map(|c| {
                    format!(
                        "Pod {} has condition {} matching {} rule at index {i}",
                        pod.key(),
                        c.type_,
                        rule.action
                    )
                })
            }
        };
        if let Some(why) = why {
            match rule.action.as_str() {
                "Ignore" => return Verdict::Ignore,
                "FailIndex" => return Verdict::FailIndex,
                "FailJob" => return Verdict::FailJob(why),
                "Count" => return Verdict::Count,
                _ => {}
            }
        }
    }
    Verdict::Count
}

fn exit_code(
    statuses: &[ContainerStatus],
    wanted: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<(String, i32)> {
    statuses.iter().find_map(|s| {
        let code = s.state.as_ref()?.terminated.as_ref()?.exit_code;
        let named = wanted.container_name.as_ref().is_none_or(|n| *n == s.name);
        let listed = wanted.values.contains(&code);
        let hit = if wanted.operator == "In" { listed } else { wanted.operator == "NotIn" && !listed };
        (named && code != 0 && hit).then(|| (s.name.clone(), code))
    })
}

/// The pod's index, if it is one of the Job's.
pub fn index(pod: &Pod, completions: i32) -> Option<i32> {
    pod.annotation(INDEX)?.parse().ok().filter(|i| (0..completions).contains(i))
}

fn number(pod: &Pod, annotation: &str) -> i32 {
    pod.annotation(annotation).and_then(|n| n.parse().ok()).unwrap_or_default()
}

/// How often pods of its index had failed before this one, whether it counted or not.
pub fn failures_before(pod: &Pod) -> i32 {
    number(pod, FAILURES) + number(pod, IGNORED)
}

/// Whether this pod's failure is one too many for its index.
pub fn fails_index(pod: &Pod, spec: &JobSpec) -> bool {
    if !is_failed(pod, spec) {
        return false;
    }
    match verdict(spec, pod) {
        Verdict::FailIndex => true,
        Verdict::Ignore => false,
        _ => number(pod, FAILURES) >= spec.backoff_limit_per_index.unwrap_or(i32::MAX),
    }
}

/// The annotations that count failures, for the pod that replaces `failed`.
pub fn failure_counts(spec: &JobSpec, failed: Option<&Pod>) -> Vec<(&'static str, i32)> {
    let Some(failed) = failed else { return vec![(FAILURES, 0)] };
    let ignored = verdict(spec, failed) == Verdict::Ignore;
    let (counted, uncounted) = (number(failed, FAILURES), number(failed, IGNORED));
    let mut counts = vec![(FAILURES, counted + i32::from(!ignored))];
    if uncounted + i32::from(ignored) > 0 {
        counts.push((IGNORED, uncounted + i32::from(ignored)));
    }
    counts
}

/// When a pod ended.
pub fn ended(pod: &Pod) -> Timestamp {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    let ends: Option<Vec<_>> = statuses
        .iter()
        .map(|s| s.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|t| t.0))
        .collect();
    let unready = || {
        pods::condition(pod, "Ready")
            .filter(|c| c.status == "False")?
            .last_transition_time
            .as_ref()
            .map(|t| t.0)
    };
    let made = || pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let deleted = || pod.metadata.deletion_timestamp.as_ref().map(|t| t.0);
    ends.and_then(|e| e.into_iter().max())
        .or_else(unready)
        .or_else(deleted)
        .or_else(made)
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Failures since the last success, and when the last was.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Backoff {
    pub failures: u32,
    pub last: Option<Timestamp>,
}

impl Backoff {
    /// Takes in pods that ended.
    pub fn after(mut self, succeeded: &[&Pod], failed: &[&Pod]) -> Self {
        let mut ends: Vec<(Timestamp, bool)> = succeeded.iter().map(|p| (ended(p), true)).collect();
        ends.extend(failed.iter().map(|p| (ended(p), false)));
        ends.sort_unstable();
        for (at, good) in ends {
            if good {
                self = Backoff::default();
            } else {
                self = Backoff { failures: self.failures.saturating_add(1), last: Some(at) };
            }
        }
        self
    }

    /// How long until the next pod may be made.
    pub fn wait(&self, now: Timestamp) -> Duration {
        wait(self.failures, self.last, now)
    }
}

fn wait(failures: u32, last: Option<Timestamp>, now: Timestamp) -> Duration {
    let Some(last) = last.filter(|_| failures > 0) else { return Duration::ZERO };
    let pause = FIRST.saturating_mul(1u32.checked_shl(failures - 1).unwrap_or(u32::MAX)).min(MAX);
    pause.saturating_sub(time::between(last, now))
}

/// How long until an index may get its next pod.
pub fn index_wait(failed: Option<&Pod>, now: Timestamp) -> Duration {
    let Some(failed) = failed else { return Duration::ZERO };
    wait(
        u32::try_from(failures_before(failed)).unwrap_or_default().saturating_add(1),
        Some(ended(failed)),
        now,
    )
}

/// Which rule of the success policy is met.
pub fn success(spec: &JobSpec, succeeded: &Indexes) -> Option<String> {
    let completions = spec.completions.unwrap_or_default();
    let met =
        spec.success_policy.iter().flat_map(|p| &p.rules).position(|rule| match &rule.succeeded_indexes {
            Some(text) => {
                let wanted = Indexes::parse(text, completions);
                let needed = rule.succeeded_count.unwrap_or(wanted.total());
                wanted.total() > 0 && succeeded.overlap(&wanted) >= needed
            }
            None => rule.succeeded_count.is_some_and(|n| succeeded.total() >= n),
        });
    met.filter(|_| succeeded.total() > 0).map(|i| format!("Matched rules at index {i}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(code: i32, at: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "annotations": {INDEX: "2", FAILURES: "1"}},
            "spec": {"containers": []},
            "status": {"phase": if code == 0 { "Succeeded" } else { "Failed" },
                "conditions": [{"type": "DisruptionTarget", "status": "True"}],
                "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": code, "finishedAt": at}}}]},
        }))
        .unwrap()
    }

    fn spec_of(v: Value) -> JobSpec {
        let mut v = v;
        v["template"] = json!({});
        serde_json::from_value(v).unwrap()
    }

    #[test]
    fn failures_are_judged_by_the_first_rule() {
        let rules = |v: Value| spec_of(json!({"podFailurePolicy": {"rules": v}}));
        let codes = |op: &str, action: &str| json!({"action": action, "onExitCodes": {"operator": op, "values": [42]}});
        let condition =
            json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
        let p = pod(42, "2026-01-01T00:00:00Z");
        for (spec, want) in [
            (spec_of(json!({})), Verdict::Count),
            (rules(json!([codes("In", "FailIndex"), condition])), Verdict::FailIndex),
            (rules(json!([codes("NotIn", "FailIndex"), condition])), Verdict::Ignore),
            (
                rules(json!([codes("In", "FailJob")])),
                Verdict::FailJob(
                    "Container c for pod ns/p failed with exit code 42 matching FailJob rule at index 0"
                        .into(),
                ),
            ),
        ] {
            assert_eq!(verdict(&spec, &p), want);
        }
        assert!(
            fails_index(&p, &spec_of(json!({"backoffLimitPerIndex": 1})))
                && !fails_index(&p, &spec_of(json!({"backoffLimitPerIndex": 2})))
        );
        assert_eq!(failure_counts(&spec_of(json!({})), Some(&p)), [(FAILURES, 2)]);
        assert_eq!((index(&p, 3), index(&p, 2)), (Some(2), None));
    }

    #[test]
    fn pods_are_replaced_slower_and_slower() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let (a, b, ok) =
            (pod(1, "2026-01-01T00:00:55Z"), pod(1, "2026-01-01T00:00:30Z"), pod(0, "2026-01-01T00:00:40Z"));
        let seconds = |b: Backoff| (b.failures, b.wait(now).as_secs());
        assert_eq!(seconds(Backoff::default()), (0, 0));
        assert_eq!(seconds(Backoff::default().after(&[], &[&a])), (1, 5));
        assert_eq!(seconds(Backoff::default().after(&[], &[&a, &b])), (2, 15));
        assert_eq!(seconds(Backoff::default().after(&[&ok], &[&a, &b])), (1, 5));
        assert_eq!(seconds(Backoff { failures: 99, last: Some(now) }), (99, 600));
        assert_eq!(index_wait(Some(&a), now).as_secs(), 15);
    }

    #[test]
    fn a_job_can_succeed_early() {
        let s = |v: Value| spec_of(json!({"completions": 5, "successPolicy": {"rules": v}}));
        let done = Indexes::parse("0,2", 5);
        for (rules, want) in [
            (json!([{"succeededCount": 2}]), true),
            (json!([{"succeededCount": 3}]), false),
            (json!([{"succeededIndexes": "0-2", "succeededCount": 2}]), true),
            (json!([{"succeededIndexes": "0,2"}]), true),
            (json!([{"succeededIndexes": "0-2"}]), false),
        ] {
            assert_eq!(success(&s(rules.clone()), &done).is_some(), want, "{rules}");
        }
    }
}
