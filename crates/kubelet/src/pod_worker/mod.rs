//! One task for each pod, from its first sight to its last trace: syncing, then terminating, then terminated.
//! It wakes when the pod should change, when the runtime says something changed, or when a probe does; then
//! it looks, reports, and has a job do what the plan says. Jobs take time and can be broken off anywhere.

mod resize;
mod start;
mod stop;

use crate::context::Context;
use crate::plan::{self, Backoff, Step};
use crate::pod::{PodExt, Qos};
use crate::probes::Probes;
use crate::resize::{Allocation, Pending, is_unfinished, summary};
use crate::runtime::observed::{self, Observed, State};
use crate::status::generate::{self, Waiting};
use crate::volumes;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tracing::{Instrument, debug, info, info_span, warn};

/// What should become of a pod.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The pod as it should be, with what it was allocated.
    pub pod: Arc<Pod>,
    /// Why it was not allocated what it wants.
    pub pending: Option<Pending>,
    /// It has to end.
    pub end: Option<End>,
    /// Nobody wants it any more: what is left of it can go.
    pub gone: bool,
}

/// Why and how fast a pod ends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct End {
    /// A shorter time than the pod's own.
    pub grace: Option<Duration>,
    /// The reason and message it fails with, when the kubelet decided so.
    pub failed: Option<(String, String)>,
    /// It was never let run: there is nothing to say of its containers.
    pub rejected: bool,
}

/// The hold on a pod's worker. Dropping it does not stop the pod.
pub struct Handle {
    /// What should become of the pod.
    pub desired: watch::Sender<Desired>,
    poke: Arc<Notify>,
    stale: Arc<AtomicBool>,
    /// What was last seen of it.
    pub seen: watch::Receiver<Observed>,
    task: JoinHandle<()>,
}

impl Handle {
    /// Has the worker look again.
    pub fn poke(&self) {
        self.poke.notify_one();
    }

    /// What the pod's volumes are made from has changed.
    pub fn refresh(&self) {
        self.stale.store(true, Ordering::Relaxed);
        self.poke.notify_one();
    }

    /// Whether the pod is gone without a trace.
    pub fn is_done(&self) -> bool {
        self.task.is_finished()
    }
}

/// How soon a runtime is asked again that says of an ended container that it runs: its books follow its events.
const ASK_AGAIN: Duration = Duration::from_millis(10);
/// How long a container that is being replaced counts as running.
const REPLACED_WITHIN: Duration = Duration::from_secs(1);

/// Starts a worker; `done` is told when it ends.
pub fn spawn(cx: Arc<Context>, desired: Desired, done: Arc<Notify>) -> Handle {
    let poke = Arc::new(Notify::new());
    let (desired_out, desired_in) = watch::channel(desired);
    let (seen_out, seen_in) = watch::channel(Observed::default());
    let stale = Arc::<AtomicBool>::default();
    let worker = Worker::new(cx, desired_in, poke.clone(), stale.clone(), seen_out);
    let span = info_span!("pod", pod = %worker.pod.key());
    let task = tokio::spawn(
        async move {
            worker.run().await;
            done.notify_one();
        }
        .instrument(span),
    );
    Handle { desired: desired_out, poke, stale, seen: seen_in, task }
}

/// Where a pod is in its life.
#[derive(Debug)]
enum Stage {
    Syncing,
    Terminating { grace: Duration },
    Terminated { cleaned: bool },
}

/// What jobs tell the worker while they run.
#[derive(Default)]
pub(crate) struct Progress {
    waiting: Mutex<Waiting>,
    /// Why containers were not given what they are allocated.
    resize: Mutex<Option<String>>,
}

impl Progress {
    fn wait(&self, container: &str, reason: &str, message: &str) {
        let entry = (reason.to_owned(), message.to_owned());
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(container.to_owned(), entry);
    }

    fn clear(&self, container: &str) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(container);
    }

    fn resize(&self, error: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.resize.lock().unwrap_or_else(PoisonError::into_inner), error)
    }

    fn resize_error(&self) -> Option<String> {
        self.resize.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn read(&self) -> Waiting {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a job came to.
pub(crate) enum JobEnd {
    /// All done.
    Done,
    /// Try again then.
    Retry(Option<Instant>),
}

struct Worker {
    cx: Arc<Context>,
    pod: Arc<Pod>,
    pending: Option<Pending>,
    /// The generation of the pod that containers are being changed for.
    resizing: Option<i64>,
    end: Option<End>,
    gone: bool,
    desired: watch::Receiver<Desired>,
    poke: Arc<Notify>,
    stale: Arc<AtomicBool>,
    seen: Observed,
    seen_out: watch::Sender<Observed>,
    old: PodStatus,
    progress: Arc<Progress>,
    backoff: Backoff,
    probes: Probes,
    stage: Stage,
    job: Option<JoinHandle<JobEnd>>,
    /// The containers the job starts.
    starting: HashSet<String>,
    /// Since when the job replaces a container that ran.
    replacing: Option<Instant>,
    retry: Retry,
    refresh_at: Option<Instant>,
    first_seen: jiff::Timestamp,
    /// A container that ended for good on its own, not by our hand.
    finished: bool,
}

/// When to try what failed again: soon, then ever later.
#[derive(Debug, Default)]
struct Retry {
    at: Option<Instant>,
    pause: Duration,
}

impl Retry {
    const FIRST: Duration = Duration::from_millis(500);
    const LAST: Duration = Duration::from_secs(20);

    fn failed(&mut self, at: Option<Instant>) {
        self.pause = (self.pause * 2).clamp(Self::FIRST, Self::LAST);
        self.at = Some(at.unwrap_or_else(|| Instant::now() + self.pause));
    }

    fn worked(&mut self) {
        *self = Retry::default();
    }

    fn holds(&self) -> bool {
        self.at.is_some_and(|t| t > Instant::now())
    }
}

impl Worker {
    fn new(
        cx: Arc<Context>,
        mut desired: watch::Receiver<Desired>,
        poke: Arc<Notify>,
        stale: Arc<AtomicBool>,
        seen_out: watch::Sender<Observed>,
    ) -> Self {
        let d = desired.borrow_and_update().clone();
        Worker {
            probes: Probes::new(poke.clone()),
            backoff: Backoff::new(cx.config.max_restart_period),
            old: d.pod.api_status().clone(),
            resizing: generate::resizing(d.pod.api_status()),
            pod: d.pod,
            pending: d.pending,
            end: d.end,
            gone: d.gone,
            cx,
            desired,
            poke,
            stale,
            seen: Observed::default(),
            seen_out,
            progress: Arc::default(),
            stage: Stage::Syncing,
            job: None,
            starting: HashSet::new(),
            replacing: None,
            retry: Retry::default(),
            refresh_at: Some(Instant::now()),
            first_seen: jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default(),
            finished: false,
        }
    }

    async fn run(mut self) {
        let mut look = true;
        loop {
            if look {
                match observed::observe(&self.cx.runtime, self.pod.uid(), &self.seen).await {
                    Ok(mut seen) => {
                        for c in seen
                            .containers
                            .iter_mut()
                            .filter(|c| c.state == State::Exited && c.reason == "Error")
                        {
                            if self.cx.exits.ran_out_of_memory(&c.id) {
                                c.reason = "OOMKilled".into();
                            }
                        }
                        self.seen = seen;
                        self.seen_out.send_replace(self.seen.clone());
                        if !self.step().await {
                            return;
                        }
                    }
                    Err(e) => {
                        debug!(error = %e, "the runtime could not be asked");
                        self.retry.failed(None);
                    }
                }
            }
            let wake = self.next_wake();
            look = tokio::select! {
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        return; // the kubelet ends; containers go on
                    }
                    self.take_desired().await;
                    true
                }
                () = self.poke.notified() => true,
                end = finished(&mut self.job) => { self.job_ended(end); true }
                () = sleep_until(wake) => { self.retry.at = self.retry.at.filter(|t| *t > Instant::now()); true }
            };
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let deadline = self.deadline();
        let idle = self.job.is_none() && matches!(self.stage, Stage::Syncing) && !self.retry.holds();
        let told = self.replacing.map(|since| since + REPLACED_WITHIN).filter(|t| *t > Instant::now());
        [self.retry.at, self.refresh_at.filter(|_| idle), deadline, self.ask_again(), told]
            .into_iter()
            .flatten()
            .chain(self.wake_from_backoff())
            .min()
    }

    /// When to look again at containers that have ended and do not show it yet.
    fn ask_again(&self) -> Option<Instant> {
        let running = self.seen.containers.iter().filter(|c| c.state == State::Running).map(|c| &c.id);
        let ready = self.seen.sandboxes.iter().filter(|s| s.ready).map(|s| &s.id);
        running.chain(ready).any(|id| self.cx.exits.has_ended(id)).then(|| Instant::now() + ASK_AGAIN)
    }

    fn wake_from_backoff(&self) -> Option<Instant> {
        if self.job.is_some() || !matches!(self.stage, Stage::Syncing) {
            return None;
        }
        let p = self.plan();
        p.backing_off.values().min().copied()
    }

    /// When the pod has run as long as it may.
    fn deadline(&self) -> Option<Instant> {
        if !matches!(self.stage, Stage::Syncing) {
            return None;
        }
        let secs = self.pod.spec().active_deadline_seconds?;
        let started = self.old.start_time.as_ref().map_or(self.first_seen, |t| t.0);
        let ran = jiff::Timestamp::now().duration_since(started).as_secs();
        Some(Instant::now() + Duration::from_secs(u64::try_from(secs - ran).unwrap_or(0)))
    }

    async fn take_desired(&mut self) {
        let d = self.desired.borrow_and_update().clone();
        let changed = !Arc::ptr_eq(&d.pod, &self.pod);
        if !Allocation::of(&self.pod).is_of(&d.pod) {
            self.resizing = d.pod.metadata.generation;
            self.progress.resize(None);
        }
        (self.pod, self.pending) = (d.pod, d.pending);
        self.gone = d.gone;
        let sooner = d.end != self.end || self.end.is_none() && self.must_end().is_some();
        self.end = d.end;
        if changed {
            self.retry.at = None;
            self.refresh_at = Some(Instant::now());
        }
        if !sooner {
            return;
        }
        if let Stage::Terminating { grace } = self.stage {
            // only a shorter time makes a difference to a pod that is ending
            if let Some(new) = self.must_end().filter(|g| *g < grace) {
                self.stop_job().await;
                self.stage = Stage::Terminating { grace: new };
            }
        }
    }

    async fn stop_job(&mut self) {
        if let Some(job) = self.job.take() {
            job.abort();
            let _ = job.await;
        }
    }

    fn job_ended(&mut self, end: JobEnd) {
        self.job = None;
        self.starting.clear();
        self.replacing = None;
        match end {
            JobEnd::Done => self.retry.worked(),
            JobEnd::Retry(at) => self.retry.failed(at),
        }
    }

    /// Whether the pod has to end, and in what time.
    fn must_end(&self) -> Option<Duration> {
        let own = self.pod.grace();
        if let Some(e) = &self.end {
            return Some(e.grace.map_or(own, |g| g.min(own)));
        }
        (self.pod.is_deleted() || self.gone || self.pod.is_terminal()).then_some(own)
    }

    fn plan(&self) -> plan::Plan {
        let now_nanos = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        let probed = self.probes.verdicts();
        plan::plan(&plan::Inputs {
            pod: &self.pod,
            seen: &self.seen,
            probed: &probed,
            actuated: &self.cx.records.actuated(self.pod.uid()),
            backoff: &self.backoff,
            now: Instant::now(),
            now_nanos,
        })
    }

    /// Acts on what was seen; answers whether there is more to come.
    async fn step(&mut self) -> bool {
        if matches!(self.stage, Stage::Syncing) {
            if self.deadline().is_some_and(|d| d <= Instant::now()) && self.end.is_none() {
                let failed = (
                    "DeadlineExceeded".to_owned(),
                    "Pod was active on the node longer than the specified deadline".to_owned(),
                );
                self.cx.events.pod(&self.pod, "Normal", "DeadlineExceeded", &failed.1);
                self.end = Some(End { grace: None, failed: Some(failed), rejected: false });
            }
            if let Some(grace) = self.must_end() {
                self.stop_job().await;
                self.retry.worked();
                self.stage = Stage::Terminating { grace };
            }
        }
        match self.stage {
            Stage::Syncing => self.sync().await,
            Stage::Terminating { grace } => self.terminate(grace).await,
            Stage::Terminated { .. } => {}
        }
        match self.stage {
            Stage::Terminated { cleaned } => self.clean_up(cleaned).await,
            _ => true,
        }
    }

    async fn sync(&mut self) {
        self.probes.follow(&self.cx, &self.pod, &self.seen);
        let p = self.plan();
        for (name, until) in p.backing_off.iter().filter(|(name, _)| !self.starting.contains(*name)) {
            self.note_backoff(name, *until);
        }
        for c in self.seen.containers.iter().filter(|c| c.state == State::Running) {
            self.progress.clear(&c.name);
        }
        self.follow_resize();
        if p.finished {
            self.finished = true;
            self.publish(false);
            let grace = self.pod.grace();
            if !self.pod.is_static() || !self.restarts_forever() {
                self.stage = Stage::Terminating { grace };
                self.terminate(grace).await;
            }
            return;
        }
        self.publish(false);
        if self.stale.swap(false, Ordering::Relaxed) {
            self.retry.at = None;
            self.refresh_at = Some(Instant::now());
        }
        if self.job.is_some() || self.retry.holds() {
            return;
        }
        if p.steps.iter().all(|s| *s == Step::Resize) {
            self.refresh().await;
        }
        if p.steps.is_empty() {
            return;
        }
        self.note_restarts(&p.steps);
        let job = start::Job {
            cx: self.cx.clone(),
            pod: self.pod.clone(),
            seen: self.seen.clone(),
            steps: p.steps,
            progress: self.progress.clone(),
            poke: self.poke.clone(),
        };
        let started = job.steps.iter().filter_map(|s| match s {
            Step::Start { name, .. } => Some(name.clone()),
            _ => None,
        });
        self.starting = started.collect();
        self.replacing = job.steps.iter().any(|s| matches!(s, Step::Kill { .. })).then(Instant::now);
        self.job = Some(tokio::spawn(job.run().in_current_span()));
    }

    /// Notes when containers begin and end to differ from what they are allocated.
    fn follow_resize(&mut self) {
        let generation = self.pod.metadata.generation.unwrap_or_default();
        if is_unfinished(&self.pod, &self.seen, &self.cx.records.actuated(self.pod.uid())) {
            self.resizing.get_or_insert(generation);
        } else if self.job.is_none() && self.resizing.take().is_some() {
            self.progress.resize(None);
            let text = summary("completed", &self.pod, "");
            self.cx.events.pod(&self.pod, "Normal", "ResizeCompleted", &text);
        }
    }

    fn restarts_forever(&self) -> bool {
        self.pod.restart_policy() == "Always"
    }

    /// Puts the back-off of containers about to be restarted one step further.
    fn note_restarts(&mut self, steps: &[Step]) {
        let now = Instant::now();
        let now_nanos = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        for s in steps {
            let Step::Start { name, restarts: 1.., .. } = s else { continue };
            let exited = self.seen.containers.iter().find(|c| c.name == *name && c.state == State::Exited);
            let ended = exited.map_or(now, |c| plan::ended_at(c, now, now_nanos));
            self.backoff.restarted(name, ended);
        }
    }

    fn note_backoff(&self, name: &str, until: Instant) {
        let pause = crate::config::GoDuration(self.backoff.pause(name));
        let message = format!(
            "back-off {pause} restarting failed container={name} pod={}_{}({})",
            self.pod.name(),
            self.pod.namespace(),
            self.pod.uid()
        );
        if self.progress.read().get(name).is_none_or(|(r, _)| r != "CrashLoopBackOff") {
            debug!(container = name, wait = ?until.saturating_duration_since(Instant::now()), "backing off");
            let path = crate::events::container_path(&self.pod, name);
            let note = format!(
                "Back-off restarting failed container {name} in pod {}_{}({})",
                self.pod.name(),
                self.pod.namespace(),
                self.pod.uid()
            );
            self.cx.events.container(&self.pod, &path, "Warning", "BackOff", &note);
        }
        self.progress.wait(name, "CrashLoopBackOff", &message);
    }

    /// Brings volumes up to date when it is time.
    async fn refresh(&mut self) {
        if self.refresh_at.is_none_or(|t| t > Instant::now()) {
            return;
        }
        let next = match volumes::refresh(&self.cx, &self.pod).await {
            Ok(next) => next,
            Err(e) => {
                self.cx.events.pod(&self.pod, "Warning", "FailedMount", &e.to_string());
                Some(Duration::from_secs(10))
            }
        };
        // objects wake the worker when they change; this is for tokens, and in case one was missed
        let wait = next.unwrap_or(Duration::MAX).min(self.cx.config.sync_frequency * 2);
        self.refresh_at = Some(Instant::now() + wait);
    }

    async fn terminate(&mut self, grace: Duration) {
        self.probes.ending();
        self.probes.follow(&self.cx, &self.pod, &self.seen);
        self.publish(false);
        if self.job.is_some() || self.retry.holds() {
            return;
        }
        if self.seen.any_running() {
            let job = stop::Job {
                cx: self.cx.clone(),
                pod: self.pod.clone(),
                seen: self.seen.clone(),
                grace,
                poke: self.poke.clone(),
            };
            self.job = Some(tokio::spawn(job.run().in_current_span()));
            return;
        }
        self.probes.clear();
        self.stage = Stage::Terminated { cleaned: false };
        self.publish(true);
    }

    /// Takes away what the pod had on the node; answers whether the worker has to stay.
    async fn clean_up(&mut self, cleaned: bool) -> bool {
        let uid = self.pod.uid().to_owned();
        if !cleaned {
            // an orphan's class is not known; most of these have nothing to remove
            let cgroups = || {
                [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort]
                    .into_iter()
                    .try_for_each(|q| self.cx.cgroups.remove_pod(q, &uid))
            };
            let with_cause = |e: &dyn std::error::Error| {
                format!("{e}: {}", e.source().map(ToString::to_string).unwrap_or_default())
            };
            let done = volumes::tear_down(&self.cx.config, &uid)
                .map_err(|e| e.to_string())
                .and_then(|()| cgroups().map_err(|e| with_cause(&e)));
            if let Err(e) = done {
                warn!(error = e, "what the pod left could not be cleared away yet");
                self.retry.failed(None);
                return true;
            }
            self.retry.worked();
            self.stage = Stage::Terminated { cleaned: true };
            info!("pod ended");
            self.cx.records.forget(&uid);
            self.cx.status.ended(&self.pod, self.pod.uid());
        } else if self.pod.is_deleted() {
            self.cx.status.ended(&self.pod, self.pod.uid());
        }
        if !self.gone {
            return true;
        }
        for s in &self.seen.sandboxes {
            if let Err(e) = self.cx.runtime.remove_pod_sandbox(&s.id).await {
                warn!(sandbox = s.id, error = %e, "sandbox could not be removed yet");
                self.retry.failed(None);
                return true;
            }
        }
        stop::remove_logs(&self.cx, &self.pod, &self.seen);
        self.cx.images.forget(&uid);
        self.cx.records.forget(&uid);
        self.cx.status.forget(&uid);
        false
    }

    fn publish(&mut self, ended: bool) {
        // A container that is replaced at once was never away, as far as others are told.
        if !ended
            && self.job.is_some()
            && self.replacing.is_some_and(|since| since.elapsed() < REPLACED_WITHIN)
        {
            return;
        }
        let ending = self.finished || !matches!(self.stage, Stage::Syncing);
        let probed: HashMap<_, _> = self.probes.verdicts();
        let waiting = self.progress.read();
        let failed = self.end.as_ref().and_then(|e| e.failed.as_ref());
        let status = generate::generate(&generate::Inputs {
            pod: &self.pod,
            old: &self.old,
            seen: &self.seen,
            probed: &probed,
            waiting: &waiting,
            actuated: &self.cx.records.actuated(self.pod.uid()),
            resize: &generate::Resize {
                pending: self.pending.clone(),
                in_progress: self.resizing.map(|at| (at, self.progress.resize_error())),
            },
            ending,
            ended,
            failed,
            host_ips: &self.cx.host_ips(),
            first_seen: self.first_seen,
            runtime_name: &self.cx.runtime_name(),
            now: jiff::Timestamp::now(),
        });
        let rejected = self.end.as_ref().is_some_and(|e| e.rejected);
        let status = if rejected {
            let own = self.pod.api_status().conditions.clone();
            PodStatus {
                phase: status.phase,
                reason: status.reason,
                message: status.message,
                qos_class: status.qos_class,
                start_time: status.start_time,
                observed_generation: status.observed_generation,
                conditions: own,
                ..PodStatus::default()
            }
        } else {
            status
        };
        if status != self.old {
            self.old = status.clone();
            self.cx.status.set(&self.pod, self.pod.uid(), status);
        }
    }
}

async fn finished(job: &mut Option<JoinHandle<JobEnd>>) -> JobEnd {
    match job {
        Some(j) => j.await.unwrap_or(JobEnd::Retry(None)),
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
