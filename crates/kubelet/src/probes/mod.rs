//! Probes: one task for each probe of a running container, telling the pod's worker when the verdict changes.

pub(crate) mod exec;
mod grpc;
pub mod http;
mod tcp;

use crate::context::Context;
use crate::plan::Probed;
use crate::pod::{Kind, PodExt};
use crate::runtime::observed::{Observed, State};
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// What one probing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Success,
    /// All is well, but something deserves a word.
    Warning(String),
    /// It is not, or the time ran out.
    Failure(String),
    /// The probe itself could not be made.
    Unknown(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Startup,
    Liveness,
    Readiness,
}

impl Which {
    fn name(self) -> &'static str {
        match self {
            Which::Startup => "Startup",
            Which::Liveness => "Liveness",
            Which::Readiness => "Readiness",
        }
    }
}

/// The probes of one pod's running containers. Dropping it stops them.
pub struct Probes {
    poke: Arc<Notify>,
    running: HashMap<String, Set>,
    ending: bool,
}

struct Set {
    verdict: Arc<Mutex<Probed>>,
    /// Startup and liveness probes, whose failure has a container replaced.
    healing: JoinSet<()>,
    _readiness: JoinSet<()>,
}

impl Probes {
    /// `poke` is told when a verdict changes.
    pub fn new(poke: Arc<Notify>) -> Self {
        Probes { poke, running: HashMap::new(), ending: false }
    }

    /// Starts probing containers that run now, stops for those that do not.
    pub fn follow(&mut self, cx: &Arc<Context>, pod: &Arc<Pod>, seen: &Observed) {
        self.running.retain(|id, _| seen.containers.iter().any(|c| c.id == *id && c.state == State::Running));
        for s in seen.containers.iter().filter(|c| c.state == State::Running) {
            if self.running.contains_key(&s.id) {
                continue;
            }
            let Some((kind, c)) = pod.container(&s.name) else { continue };
            let ip = match pod.host_network() {
                true => cx.host_ips().into_iter().next(),
                false => seen.sandbox().and_then(|s| s.ips.first().cloned()),
            };
            // a kubelet that has just started believes what the last one said
            let known = pod.api_status();
            let lists = [&known.container_statuses, &known.init_container_statuses];
            let before = lists.into_iter().flat_map(|l| l.iter().flatten()).find(|b| {
                b.container_id.as_deref().is_some_and(|id| id.ends_with(&s.id))
                    && b.state.as_ref().is_some_and(|s| s.running.is_some())
            });
            let verdict = Probed {
                started: c.startup_probe.is_none() || before.is_some_and(|b| b.started == Some(true)),
                ready: c.readiness_probe.is_none() || before.is_some_and(|b| b.ready),
                ..Probed::default()
            };
            let set = self.spawn(cx, pod, kind, &c, &s.id, s.started_at, ip.unwrap_or_default(), verdict);
            self.running.insert(s.id.clone(), set);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "each is one fact of the container")]
    fn spawn(
        &self,
        cx: &Arc<Context>,
        pod: &Arc<Pod>,
        kind: Kind,
        c: &Container,
        id: &str,
        started_at: i64,
        ip: String,
        verdict: Probed,
    ) -> Set {
        let verdict = Arc::new(Mutex::new(verdict));
        let changed = Arc::new(Notify::new());
        let (mut healing, mut readiness) = (JoinSet::new(), JoinSet::new());
        if matches!(kind, Kind::Regular | Kind::Sidecar) {
            let list = [
                (Which::Startup, &c.startup_probe),
                (Which::Liveness, &c.liveness_probe),
                (Which::Readiness, &c.readiness_probe),
            ];
            for (which, probe) in list {
                let Some(probe) = probe else { continue };
                if self.ending && which != Which::Readiness {
                    continue;
                }
                let prober = Prober {
                    cx: cx.clone(),
                    pod: pod.clone(),
                    container: c.clone(),
                    id: id.to_owned(),
                    started_at,
                    ip: ip.clone(),
                    which,
                    probe: probe.clone(),
                    verdict: verdict.clone(),
                    changed: changed.clone(),
                    poke: self.poke.clone(),
                };
                let tasks = if which == Which::Readiness { &mut readiness } else { &mut healing };
                tasks.spawn(prober.run());
            }
        }
        Set { verdict, healing, _readiness: readiness }
    }

    /// What probes say of each running container.
    pub fn verdicts(&self) -> HashMap<String, Probed> {
        let read = |s: &Set| *s.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        self.running.iter().map(|(id, s)| (id.clone(), read(s))).collect()
    }

    /// Stops startup and liveness probes: the pod is ending, and nothing is to be restarted.
    pub fn ending(&mut self) {
        for s in self.running.values_mut() {
            s.healing.abort_all();
        }
        self.ending = true;
    }

    /// Stops all.
    pub fn clear(&mut self) {
        self.running.clear();
    }
}

struct Prober {
    cx: Arc<Context>,
    pod: Arc<Pod>,
    container: Container,
    id: String,
    started_at: i64,
    ip: String,
    which: Which,
    probe: Probe,
    verdict: Arc<Mutex<Probed>>,
    changed: Arc<Notify>,
    poke: Arc<Notify>,
}

fn seconds(v: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(v.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default))
}

impl Prober {
    fn read(&self) -> Probed {
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut Probed)) {
        let mut v = self.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *v;
        change(&mut v);
        if *v != before {
            drop(v);
            self.poke.notify_one();
            self.changed.notify_waiters();
        }
    }

    async fn run(self) {
        let period = seconds(self.probe.period_seconds, 10);
        let initial = seconds(self.probe.initial_delay_seconds, 0);
        let age = jiff::Timestamp::now().as_nanosecond() as i64 - self.started_at;
        let age = Duration::from_nanos(age.max(0).unsigned_abs());
        let mut wait = initial.saturating_sub(age);
        if age > initial + period {
            // all containers of the node are met at once when the kubelet starts; their probes need not be
            wait = period.mul_f64(rand::random_range(0.0..1.0));
        }
        tokio::time::sleep(wait).await;
        let need = |n: Option<i32>, default: i32| n.filter(|n| *n > 0).unwrap_or(default);
        let (to_fail, to_succeed) =
            (need(self.probe.failure_threshold, 3), need(self.probe.success_threshold, 1));
        // the first probe starts with the container, later ones keep their rhythm
        let mut tick = tokio::time::interval(period);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut run = (true, 0);
        loop {
            tick.tick().await;
            // the others begin when the startup probe is done, and it ends then
            loop {
                let news = self.changed.notified();
                tokio::pin!(news);
                // listening begins before looking, so no change falls between
                news.as_mut().enable();
                if self.which == Which::Startup || self.read().started {
                    break;
                }
                news.await;
            }
            if self.which == Which::Startup && self.read().started {
                return;
            }
            let outcome = self.probe().await;
            let good = match &outcome {
                Outcome::Success => true,
                Outcome::Warning(text) => {
                    self.event(
                        "Warning",
                        "ProbeWarning",
                        &format!("{} probe warning: {text}", self.which.name()),
                    );
                    true
                }
                Outcome::Failure(text) => {
                    self.event(
                        "Warning",
                        "Unhealthy",
                        &format!("{} probe failed: {text}", self.which.name()),
                    );
                    false
                }
                Outcome::Unknown(text) => {
                    self.event(
                        "Warning",
                        "Unhealthy",
                        &format!("{} probe errored and resulted in unknown state: {text}", self.which.name()),
                    );
                    continue;
                }
            };
            run = if run.0 == good { (good, run.1 + 1) } else { (good, 1) };
            if run.1 < if good { to_succeed } else { to_fail } {
                continue;
            }
            match (self.which, good) {
                (Which::Startup, true) => {
                    self.set(|v| v.started = true);
                    return;
                }
                (Which::Startup, false) => {
                    self.set(|v| v.startup_failed = true);
                    return;
                }
                (Which::Liveness, true) => {}
                (Which::Liveness, false) => {
                    self.set(|v| v.liveness_failed = true);
                    return;
                }
                (Which::Readiness, ready) => self.set(|v| v.ready = ready),
            }
        }
    }

    fn event(&self, kind: &str, reason: &str, message: &str) {
        let path = crate::events::container_path(&self.pod, &self.container.name);
        self.cx.events.container(&self.pod, &path, kind, reason, message);
    }

    async fn probe(&self) -> Outcome {
        let limit = seconds(self.probe.timeout_seconds, 1);
        let p = &self.probe;
        if let Some(e) = &p.exec {
            let env = self.container.env.as_deref().unwrap_or_default();
            let command = e.command.iter().flatten().map(|a| {
                crate::runtime::expand::expand(a, |n| {
                    env.iter().find(|e| e.name == n).and_then(|e| e.value.clone())
                })
            });
            return exec::probe(&self.cx.runtime, &self.id, command.collect(), limit).await;
        }
        let probing = async {
            if let Some(h) = &p.http_get {
                return http::probe(&self.container, h, &self.ip).await;
            }
            if let Some(t) = &p.tcp_socket {
                let host = t.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(&self.ip);
                return match port(&self.container, &t.port) {
                    Some(port) => tcp::probe(host, port).await,
                    None => Outcome::Unknown(format!("couldn't find port: {:?}", t.port)),
                };
            }
            if let Some(g) = &p.grpc {
                return grpc::probe(&self.ip, g.port, g.service.as_deref().unwrap_or("")).await;
            }
            Outcome::Unknown("missing probe handler".into())
        };
        match tokio::time::timeout(limit, probing).await {
            Ok(outcome) => outcome,
            Err(_) if p.http_get.is_some() => {
                let url = p.http_get.as_ref().and_then(|h| http::url(&self.container, h, &self.ip));
                let url = url.unwrap_or_default();
                Outcome::Failure(format!(
                    "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                ))
            }
            Err(_) => Outcome::Failure("context deadline exceeded".into()),
        }
    }
}

/// A port by number, or by the name that the container gave it.
pub fn port(c: &Container, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(n) => u16::try_from(*n).ok().filter(|n| *n > 0),
        IntOrString::String(s) => match s.parse::<u16>() {
            Ok(n) => Some(n),
            Err(_) => {
                let named = c.ports.iter().flatten().find(|p| p.name.as_deref() == Some(s))?;
                u16::try_from(named.container_port).ok()
            }
        },
    }
}
