//! CronJobs: a Job whenever its time comes.
//! Watches CronJobs and the Jobs they own; both lead to the CronJob, which is looked at again when it is due.

use crate::common::{controller_ref, gone_is_fine};
use crate::{Context, Error, Outcome};
use api::ObjectKey;
use api::cron::Schedule;
use api::time;
use client::{Client, EventRecorder, EventType, Lister, ObjectExt, object_ref};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Time};
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "cronjob-controller";
/// A CronJob is looked at a little after its time, so that its time has come by every clock.
const GRACE: Duration = Duration::from_millis(100);
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// So many missed times are worth a warning.
const MANY: i64 = 100;

struct Cron {
    client: Client,
    events: EventRecorder,
    crons: Lister<CronJob>,
    jobs: Lister<Job>,
}

/// Keeps CronJobs.
pub async fn run(ctx: Context) {
    let client = ctx.client(NAME);
    let (crons, jobs) = (ctx.informers.informer::<CronJob>(), ctx.informers.informer::<Job>());
    let this = Arc::new(Cron {
        events: ctx.events(&client, NAME),
        client,
        crons: crons.lister(),
        jobs: jobs.lister(),
    });
    ctx.controller(NAME)
        .on(&crons, |event, queue| {
            let cron = event.object();
            let timing = |c: &CronJob| (c.spec.schedule.clone(), c.spec.time_zone.clone());
            match event.old() {
                // Another schedule counts from now on: a time of it that has passed is none that was missed.
                Some(old) if !event.is_deleted() && timing(old) != timing(cron) => {
                    if let Some(wait) = until_next(cron, Timestamp::now()) {
                        queue.add_after(cron.key(), wait);
                    }
                }
                _ => queue.add(cron.key()),
            }
        })
        .on(&jobs, |event, queue| {
            for job in event.old().into_iter().chain([event.object()]) {
                if let Some(owner) = job.controller().filter(|c| c.kind == "CronJob") {
                    queue.add(ObjectKey::new(job.namespace(), &owner.name));
                }
            }
        })
        .run(ctx.workers(NAME, 5), ctx.shutdown, move |key| {
            let this = this.clone();
            async move { this.reconcile(key).await }
        })
        .await;
}

/// How a Job ended, if it did.
fn ended(job: &Job) -> Option<&str> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let over = |kind: &str| matches!(kind, "Complete" | "Failed");
    conditions.iter().find(|c| over(&c.type_) && c.status == "True").map(|c| c.type_.as_str())
}

/// The Jobs beyond the limits of the history, oldest first.
fn excess(cron: &CronJob, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let of = |how: &str, limit: Option<i32>| {
        let Some(limit) = limit.and_then(|l| usize::try_from(l).ok()) else { return Vec::new() };
        let mut all: Vec<Arc<Job>> = jobs.iter().filter(|j| ended(j) == Some(how)).cloned().collect();
        let start = |j: &Job| j.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
        // Those that never started are the newest.
        all.sort_by_key(|j| (start(j).is_none(), start(j), j.name().to_string()));
        all.truncate(all.len().saturating_sub(limit));
        all
    };
    let mut all = of("Complete", cron.spec.successful_jobs_history_limit);
    all.extend(of("Failed", cron.spec.failed_jobs_history_limit));
    all
}

/// The last time that has come and when it was missed how often; `since` is where counting began.
struct Missed {
    since: Timestamp,
    last: Option<Timestamp>,
    count: i64,
}

/// What was missed until now. With `deadline`, only what may still be started counts.
fn missed(
    cron: &CronJob,
    schedule: &Schedule,
    zone: &TimeZone,
    now: Timestamp,
    deadline: bool,
) -> Option<Missed> {
    let made = cron.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    let last = cron.status.as_ref().and_then(|s| s.last_schedule_time.as_ref()).map(|t| t.0);
    let mut since = last.unwrap_or(made);
    if let Some(seconds) = cron.spec.starting_deadline_seconds.filter(|_| deadline) {
        since = since.max(now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(since));
    }
    let first = schedule.next(since, zone)?;
    if first > now {
        return Some(Missed { since, last: None, count: 0 });
    }
    let Some(second) = schedule.next(first, zone).filter(|s| *s <= now) else {
        return Some(Missed { since, last: Some(first), count: 1 });
    };
    // Most of a long time that was missed is leapt over.
    let pace = (second.as_second() - first.as_second()).max(1);
    let count = (now.as_second() - first.as_second()) / pace + 1;
    let near = first.checked_add(SignedDuration::from_secs((count - 2) * pace)).unwrap_or(first);
    let (mut last, mut at) = (None, near);
    while let Some(next) = schedule.next(at, zone).filter(|n| *n <= now) {
        (last, at) = (Some(next), next);
    }
    Some(Missed { since, last, count })
}

/// How long until its next time.
fn wait(cron: &CronJob, schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> Option<Duration> {
    let missed = missed(cron, schedule, zone, now, false)?;
    let from = match missed.last {
        Some(last) => last,
        None if missed.count == 0 => missed.since,
        None => now,
    };
    let next = schedule.next(from, zone)?;
    Some(time::until(next, now).unwrap_or_default() + GRACE)
}

/// How long until the next time of its schedule; none if that can't be read.
fn until_next(cron: &CronJob, now: Timestamp) -> Option<Duration> {
    let (schedule, zone): (Schedule, _) = (cron.spec.schedule.parse().ok()?, zone(cron).ok()?);
    Some(time::until(schedule.next(now, &zone)?, now).unwrap_or_default() + GRACE)
}

fn zone(cron: &CronJob) -> Result<TimeZone, jiff::Error> {
    match cron.spec.time_zone.as_deref() {
        None | Some("") => Ok(TimeZone::system()),
        Some("UTC") => Ok(TimeZone::UTC),
        Some(name) => TimeZone::get(name),
    }
}

fn job(cron: &CronJob, at: Timestamp, zone: &TimeZone) -> Job {
    let template = &cron.spec.job_template;
    let meta = template.metadata.clone().unwrap_or_default();
    let mut job = Job { spec: template.spec.clone(), ..Job::default() };
    job.metadata.name = Some(format!("{}-{}", cron.name(), at.as_second().div_euclid(60)));
    job.metadata.namespace = Some(cron.namespace().into());
    job.metadata.labels = meta.labels;
    let stamp = at.to_zoned(zone.clone());
    let stamp = match stamp.offset().is_zero() {
        true => stamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        false => stamp.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
    };
    let annotations = meta.annotations.into_iter().flatten().chain([(SCHEDULED.to_string(), stamp)]);
    job.metadata.annotations = Some(annotations.collect());
    job.metadata.owner_references = Some(vec![controller_ref(cron)]);
    job
}

impl Cron {
    fn tell(&self, cron: &CronJob, kind: EventType, reason: &str, message: impl Into<String>) {
        self.events.event(&object_ref(cron), kind, reason, message);
    }

    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(cron) = self.crons.get(&key.namespace, &key.name) else { return Ok(None) };
        let owned = |j: &Arc<Job>| j.controller().is_some_and(|c| c.uid == cron.uid());
        let jobs: Vec<Arc<Job>> =
            self.jobs.list_namespace(&key.namespace).into_iter().filter(owned).collect();
        let mut status = cron.status.clone().unwrap_or_default();
        for old in excess(&cron, &jobs) {
            self.delete(&cron, &mut status, &old).await?;
        }
        let result = self.sync(&cron, &mut status, &jobs).await;
        if status.active.as_ref().is_some_and(Vec::is_empty) {
            status.active = None;
        }
        if Some(&status) != cron.status.as_ref() && status != CronJobStatus::default()
            || cron.status.is_some() && Some(&status) != cron.status.as_ref()
        {
            match self.client.update_status(&CronJob { status: Some(status), ..(*cron).clone() }).await {
                Err(e) if e.is_not_found() => {}
                other => drop(other?),
            }
        }
        result
    }

    async fn delete(&self, cron: &CronJob, status: &mut CronJobStatus, job: &Job) -> Result<(), Error> {
        let options = DeleteOptions {
            propagation_policy: Some("Background".into()),
            ..crate::common::delete_uid(job.uid())
        };
        let result = self.client.delete::<Job>(job.namespace(), job.name(), &options).await;
        if let Err(e) = gone_is_fine(result) {
            self.tell(cron, EventType::Warning, "FailedDelete", format!("Deleted job: {e}"));
            return Err(e.into());
        }
        forget(status, job.uid());
        self.tell(cron, EventType::Normal, "SuccessfulDelete", format!("Deleted job {}", job.name()));
        Ok(())
    }

    /// Brings the list of active Jobs up to date.
    async fn look(&self, cron: &CronJob, status: &mut CronJobStatus, jobs: &[Arc<Job>]) -> Result<(), Error> {
        let active = status.active.clone().unwrap_or_default();
        let is_active = |uid: &str| active.iter().any(|a| a.uid.as_deref() == Some(uid));
        for job in jobs {
            match ended(job) {
                None if !is_active(job.uid()) => {
                    let fresh: CronJob = self.client.get(cron.namespace(), cron.name()).await?;
                    let known = fresh.status.iter().flat_map(|s| s.active.iter().flatten());
                    if !known.into_iter().any(|a| a.uid.as_deref() == Some(job.uid())) {
                        let message =
                            format!("Saw a job that the controller did not create or forgot: {}", job.name());
                        self.tell(cron, EventType::Warning, "UnexpectedJob", message);
                    }
                }
                None => {}
                Some(how) => {
                    if is_active(job.uid()) {
                        forget(status, job.uid());
                        let message = format!("Saw completed job: {}, condition: {how}", job.name());
                        self.tell(cron, EventType::Normal, "SawCompletedJob", message);
                    }
                    let done = job.status.as_ref().and_then(|s| s.completion_time.clone());
                    if how == "Complete" && done > status.last_successful_time {
                        status.last_successful_time = done;
                    }
                }
            }
        }
        for gone in active {
            let (uid, name) = (gone.uid.unwrap_or_default(), gone.name.unwrap_or_default());
            if jobs.iter().any(|j| j.uid() == uid) {
                continue;
            }
            if self.client.get_opt::<Job>(cron.namespace(), &name).await?.is_none() {
                self.tell(cron, EventType::Normal, "MissingJob", format!("Active job went missing: {name}"));
                forget(status, &uid);
            }
        }
        Ok(())
    }

    async fn sync(&self, cron: &CronJob, status: &mut CronJobStatus, jobs: &[Arc<Job>]) -> Outcome {
        self.look(cron, status, jobs).await?;
        if cron.is_deleting() {
            return Ok(None);
        }
        let zone = match zone(cron) {
            Ok(zone) => zone,
            Err(e) => {
                let name = cron.spec.time_zone.clone().unwrap_or_default();
                self.tell(
                    cron,
                    EventType::Warning,
                    "UnknownTimeZone",
                    format!("invalid timeZone: {name:?}: {e}"),
                );
                return Ok(None);
            }
        };
        if cron.spec.suspend == Some(true) {
            return Ok(None);
        }
        let schedule: Schedule = match cron.spec.schedule.parse() {
            Ok(schedule) => schedule,
            Err(e) => {
                let message = format!("unparseable schedule: {:?} : {e}", cron.spec.schedule);
                self.tell(cron, EventType::Warning, "UnparseableSchedule", message);
                return Ok(None);
            }
        };
        let now = Timestamp::now();
        // What is done moves the time from which the next is counted.
        let again = |status: &CronJobStatus| {
            let cron = CronJob { status: Some(status.clone()), ..cron.clone() };
            wait(&cron, &schedule, &zone, now)
        };
        let Some(missed) = missed(cron, &schedule, &zone, now, true) else { return Ok(None) };
        let Some(at) = missed.last else { return Ok(again(status)) };
        if missed.count > MANY {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.tell(cron, EventType::Warning, "TooManyMissedTimes", message);
        }
        let late =
            |seconds: i64| at.checked_add(SignedDuration::from_secs(seconds)).is_ok_and(|end| end < now);
        if cron.spec.starting_deadline_seconds.is_some_and(late) {
            let stamp = at.strftime("%a, %d %b %Y %H:%M:%S +0000");
            let message = format!("Missed scheduled time to start a job: {stamp}");
            self.tell(cron, EventType::Warning, "MissSchedule", message);
            return Ok(again(status));
        }
        let wanted = job(cron, at, &zone);
        let active = status.active.clone().unwrap_or_default();
        if active.iter().any(|a| a.name.as_deref() == Some(wanted.name()))
            || status.last_schedule_time.as_ref().is_some_and(|t| t.0 == at)
        {
            return Ok(again(status));
        }
        match cron.spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let message =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.tell(cron, EventType::Normal, "JobAlreadyActive", message);
                return Ok(again(status));
            }
            Some("Replace") => {
                for old in &active {
                    let name = old.name.as_deref().unwrap_or_default();
                    if let Some(old) = self.client.get_opt::<Job>(cron.namespace(), name).await? {
                        self.delete(cron, status, &old).await?;
                    }
                }
            }
            _ => {}
        }
        let made = match self.client.create(&wanted).await {
            Ok(made) => {
                self.tell(
                    cron,
                    EventType::Normal,
                    "SuccessfulCreate",
                    format!("Created job {}", made.name()),
                );
                made
            }
            Err(e) if e.is_already_exists() => {
                let there: Job = self.client.get(wanted.namespace(), wanted.name()).await?;
                if there.controller().is_none_or(|c| c.uid != cron.uid()) {
                    return Ok(None);
                }
                there
            }
            Err(e) if e.is_namespace_terminating() => return Ok(None),
            Err(e) => {
                self.tell(cron, EventType::Warning, "FailedCreate", format!("Error creating job: {e}"));
                return Err(e.into());
            }
        };
        let reference =
            ObjectReference { resource_version: Some(made.resource_version().into()), ..object_ref(&made) };
        if ended(&made).is_none() {
            status.active.get_or_insert_default().push(reference);
        }
        status.last_schedule_time = Some(Time(at));
        Ok(again(status))
    }
}

fn forget(status: &mut CronJobStatus, uid: &str) {
    status.active.iter_mut().for_each(|a| a.retain(|r| r.uid.as_deref() != Some(uid)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cron(schedule: &str, last: Option<&str>, deadline: Option<i64>) -> CronJob {
        serde_json::from_value(json!({
            "metadata": {"name": "c", "namespace": "n", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"schedule": schedule, "startingDeadlineSeconds": deadline, "successfulJobsHistoryLimit": 1, "jobTemplate": {}},
            "status": {"lastScheduleTime": last},
        }))
        .unwrap()
    }

    #[test]
    fn what_was_missed() {
        for (schedule, last, deadline, now, want, count) in [
            ("0 * * * *", None, None, "2026-01-01T00:30:00Z", "none", 0),
            ("0 * * * *", None, None, "2026-01-01T01:00:00Z", "2026-01-01T01:00:00Z", 1),
            (
                "0 * * * *",
                Some("2026-01-01T01:00:00Z"),
                None,
                "2026-01-01T05:30:00Z",
                "2026-01-01T05:00:00Z",
                4,
            ),
            ("0 * * * *", Some("2026-01-01T01:00:00Z"), Some(60), "2026-01-01T05:30:00Z", "none", 0),
            ("* * * * *", None, None, "2026-01-08T00:00:30Z", "2026-01-08T00:00:00Z", 10080),
        ] {
            let schedule_of: Schedule = schedule.parse().unwrap();
            let cron = cron(schedule, last, deadline);
            let got = missed(&cron, &schedule_of, &TimeZone::UTC, now.parse().unwrap(), true).unwrap();
            let last = got.last.map_or("none".into(), |t| t.to_string());
            assert_eq!((last.as_str(), got.count), (want, count), "{schedule} {now}");
        }
    }

    #[test]
    fn a_job_is_named_by_its_minute() {
        let at: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let made = job(&cron("0 * * * *", None, None), at, &TimeZone::UTC);
        assert_eq!(made.name(), "c-29453820");
        assert_eq!(made.annotation(SCHEDULED), Some("2026-01-01T01:00:00Z"));
        let zone = TimeZone::posix("CET-1").unwrap();
        let made = job(&cron("0 * * * *", None, None), at, &zone);
        assert_eq!(made.annotation(SCHEDULED), Some("2026-01-01T02:00:00+01:00"));
    }

    #[test]
    fn the_oldest_jobs_go() {
        let job = |name: &str, how: &str, start: &str| {
            Arc::new(
                serde_json::from_value::<Job>(json!({"metadata": {"name": name},
                    "status": {"startTime": start, "conditions": [{"type": how, "status": "True"}]}}))
                .unwrap(),
            )
        };
        let jobs = [
            job("b", "Complete", "2026-01-01T02:00:00Z"),
            job("a", "Complete", "2026-01-01T01:00:00Z"),
            job("f", "Failed", "2026-01-01T01:00:00Z"),
        ];
        let names: Vec<String> =
            excess(&cron("@hourly", None, None), &jobs).iter().map(|j| j.name().into()).collect();
        assert_eq!(names, ["a"]);
    }
}
