//! Jobs: runs pods of a template until enough of them have succeeded.
//! Watches Jobs and their pods. A pod that ended keeps a finalizer until it is counted in the Job's status, so
//! that none is counted twice or forgotten, whoever deletes it.

mod decide;
mod indexes;
mod pod;
mod policy;

use crate::common::expectations::Expectations;
use crate::common::owned::{Owned, Owner};
use crate::common::{batch, claim, gone_is_fine, pods, pods::PodControl};
use crate::{Context, Error, Outcome};
use api::ObjectKey;
use client::{Client, Event, EventRecorder, EventType, Lister, ObjectExt, Patch, WorkQueue, object_ref};
use decide::{Decision, Facts, Verdict, decide};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use pod::{is_tracked, untrack};
use policy::Backoff;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

const NAME: &str = "job-controller";
/// Events of pods are collected for so long, as upstream does.
const BATCH: Duration = Duration::from_secs(1);

/// A Job, or a pod that may have lost its Job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    Job(ObjectKey),
    Orphan(ObjectKey),
}

/// What the caches don't show, by Job.
#[derive(Default)]
struct Memory {
    backoff: Backoff,
    /// Pods that were let go.
    untracked: HashSet<String>,
    /// The version of the Job that was written last.
    written: u64,
}

struct Jobs {
    client: Client,
    events: EventRecorder,
    control: PodControl,
    jobs: Lister<Job>,
    pods: Lister<Pod>,
    expected: Arc<Expectations>,
    owned: Owned<Job>,
    memory: Mutex<HashMap<ObjectKey, Memory>>,
}

/// Keeps Jobs.
pub async fn run(ctx: Context) {
    let client = ctx.client(NAME);
    let (jobs, pods) = (ctx.informers.informer::<Job>(), ctx.pods());
    let (events, expected) = (ctx.events(&client, NAME), Arc::<Expectations>::default());
    let this = Arc::new(Jobs {
        control: PodControl { client: client.clone(), events: events.clone() },
        events,
        client,
        jobs: jobs.lister(),
        pods: pods.lister(),
        owned: Owned::by(jobs.lister(), Some(expected.clone())),
        expected,
        memory: Mutex::default(),
    });
    let (for_jobs, for_pods) = (this.clone(), this.clone());
    ctx.controller::<Work>(NAME)
        .on(&jobs, move |event, queue| for_jobs.on_job(event, queue))
        .on(&pods, move |event, queue| for_pods.on_pod(event, queue))
        .run(ctx.workers(NAME, 5), ctx.shutdown, move |work| {
            let this = this.clone();
            async move {
                match work {
                    Work::Job(key) => this.reconcile(key).await,
                    Work::Orphan(key) => this.orphan(key).await,
                }
            }
        })
        .await;
}

fn is_ours(job: &Job) -> bool {
    let manager = job.spec.as_ref().and_then(|s| s.managed_by.as_deref());
    manager.is_none_or(|m| m == "kubernetes.io/job-controller")
}

fn is_finished(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")
}

impl Jobs {
    fn memory(&self) -> MutexGuard<'_, HashMap<ObjectKey, Memory>> {
        self.memory.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn remember<R>(&self, key: &ObjectKey, f: impl FnOnce(&mut Memory) -> R) -> R {
        f(self.memory().entry(key.clone()).or_default())
    }

    fn on_job(&self, event: &Event<Job>, queue: &WorkQueue<Work>) {
        let job = event.object();
        self.owned.owner_changed(event);
        queue.add(Work::Job(job.key()));
        // What it leaves behind must not be held back by our finalizer.
        if event.is_deleted() || is_finished(job) {
            for pod in self.pods.by_index(pods::BY_OWNER, job.uid()).iter().filter(|p| is_tracked(p)) {
                queue.add(Work::Orphan(pod.key()));
            }
        }
    }

    fn on_pod(&self, event: &Event<Pod>, queue: &WorkQueue<Work>) {
        let pod = event.object();
        let ended = pods::is_terminal(pod) || pod.is_deleting() || event.is_deleted();
        let delay = if ended { BATCH } else { Duration::from_millis(50) };
        self.owned.observe(event, |key| queue.add_after(Work::Job(key), delay));
        let lost = match self.owned.owner_of(&**pod) {
            None => pod.controller().is_none_or(|c| c.kind == "Job") && !event.is_deleted(),
            Some(job) => {
                if event.is_deleted() || !is_tracked(pod) {
                    self.remember(&job.key(), |m| m.untracked.remove(pod.uid()));
                }
                is_finished(&job)
            }
        };
        if lost && is_tracked(pod) {
            queue.add(Work::Orphan(pod.key()));
        }
    }

    /// Takes our finalizer from a pod that has no Job any more, or whose Job has ended.
    async fn orphan(&self, key: ObjectKey) -> Outcome {
        let Some(pod) = self.pods.get(&key.namespace, &key.name).filter(|p| is_tracked(p)) else {
            return Ok(None);
        };
        if let Some(owner) = pod.controller() {
            if owner.kind != "Job" {
                return Ok(None);
            }
            let job = self
                .client
                .get_opt::<Job>(pod.namespace(), &owner.name)
                .await?
                .filter(|j| j.uid() == owner.uid);
            if job.is_some_and(|j| !is_ours(&j) || !is_finished(&j)) {
                return Ok(None);
            }
        }
        self.let_go(&pod).await?;
        Ok(None)
    }

    async fn let_go(&self, pod: &Pod) -> Result<(), Error> {
        let patch = Patch::Strategic(untrack());
        match self.client.patch::<Pod>(pod.namespace(), pod.name(), &patch).await {
            Err(e) if e.is_not_found() => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(cached) = self.jobs.get(&key.namespace, &key.name) else {
            self.expected.forget(&key);
            self.memory().remove(&key);
            return Ok(None);
        };
        if !is_ours(&cached) {
            return Ok(None);
        }
        if is_finished(&cached) {
            self.memory().remove(&key);
            return Ok(None);
        }
        let version = cached.resource_version().parse().unwrap_or(u64::MAX);
        if self.remember(&key, |m| version < m.written) {
            return Ok(None); // the event of what we wrote is on its way
        }
        let met = self.expected.met(&key);
        let selector = cached.selector()?;
        let mut candidates = self.pods.by_index(pods::BY_OWNER, cached.uid());
        candidates.extend(self.pods.by_index(pods::BY_OWNER, &pods::orphan_key(cached.namespace())));
        let matches = |p: &Pod| selector.matches_labels(p.metadata.labels.as_ref());
        let mine =
            claim::claim_marked(&self.client, &*cached, candidates, Some(pod::FINALIZER), matches).await?;
        let (backoff, untracked) = self.remember(&key, |m| (m.backoff, m.untracked.clone()));
        let facts = Facts { pods: &mine, untracked: &untracked, met, backoff, now: Timestamp::now() };
        let mut job = (*cached).clone();
        let decision = decide(&mut job, &facts);
        let (result, wait) = self.act(&key, &cached, job, decision).await;
        result?;
        Ok(wait)
    }

    async fn act(
        &self,
        key: &ObjectKey,
        cached: &Job,
        mut job: Job,
        mut d: Decision,
    ) -> (Result<(), Error>, Option<Duration>) {
        let trouble = self.pods_step(key, cached, &mut job, &mut d).await.err();
        for (reason, message) in &d.events {
            self.events.event(&object_ref(cached), EventType::Normal, reason, message.as_str());
        }
        // What is noted brings us back for the rest.
        let verdict = d.verdict.filter(|_| !d.more);
        let tracked = self.track(key, cached, job, d.untrack, verdict, d.backoff).await;
        (tracked.and(trouble.map_or(Ok(()), Err)), d.wait)
    }

    /// Makes and deletes pods; what did not go well is taken out of the status again.
    async fn pods_step(
        &self,
        key: &ObjectKey,
        cached: &Job,
        job: &mut Job,
        d: &mut Decision,
    ) -> Result<(), Error> {
        let status = job.status.get_or_insert_default();
        let mut error: Option<Error> = None;
        let (active, terminating) =
            (status.active.unwrap_or_default(), status.terminating.unwrap_or_default());
        if !d.delete.is_empty() {
            self.expected.expect(key, 0, d.delete.iter().map(|p| p.uid().to_string()));
            let results = join_all(d.delete.iter().map(|p| async {
                // One that is deleted because it is too many is not counted as failed: it is let go first.
                if d.uncounted && is_tracked(p) {
                    self.let_go(p).await?;
                }
                let result = self.control.delete(p, cached).await;
                if result.is_err() {
                    self.expected.deleted(key, p.uid());
                }
                gone_is_fine(result).map_err(Error::from)
            }))
            .await;
            let good = results.iter().filter(|r| r.is_ok()).count() as i32;
            if results.iter().any(Result::is_err) {
                d.verdict = None; // it has not ended as long as pods run
            }
            status.active = Some(active - good).filter(|n| *n > 0);
            status.terminating = Some(terminating + good);
            let ready =
                d.delete.iter().zip(&results).filter(|(p, r)| r.is_ok() && pods::is_ready(p)).count() as i32;
            status.ready = Some(status.ready.unwrap_or_default() - ready);
            error = results.into_iter().find_map(Result::err);
        } else if !d.create.is_empty() {
            let count = d.create.len();
            self.expected.expect(key, count, []);
            let pods = &d.create;
            let (good, failed) = batch::slow_start(count, |i| async move {
                match self.control.create(&pods[i], cached).await {
                    Err(e) if e.is_namespace_terminating() => {
                        self.expected.created(key, 1);
                        Ok(())
                    }
                    other => other.map(drop),
                }
            })
            .await;
            self.expected.created(key, count - good);
            status.active = Some(active + good as i32).filter(|n| *n > 0);
            error = failed.map(Error::from);
        }
        error.map_or(Ok(()), Err)
    }

    /// Counts pods in three steps, each of which may be the last before we die: they are noted in the status by
    /// their ids, let go, and counted.
    async fn track(
        &self,
        key: &ObjectKey,
        cached: &Job,
        mut job: Job,
        untrack: Vec<Arc<Pod>>,
        verdict: Option<Verdict>,
        backoff: Backoff,
    ) -> Result<(), Error> {
        let mut current = cached.status.clone().unwrap_or_default();
        if job.status.as_ref() != Some(&current) {
            job = self.write(key, &job).await?;
            current = job.status.clone().unwrap_or_default();
            self.remember(key, |m| m.backoff = backoff);
        }
        self.remember(key, |m| m.untracked.extend(untrack.iter().map(|p| p.uid().to_string())));
        let results = join_all(untrack.iter().map(|p| self.let_go(p))).await;
        let mut trouble = None;
        for (pod, result) in untrack.iter().zip(results) {
            if let Err(e) = result {
                self.remember(key, |m| m.untracked.remove(pod.uid()));
                trouble = Some(e);
            }
        }
        let untracked = self.remember(key, |m| m.untracked.clone());
        let owned = self.pods.by_index(pods::BY_OWNER, cached.uid());
        let held =
            |uid: &str| owned.iter().any(|p| p.uid() == uid && is_tracked(p) && !untracked.contains(uid));
        let status = job.status.get_or_insert_default();
        decide::count(status, held);
        let finished = trouble.is_none()
            && verdict.as_ref().is_some_and(|v| decide::finish(status, v, Timestamp::now()));
        if job.status.as_ref() != Some(&current) {
            job = self.write(key, &job).await?;
        }
        if let Some(v) = verdict.filter(|_| finished) {
            let (kind, reason, message) = match v.succeeded {
                true => (EventType::Normal, "Completed", "Job completed".to_string()),
                false => (EventType::Warning, v.reason.as_str(), v.message.clone()),
            };
            self.events.event(&object_ref(&job), kind, reason, message);
        }
        trouble.map_or(Ok(()), Err)
    }

    async fn write(&self, key: &ObjectKey, job: &Job) -> Result<Job, Error> {
        let written = self.client.update_status(job).await?;
        let version = written.resource_version().parse().unwrap_or_default();
        self.remember(key, |m| m.written = version);
        Ok(written)
    }
}
