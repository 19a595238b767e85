//! One task for each pod, from its first sight to its last trace: syncing, then terminating, then terminated.
//! It wakes when the pod should change, when the runtime says something changed, or when a probe does; then
//! it looks, reports, and has a job do what the plan says. Jobs take time and can be broken off anywhere.

mod ending;
mod handle;
mod progress;
mod resize;
mod start;
mod stop;

use crate::context::Context;
use crate::plan::{self, Backoff, Step};
use crate::pod::PodExt;
use crate::probes::Probes;
use crate::resize::{Allocation, Pending, is_unfinished, summary};
use crate::runtime::observed::{self, Observed, State};
use crate::status::generate;
use crate::volumes;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tracing::{Instrument, debug};

pub(crate) use ending::clear_away;
use handle::Flags;
pub(crate) use handle::{Desired, End, Handle, spawn};
use progress::{Again, JobEnd, Progress, Retry};

/// How soon a runtime is asked again that says of an ended container that it runs: its books follow its events.
const ASK_AGAIN: Duration = Duration::from_millis(10);
/// How long a container that is being replaced counts as running.
const REPLACED_WITHIN: Duration = Duration::from_secs(1);

/// Where a pod is in its life.
#[derive(Debug)]
enum Stage {
    Syncing,
    Terminating { grace: Duration },
    Terminated { cleaned: bool },
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
    flags: Arc<Flags>,
    seen: Observed,
    seen_out: watch::Sender<Observed>,
    old: PodStatus,
    progress: Arc<Progress>,
    backoff: Backoff,
    probes: Probes,
    stage: Stage,
    job: Option<JoinHandle<JobEnd>>,
    /// Volumes being brought up to date.
    refreshing: Option<JoinHandle<Option<Duration>>>,
    /// The containers the job starts.
    starting: HashSet<String>,
    /// Since when the job replaces a container that ran.
    replacing: Option<Instant>,
    /// What holds up the pod as a whole.
    retry: Retry,
    /// The runtime could not be asked.
    blind: Retry,
    /// What holds up single containers.
    holds: HashMap<String, Retry>,
    /// What holds up a change of what they may use.
    resize_hold: Retry,
    refresh_at: Option<Instant>,
    first_seen: jiff::Timestamp,
    /// Nobody wanted it from the beginning: there is nobody to tell of it.
    orphan: bool,
    /// The API had it as done when the kubelet first saw it.
    was_done: bool,
    /// A container that ended for good on its own, not by our hand.
    finished: bool,
}

/// What made the worker wake up, by what it has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Ask the runtime and act.
    Whole,
    /// Only the API's word has changed: tell what we know.
    Publish,
}

impl Worker {
    fn new(
        cx: Arc<Context>,
        mut desired: watch::Receiver<Desired>,
        poke: Arc<Notify>,
        flags: Arc<Flags>,
        seen_out: watch::Sender<Observed>,
    ) -> Self {
        let d = desired.borrow_and_update().clone();
        let was_done = d.pod.is_terminal();
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
            flags,
            seen: Observed::default(),
            seen_out,
            progress: Arc::default(),
            stage: Stage::Syncing,
            job: None,
            refreshing: None,
            starting: HashSet::new(),
            replacing: None,
            retry: Retry::default(),
            blind: Retry::default(),
            holds: HashMap::new(),
            resize_hold: Retry::default(),
            refresh_at: Some(Instant::now()),
            orphan: d.gone,
            was_done,
            first_seen: jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default(),
            finished: false,
        }
    }

    async fn run(mut self) {
        let mut look = Look::Whole;
        loop {
            match look {
                Look::Publish => {
                    self.publish(!matches!(self.stage, Stage::Syncing | Stage::Terminating { .. }))
                }
                Look::Whole => {
                    // asked before looking: what is made meanwhile may not be seen
                    let settled = !self.progress.is_making();
                    match observed::observe(&self.cx, self.pod.uid(), &self.seen).await {
                        Ok(seen) => {
                            self.saw(seen);
                            if !self.step(settled).await {
                                break;
                            }
                        }
                        Err(e) => {
                            debug!(error = %e, "the runtime could not be asked");
                            self.blind.failed_up_to(Again::Soon, Duration::from_secs(5));
                        }
                    }
                }
            }
            let wake = self.next_wake();
            look = tokio::select! {
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        break; // the kubelet ends; containers go on
                    }
                    self.take_desired().await
                }
                () = self.poke.notified() => Look::Whole,
                end = finished(&mut self.job) => { self.job_ended(end); Look::Whole }
                next = refreshed(&mut self.refreshing) => { self.refreshed(next); Look::Publish }
                () = sleep_until(wake) => { self.time_passed(); Look::Whole }
            };
        }
        if let Some(r) = self.refreshing.take() {
            r.abort();
        }
    }

    fn saw(&mut self, mut seen: Observed) {
        self.blind.worked();
        for c in seen.containers.iter_mut().filter(|c| c.state == State::Exited && c.reason == "Error") {
            if self.cx.exits.ran_out_of_memory(&c.id) {
                c.reason = "OOMKilled".into();
            }
        }
        self.progress.saw(&seen);
        if self.seen != seen {
            self.seen = seen;
            self.seen_out.send_replace(self.seen.clone());
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let syncing = matches!(self.stage, Stage::Syncing);
        let idle = self.job.is_none() && self.refreshing.is_none() && syncing && !self.retry.holds();
        let told = self.replacing.map(|since| since + REPLACED_WITHIN).filter(|t| *t > Instant::now());
        let holds = self.holds.values().chain([&self.resize_hold]).filter_map(|r| r.at).min();
        [
            self.retry.at,
            self.blind.at,
            holds.filter(|_| syncing),
            self.refresh_at.filter(|_| idle),
            self.deadline(),
            self.ask_again(),
            told,
        ]
        .into_iter()
        .flatten()
        .chain(self.wake_from_backoff())
        .min()
    }

    /// What waited for this moment waits no longer.
    fn time_passed(&mut self) {
        let now = Instant::now();
        let all = [&mut self.retry, &mut self.blind, &mut self.resize_hold];
        for r in all.into_iter().chain(self.holds.values_mut()) {
            r.at = r.at.filter(|t| *t > now);
        }
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

    async fn take_desired(&mut self) -> Look {
        let mut d = self.desired.borrow_and_update().clone();
        // why the worker itself ends the pod is not for others to take back
        d.end = d.end.or_else(|| self.end.clone());
        let same = Arc::ptr_eq(&d.pod, &self.pod) || differ_in_status_alone(&d.pod, &self.pod);
        let mut look =
            if same && d.gone == self.gone && d.end == self.end { Look::Publish } else { Look::Whole };
        if !Allocation::of(&self.pod).is_of(&d.pod) {
            self.resizing = d.pod.metadata.generation;
            self.progress.resize(None);
        }
        // what others wrote into the status may be what the pod has to end for
        if d.pod.phase() != self.pod.phase()
            || d.pod.is_terminal()
            || matches!(self.stage, Stage::Terminated { .. })
        {
            look = Look::Whole;
        }
        if d.gone && !self.gone {
            self.retry.at = None;
        }
        (self.pod, self.pending) = (d.pod, d.pending);
        self.gone = d.gone;
        let sooner = d.end != self.end || self.end.is_none() && self.must_end().is_some();
        self.end = d.end;
        if !same {
            self.retry.at = None;
            self.resize_hold.at = None;
            self.holds.clear();
            self.refresh_at = Some(Instant::now());
        }
        if !sooner {
            return look;
        }
        if let Stage::Terminating { grace } = self.stage {
            // only a shorter time makes a difference to a pod that is ending
            if let Some(new) = self.must_end().filter(|g| *g < grace) {
                self.stop_job().await;
                self.stage = Stage::Terminating { grace: new };
                look = Look::Whole;
            }
        }
        look
    }

    /// Breaks the job off. What it has the runtime make is made nevertheless.
    async fn stop_job(&mut self) {
        if let Some(job) = self.job.take() {
            job.abort();
            let _ = job.await;
        }
    }

    fn job_ended(&mut self, end: JobEnd) {
        self.job = None;
        self.replacing = None;
        match end.pod {
            Some(again) => self.retry.failed(again),
            None => self.retry.worked(),
        }
        if end.resize {
            self.resize_hold.failed(Again::Soon);
        } else {
            self.resize_hold.worked();
        }
        for name in std::mem::take(&mut self.starting) {
            if !end.containers.contains_key(&name) {
                self.holds.remove(&name);
            }
        }
        for (name, again) in end.containers {
            self.holds.entry(name).or_default().failed(again);
        }
        if let Some(renew) = end.volumes {
            self.refresh_at = Some(Instant::now() + renew.min(self.cx.config.sync_frequency * 2));
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
            old: &self.old,
            probed: &probed,
            actuated: &self.cx.records.actuated(self.pod.uid()),
            backoff: &self.backoff,
            now: Instant::now(),
            now_nanos,
        })
    }

    /// Acts on what was seen; answers whether there is more to come.
    async fn step(&mut self, settled: bool) -> bool {
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
            Stage::Syncing => self.sync(settled).await,
            Stage::Terminating { grace } => self.terminate(grace, settled).await,
            Stage::Terminated { .. } => {}
        }
        match self.stage {
            Stage::Terminated { cleaned } => self.clean_up(cleaned).await,
            _ => true,
        }
    }

    async fn sync(&mut self, settled: bool) {
        self.probes.follow(&self.cx, &self.pod, &self.seen);
        let mut p = self.plan();
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
                self.terminate(grace, settled).await;
            }
            return;
        }
        self.publish(false);
        if self.flags.stale.swap(false, Ordering::Relaxed) {
            self.retry.at = None;
            self.holds.clear();
            self.refresh_at = Some(Instant::now());
        }
        if self.job.is_some() || self.retry.holds() {
            return;
        }
        // one container that waits does not hold up the others
        let held = |name: &str| self.holds.get(name).is_some_and(Retry::holds);
        p.steps.retain(|s| match s {
            Step::Resize => !self.resize_hold.holds(),
            other => !other.container().is_some_and(held),
        });
        if p.steps.iter().all(|s| *s == Step::Resize) {
            self.refresh();
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
            self.backoff.restarted(name, ended, now);
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

    /// Brings volumes up to date when it is time, beside what else there is to do.
    fn refresh(&mut self) {
        if self.refreshing.is_some() || self.refresh_at.is_none_or(|t| t > Instant::now()) {
            return;
        }
        self.refresh_at = None;
        let (cx, pod) = (self.cx.clone(), self.pod.clone());
        let work = async move {
            match volumes::refresh(&cx, &pod).await {
                Ok(next) => next,
                Err(e) => {
                    cx.events.pod(&pod, "Warning", "FailedMount", &e.to_string());
                    Some(Duration::from_secs(10))
                }
            }
        };
        self.refreshing = Some(tokio::spawn(work.in_current_span()));
    }

    fn refreshed(&mut self, next: Option<Duration>) {
        self.refreshing = None;
        // objects wake the worker when they change; this is for tokens, and in case one was missed
        let wait = next.unwrap_or(Duration::MAX).min(self.cx.config.sync_frequency * 2);
        self.refresh_at.get_or_insert_with(|| Instant::now() + wait);
    }

    fn publish(&mut self, ended: bool) {
        // of what was done before, and has left nothing, the API knows more than is to be seen here
        if self.orphan || self.was_done && self.seen == Observed::default() {
            return;
        }
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

/// Whether two states of a pod are the same to who runs it.
fn differ_in_status_alone(a: &Pod, b: &Pod) -> bool {
    let (m, n) = (&a.metadata, &b.metadata);
    a.spec == b.spec
        && m.labels == n.labels
        && m.annotations == n.annotations
        && m.deletion_timestamp == n.deletion_timestamp
        && m.deletion_grace_period_seconds == n.deletion_grace_period_seconds
}

async fn refreshed(work: &mut Option<JoinHandle<Option<Duration>>>) -> Option<Duration> {
    match work {
        // one that was lost is made again
        Some(w) => w.await.unwrap_or(Some(Duration::from_secs(10))),
        None => std::future::pending().await,
    }
}

async fn finished(job: &mut Option<JoinHandle<JobEnd>>) -> JobEnd {
    match job {
        Some(j) => j.await.unwrap_or(JobEnd { pod: Some(Again::Soon), ..JobEnd::default() }),
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
