//! What a Job needs next: pods to make or delete, pods that ended to count, and whether it has ended itself.

use super::indexes::Indexes;
use super::pod::{self, is_tracked};
use super::policy::{self, Backoff, index, is_failed, replaces_failed_only, spec};
use crate::common::pods;
use api::time;
use client::ObjectExt;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// At most so many pods are made or deleted, or noted as uncounted, at once.
const AT_ONCE: usize = 500;

/// What is known.
pub struct Facts<'a> {
    pub pods: &'a [Arc<Pod>],
    /// Pods that were let go, though the cache does not show it.
    pub untracked: &'a HashSet<String>,
    /// Whether the caches show all that we did.
    pub met: bool,
    pub backoff: Backoff,
    pub now: Timestamp,
}

/// How a Job ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub succeeded: bool,
    pub reason: String,
    pub message: String,
}

/// What to do. The status has been brought up to date in the Job itself.
#[derive(Debug, Default)]
pub struct Decision {
    pub create: Vec<Pod>,
    pub delete: Vec<Arc<Pod>>,
    /// What is deleted was too many, not a failure.
    pub uncounted: bool,
    /// Pods to let go once the status is written.
    pub untrack: Vec<Arc<Pod>>,
    /// So many pods ended that the rest is noted another time: the Job can't have ended yet.
    pub more: bool,
    /// How it ends, once all are counted.
    pub verdict: Option<Verdict>,
    pub backoff: Backoff,
    pub wait: Option<Duration>,
    pub events: Vec<(&'static str, String)>,
}

fn failed(reason: &str, message: impl Into<String>) -> Verdict {
    Verdict { succeeded: false, reason: reason.into(), message: message.into() }
}

fn condition(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    let now = Some(Time(time::truncate(now)));
    JobCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: now.clone(),
        last_transition_time: now,
    }
}

fn find<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// Sets a condition; whether its status is another now. One that would only say "no" is not begun.
fn ensure(status: &mut JobStatus, new: JobCondition) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| c.type_ == new.type_) {
        Some(old) if old.status == new.status => false,
        Some(old) => {
            *old = new;
            true
        }
        None if new.status == "False" => {
            if conditions.is_empty() {
                status.conditions = None;
            }
            false
        }
        None => {
            conditions.push(new);
            true
        }
    }
}

/// The work in progress of one decision.
struct Deciding<'a> {
    facts: &'a Facts<'a>,
    spec: JobSpec,
    deleting: bool,
    /// `Some` for an indexed Job.
    completions: Option<i32>,
    active: Vec<Arc<Pod>>,
    succeeded: i32,
    failed: i32,
    before: Indexes,
    done: Indexes,
    lost: Option<Indexes>,
    /// The last failed pod of each index that waits to be replaced.
    delayed: HashMap<i32, Arc<Pod>>,
}

/// Decides, and brings the Job's status up to date.
pub fn decide(job: &mut Job, facts: &Facts<'_>) -> Decision {
    let spec = spec(job);
    let mut status = job.status.take().unwrap_or_default();
    let uncounted = status.uncounted_terminated_pods.get_or_insert_default().clone();
    let completions = match spec.completion_mode.as_deref() {
        Some("Indexed") => Some(spec.completions.unwrap_or_default()),
        _ => None,
    };
    let mut s = Deciding {
        active: facts.pods.iter().filter(|p| pods::is_active(p)).cloned().collect(),
        deleting: job.is_deleting(),
        spec,
        completions,
        facts,
        succeeded: 0,
        failed: 0,
        before: Indexes::default(),
        done: Indexes::default(),
        lost: None,
        delayed: HashMap::new(),
    };
    let mut d = Decision::default();
    let (new_succeeded, new_failed) = s.newly_ended(&uncounted);
    let succeeded =
        status.succeeded.unwrap_or_default() + (new_succeeded.len() + len(&uncounted.succeeded)) as i32;
    let counting =
        new_failed.iter().filter(|p| policy::verdict(&s.spec, p) != policy::Verdict::Ignore).count();
    let failed = status.failed.unwrap_or_default() + (counting + len(&uncounted.failed)) as i32;
    d.backoff = facts.backoff.after(&new_succeeded, &new_failed);
    (s.succeeded, s.failed) = (succeeded, failed);
    let suspended = s.spec.suspend == Some(true);
    if status.start_time.is_none() && !suspended {
        status.start_time = Some(Time(time::truncate(facts.now)));
    }
    s.read_indexes(&status);
    let mut verdict = s.verdict(&status, &mut d);
    let terminating = facts.pods.iter().filter(|p| p.is_deleting() && !pods::is_terminal(p)).count() as i32;
    status.active = Some(s.active.len() as i32).filter(|n| *n > 0); // the server leaves out zero
    status.ready = Some(s.active.iter().filter(|p| pods::is_ready(p)).count() as i32);
    status.terminating = Some(terminating);
    if let Some(v) = verdict.take() {
        d.delete.clone_from(&s.active);
        // As long as there may be pods that we don't see it can't be said to have ended.
        verdict = Some(v).filter(|_| facts.met);
    } else {
        let managed = facts.met && !s.deleting;
        if managed {
            s.manage(job, suspended, terminating, &mut d);
        }
        let idle = s.active.is_empty() && d.create.is_empty();
        let complete = match s.spec.completions {
            None => s.succeeded > 0 && idle,
            Some(n) => s.succeeded >= n && idle,
        };
        if complete {
            let message = "Reached expected number of succeeded pods".into();
            verdict = Some(Verdict { succeeded: true, reason: "CompletionsReached".into(), message });
        } else if managed {
            note_suspension(&mut status, suspended, facts.now, &mut d);
        }
    }
    s.count_ended(&mut status, verdict.as_ref(), &mut d);
    if let Some(v) = &verdict {
        // Said before the pods are let go: what is decided stays decided.
        let kind = if v.succeeded { "SuccessCriteriaMet" } else { "FailureTarget" };
        ensure(&mut status, condition(kind, "True", &v.reason, &v.message, facts.now));
    }
    d.verdict = verdict;
    job.status = Some(status);
    d
}

fn len(v: &Option<Vec<String>>) -> usize {
    v.as_ref().map_or(0, Vec::len)
}

fn has(v: &Option<Vec<String>>, uid: &str) -> bool {
    v.iter().flatten().any(|u| u == uid)
}

fn note_suspension(status: &mut JobStatus, suspended: bool, now: Timestamp, d: &mut Decision) {
    let new = match suspended {
        true => condition("Suspended", "True", "JobSuspended", "Job suspended", now),
        false => condition("Suspended", "False", "JobResumed", "Job resumed", now),
    };
    if !ensure(status, new) {
        return;
    }
    if suspended {
        status.start_time = None;
        d.events.push(("Suspended", "Job suspended".into()));
    } else {
        // The deadline counts from when it went on.
        status.start_time = Some(Time(time::truncate(now)));
        d.events.push(("Resumed", "Job resumed".into()));
    }
}

impl Deciding<'_> {
    fn is_tracked(&self, pod: &Pod) -> bool {
        is_tracked(pod) && !self.facts.untracked.contains(pod.uid())
    }

    fn index(&self, pod: &Pod) -> Option<i32> {
        index(pod, self.completions?)
    }

    /// Whether a pod counts at all: in an indexed Job it needs an index.
    fn is_valid(&self, pod: &Pod) -> bool {
        self.completions.is_none() || self.index(pod).is_some()
    }

    fn newly_ended(&self, uncounted: &UncountedTerminatedPods) -> (Vec<&Pod>, Vec<&Pod>) {
        let new = |list: &Option<Vec<String>>, ended: &dyn Fn(&Pod) -> bool| {
            let fits =
                |p: &&Arc<Pod>| self.is_tracked(p) && !has(list, p.uid()) && self.is_valid(p) && ended(p);
            self.facts.pods.iter().filter(fits).map(|p| &**p).collect::<Vec<_>>()
        };
        let succeeded = new(&uncounted.succeeded, &|p| pods::phase(p) == "Succeeded");
        (succeeded, new(&uncounted.failed, &|p| is_failed(p, &self.spec)))
    }

    fn read_indexes(&mut self, status: &JobStatus) {
        let Some(completions) = self.completions else { return };
        self.before = Indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions);
        let pods = self.facts.pods;
        let good = pods.iter().filter(|p| pods::phase(p) == "Succeeded" && self.is_tracked(p));
        self.done = self.before.with(good.filter_map(|p| self.index(p)));
        self.succeeded = self.done.total();
        if self.spec.backoff_limit_per_index.is_none() {
            return;
        }
        let lost = Indexes::parse(status.failed_indexes.as_deref().unwrap_or_default(), completions);
        let bad = pods.iter().filter(|p| self.is_tracked(p) && policy::fails_index(p, &self.spec));
        let lost = lost.with(bad.filter_map(|p| self.index(p)).filter(|i| !self.done.has(*i)));
        let active: HashSet<i32> = self.active.iter().filter_map(|p| self.index(p)).collect();
        let mut delayed: HashMap<i32, Arc<Pod>> = HashMap::new();
        for pod in pods.iter().filter(|p| self.is_tracked(p) && is_failed(p, &self.spec)) {
            let Some(i) = self.index(pod) else { continue };
            if self.done.has(i) || lost.has(i) || active.contains(&i) {
                continue;
            }
            let rank = |p: &Pod| (policy::failures_before(p), policy::ended(p));
            let newest = delayed.entry(i).or_insert_with(|| pod.clone());
            if rank(newest) < rank(pod) {
                *newest = pod.clone();
            }
        }
        (self.lost, self.delayed) = (Some(lost), delayed);
    }

    /// How the Job ends, if it does: what was decided before stands, then failure, then early success.
    fn verdict(&self, status: &JobStatus, d: &mut Decision) -> Option<Verdict> {
        let held = |kind: &str, succeeded: bool| {
            let c = find(status, kind).filter(|c| c.status == "True")?;
            Some(Verdict {
                succeeded,
                reason: c.reason.clone().unwrap_or_default(),
                message: c.message.clone().unwrap_or_default(),
            })
        };
        if let Some(v) = held("SuccessCriteriaMet", true).or_else(|| held("FailureTarget", false)) {
            return Some(v);
        }
        let bad = self.facts.pods.iter().filter(|p| is_failed(p, &self.spec));
        let fatal = bad.into_iter().find_map(|p| match policy::verdict(&self.spec, p) {
            policy::Verdict::FailJob(message) => Some(message),
            _ => None,
        });
        if let Some(message) = fatal {
            return Some(failed("PodFailurePolicy", message));
        }
        if self.failed > self.spec.backoff_limit.unwrap_or(6) || self.restarts_exceed() {
            return Some(failed("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
        }
        if let (Some(seconds), Some(start), false) =
            (self.spec.active_deadline_seconds, &status.start_time, self.spec.suspend == Some(true))
        {
            let end = time::later(start.0, Duration::from_secs(u64::try_from(seconds).unwrap_or_default()));
            match time::until(end, self.facts.now) {
                None => {
                    return Some(failed("DeadlineExceeded", "Job was active longer than specified deadline"));
                }
                left => d.wait = left,
            }
        }
        if let (Some(lost), Some(completions)) = (&self.lost, self.completions) {
            if self.spec.max_failed_indexes.is_some_and(|most| lost.total() > most) {
                let message = "Job has exceeded the specified maximal number of failed indexes";
                return Some(failed("MaxFailedIndexesExceeded", message));
            }
            if lost.total() > 0 && lost.total() + self.done.total() >= completions {
                return Some(failed("FailedIndexes", "Job has failed indexes"));
            }
        }
        let message = self.completions.and_then(|_| policy::success(&self.spec, &self.done))?;
        Some(Verdict { succeeded: true, reason: "SuccessPolicy".into(), message })
    }

    /// Containers that start again in place count when the pod itself never fails.
    fn restarts_exceed(&self) -> bool {
        let template = self.spec.template.spec.as_ref();
        if template.and_then(|s| s.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let running = self.facts.pods.iter().filter(|p| matches!(pods::phase(p), "Running" | "Pending"));
        let statuses = running.filter_map(|p| p.status.as_ref()).flat_map(|s| {
            s.init_container_statuses.iter().flatten().chain(s.container_statuses.iter().flatten())
        });
        let restarts: i32 = statuses.map(|c| c.restart_count).sum();
        match self.spec.backoff_limit.unwrap_or(6) {
            0 => restarts > 0,
            limit => restarts >= limit,
        }
    }

    /// Which pods to make or delete.
    fn manage(&mut self, job: &Job, suspended: bool, terminating: i32, d: &mut Decision) {
        let active = self.active.len() as i32;
        d.uncounted = true;
        if suspended {
            d.delete = pod::surplus(&self.active, self.active.len(), self.completions);
            return;
        }
        let parallel = self.spec.parallelism.unwrap_or(1);
        let wanted = match self.spec.completions {
            // Once one has succeeded no more are started.
            None if self.succeeded > 0 => active,
            None => parallel,
            Some(n) => (n - self.succeeded).clamp(0, parallel.max(0)),
        };
        let spare = usize::try_from(active - wanted).unwrap_or_default();
        d.delete = pod::surplus(&self.active, spare, self.completions);
        d.delete.truncate(AT_ONCE);
        if !d.delete.is_empty() {
            return;
        }
        let ending = if replaces_failed_only(&self.spec) { terminating } else { 0 };
        let Ok(missing) = usize::try_from(wanted - active - ending) else { return };
        let missing = missing.min(AT_ONCE);
        if missing == 0 {
            return;
        }
        let per_index = self.spec.backoff_limit_per_index.is_some();
        let mut waits = Vec::new();
        if !per_index && !d.backoff.wait(self.facts.now).is_zero() {
            waits.push(d.backoff.wait(self.facts.now));
        } else if let Some(completions) = self.completions {
            for i in self.pending(missing, completions) {
                let replaced = self.delayed.get(&i);
                match policy::index_wait(replaced.map(|p| &**p).filter(|_| per_index), self.facts.now) {
                    Duration::ZERO => d.create.push(pod::make(job, Some(i), replaced.map(|p| &**p))),
                    wait => waits.push(wait),
                }
            }
        } else {
            d.create = vec![pod::make(job, None, None); missing];
        }
        d.wait = d.wait.into_iter().chain(waits).min();
    }

    /// The first indexes that have neither ended nor a pod.
    fn pending(&self, count: usize, completions: i32) -> Vec<i32> {
        let mut taken = self.done.with(self.active.iter().filter_map(|p| self.index(p)));
        if replaces_failed_only(&self.spec) {
            let ending = self.facts.pods.iter().filter(|p| p.is_deleting() && !pods::is_terminal(p));
            taken = taken.with(ending.filter_map(|p| self.index(p)));
        }
        if let Some(lost) = &self.lost {
            taken = taken.union(lost);
        }
        taken.missing(count, completions)
    }

    /// Notes the pods that ended, so that they can be let go.
    fn count_ended(&mut self, status: &mut JobStatus, verdict: Option<&Verdict>, d: &mut Decision) {
        let held: HashSet<&str> =
            self.facts.pods.iter().filter(|p| self.is_tracked(p)).map(|p| p.uid()).collect();
        count(status, |uid| held.contains(uid));
        let mut uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
        let known = uncounted.clone();
        let mut new_indexes = Vec::new();
        for pod in self.facts.pods.iter().filter(|p| self.is_tracked(p)) {
            let (bad, good) = (is_failed(pod, &self.spec), pods::phase(pod) == "Succeeded");
            if !self.may_go(pod, bad, good, verdict.is_some()) {
                continue;
            }
            d.untrack.push(pod.clone());
            if good && !has(&known.failed, pod.uid()) {
                match (self.completions, self.index(pod)) {
                    (Some(_), Some(i)) => new_indexes.push(i),
                    (Some(_), None) => {}
                    (None, _) if has(&known.succeeded, pod.uid()) => {}
                    (None, _) => uncounted.succeeded.get_or_insert_default().push(pod.uid().into()),
                }
            } else if bad || verdict.is_some_and(|v| !v.succeeded) {
                let counts = policy::verdict(&self.spec, pod) != policy::Verdict::Ignore;
                if counts && self.is_valid(pod) && !has(&known.failed, pod.uid()) {
                    uncounted.failed.get_or_insert_default().push(pod.uid().into());
                }
            }
            if new_indexes.len() + len(&uncounted.succeeded) + len(&uncounted.failed) >= AT_ONCE {
                d.more = true;
                break;
            }
        }
        status.uncounted_terminated_pods = Some(uncounted);
        if self.completions.is_some() {
            let done = self.before.with(new_indexes);
            status.succeeded = Some(done.total()).filter(|n| *n > 0);
            status.completed_indexes = Some(done.to_string()).filter(|t| !t.is_empty());
            status.failed_indexes = self.lost.as_ref().map(Indexes::to_string);
        }
    }

    fn may_go(&self, pod: &Pod, bad: bool, good: bool, ends: bool) -> bool {
        if self.deleting || ends || good {
            return true;
        }
        // The last failed pod of an index tells its successor how often it failed.
        let told = self.index(pod).and_then(|i| self.delayed.get(&i)).is_some_and(|p| p.uid() == pod.uid());
        bad && !told
    }
}

/// Counts the noted pods that are no longer held.
pub fn count(status: &mut JobStatus, held: impl Fn(&str) -> bool) {
    let Some(uncounted) = &mut status.uncounted_terminated_pods else { return };
    let take = |list: &mut Option<Vec<String>>| {
        let before = len(list);
        if let Some(l) = list {
            l.retain(|uid| held(uid));
        }
        let gone = before - len(list);
        if len(list) == 0 {
            *list = None;
        }
        gone as i32
    };
    let (good, bad) = (take(&mut uncounted.succeeded), take(&mut uncounted.failed));
    let add = |n: Option<i32>, more: i32| Some(n.unwrap_or_default() + more).filter(|n| *n > 0);
    status.succeeded = add(status.succeeded, good);
    status.failed = add(status.failed, bad);
}

/// Says that the Job has ended, if all its pods have gone and are counted.
pub fn finish(status: &mut JobStatus, v: &Verdict, now: Timestamp) -> bool {
    let uncounted = status.uncounted_terminated_pods.as_ref();
    if uncounted.is_some_and(|u| len(&u.succeeded) + len(&u.failed) > 0)
        || status.terminating.unwrap_or_default() > 0
    {
        return false;
    }
    let kind = if v.succeeded { "Complete" } else { "Failed" };
    let c = condition(kind, "True", &v.reason, &v.message, now);
    if v.succeeded {
        status.completion_time.clone_from(&c.last_transition_time);
    }
    ensure(status, c);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn job(spec: Value, status: Value) -> Job {
        let mut spec = spec;
        spec["template"] = json!({"spec": {"containers": [{"name": "c"}]}});
        serde_json::from_value(
            json!({"metadata": {"name": "j", "namespace": "ns", "uid": "u"}, "spec": spec, "status": status}),
        )
        .unwrap()
    }

    fn pod(uid: &str, phase: &str, index: Option<i32>) -> Arc<Pod> {
        let annotations = index.map(|i| json!({policy::INDEX: i.to_string()}));
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": uid, "uid": uid, "finalizers": [pod::FINALIZER], "annotations": annotations, "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"containers": []}, "status": {"phase": phase},
            }))
            .unwrap(),
        )
    }

    fn run(job: &mut Job, pods: &[Arc<Pod>]) -> Decision {
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        decide(job, &Facts { pods, untracked: &HashSet::new(), met: true, backoff: Backoff::default(), now })
    }

    fn show(d: &Decision) -> String {
        let names = |v: &[Arc<Pod>]| v.iter().map(|p| p.name().to_string()).collect::<Vec<_>>().join(",");
        let ends = d.verdict.as_ref().map_or("", |v| v.reason.as_str());
        format!("+{} -{} ~{} {ends}", d.create.len(), names(&d.delete), names(&d.untrack))
    }

    #[test]
    fn pods_run_until_enough_succeeded() {
        let three = |p: i32| json!({"completions": 3, "parallelism": p, "backoffLimit": 1});
        for (spec, status, pods, want) in [
            (three(2), json!({}), vec![], "+2 - ~ "),
            (three(9), json!({"succeeded": 2}), vec![], "+1 - ~ "),
            (three(1), json!({}), vec![pod("a", "Running", None), pod("b", "Pending", None)], "+0 -b ~ "),
            (
                three(2),
                json!({"succeeded": 1}),
                vec![pod("a", "Succeeded", None), pod("b", "Running", None)],
                "+0 - ~a ",
            ),
            (
                three(2),
                json!({"succeeded": 1}),
                vec![pod("a", "Succeeded", None), pod("b", "Succeeded", None)],
                "+0 - ~a,b CompletionsReached",
            ),
            (
                three(2),
                json!({"failed": 1}),
                vec![pod("a", "Failed", None), pod("b", "Running", None)],
                "+0 -b ~a,b BackoffLimitExceeded",
            ),
            (json!({"parallelism": 2}), json!({"succeeded": 1}), vec![pod("a", "Running", None)], "+0 - ~ "),
            (json!({"parallelism": 2}), json!({"succeeded": 1}), vec![], "+0 - ~ CompletionsReached"),
            (
                json!({"parallelism": 2, "suspend": true}),
                json!({}),
                vec![pod("a", "Running", None)],
                "+0 -a ~ ",
            ),
            (
                json!({"activeDeadlineSeconds": 60}),
                json!({"startTime": "2026-01-01T00:00:00Z"}),
                vec![pod("a", "Running", None)],
                "+0 -a ~a DeadlineExceeded",
            ),
        ] {
            let mut j = job(spec.clone(), status);
            assert_eq!(show(&run(&mut j, &pods)), want, "{spec}");
        }
    }

    #[test]
    fn ended_pods_are_noted_then_counted() {
        let mut j = job(json!({"completions": 3, "backoffLimit": 5}), json!({}));
        let pods = [pod("a", "Succeeded", None), pod("b", "Failed", None)];
        let d = run(&mut j, &pods);
        let status = j.status.as_mut().unwrap();
        let u = status.uncounted_terminated_pods.clone().unwrap();
        assert_eq!((u.succeeded.unwrap(), u.failed.unwrap()), (vec!["a".to_string()], vec!["b".to_string()]));
        assert_eq!(d.untrack.len(), 2);
        assert_eq!((status.succeeded, status.failed), (None, None));
        count(status, |uid| uid == "b");
        assert_eq!((status.succeeded, status.failed), (Some(1), None));
        let v = Verdict { succeeded: true, reason: "R".into(), message: String::new() };
        assert!(!finish(status, &v, Timestamp::UNIX_EPOCH));
        count(status, |_| false);
        assert!(finish(status, &v, Timestamp::UNIX_EPOCH) && status.completion_time.is_some());
        // A second look at the same pods does not note them twice.
        let mut again = job(
            json!({"completions": 3, "backoffLimit": 5}),
            json!({"uncountedTerminatedPods": {"succeeded": ["a"]}}),
        );
        run(&mut again, &pods);
        assert_eq!(again.status.unwrap().uncounted_terminated_pods.unwrap().succeeded.unwrap().len(), 1);
    }

    #[test]
    fn a_big_job_has_not_ended_before_all_pods_are_counted() {
        let spec = json!({"completionMode": "Indexed", "completions": 1000, "parallelism": 1000});
        let mut j = job(spec, json!({}));
        let pods: Vec<_> = (0..1000).map(|i| pod(&format!("p{i}"), "Succeeded", Some(i))).collect();
        let d = run(&mut j, &pods);
        assert!(d.more && d.verdict.is_some() && d.untrack.len() == 500);
        let rest: Vec<_> =
            pods.iter().filter(|p| !d.untrack.iter().any(|u| u.uid() == p.uid())).cloned().collect();
        let mut again = j.clone();
        assert!(!run(&mut again, &rest[..499]).more);
    }

    #[test]
    fn indexes_are_worked_off() {
        let spec = json!({"completionMode": "Indexed", "completions": 4, "parallelism": 4, "backoffLimitPerIndex": 0, "backoffLimit": 99});
        let mut j = job(spec.clone(), json!({"completedIndexes": "0"}));
        let d = run(&mut j, &[pod("a", "Succeeded", Some(1)), pod("b", "Failed", Some(2))]);
        let status = j.status.clone().unwrap();
        assert_eq!(
            (status.completed_indexes.as_deref(), status.failed_indexes.as_deref(), status.succeeded),
            (Some("0,1"), Some("2"), Some(2))
        );
        assert_eq!(d.create.iter().map(|p| p.annotation(policy::INDEX).unwrap()).collect::<Vec<_>>(), ["3"]);
        let d = run(&mut job(spec, json!({"completedIndexes": "0,1,3", "failedIndexes": "2"})), &[]);
        assert_eq!(show(&d), "+0 - ~ FailedIndexes");
        // What was decided stands, whatever the pods do then.
        let held = json!({"conditions": [{"type": "FailureTarget", "status": "True", "reason": "R"}], "succeeded": 9});
        assert_eq!(show(&run(&mut job(json!({"completions": 1}), held), &[])), "+0 - ~ R");
    }
}
