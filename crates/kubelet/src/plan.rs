//! What a pod needs next, worked out from the pod and what the runtime has of it. No I/O, no clock.

use crate::pod::{self, Kind, PodExt};
use crate::resize::{self, Allocation, Change};
use crate::runtime::labels::container_hash;
use crate::runtime::observed::{Container as Seen, Observed, State};
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus, Probe};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What probes say of one running container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    /// Its startup probe succeeded, or it has none and runs.
    pub started: bool,
    /// Its readiness probe succeeds, or it has none.
    pub ready: bool,
    /// Its startup probe gave up.
    pub startup_failed: bool,
    /// Its liveness probe gave up.
    pub liveness_failed: bool,
}

/// One thing to do, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Stop all containers and the sandboxes that are up: they are no longer of use.
    StopAll,
    /// Make a sandbox, the n-th.
    CreateSandbox(u32),
    /// Stop one container.
    Kill {
        /// The runtime's id.
        id: String,
        /// Its name.
        name: String,
        /// Why, for the event.
        message: String,
        /// In what time, if not the pod's.
        grace: Option<Duration>,
    },
    /// Remove what is left of a container, so that its name is free.
    Remove {
        /// The runtime's id.
        id: String,
        /// Its name.
        name: String,
    },
    /// Change what running containers and the pod as a whole may use.
    Resize,
    /// Start a container.
    Start {
        /// What kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// How often it ran before.
        restarts: u32,
    },
}

impl Step {
    /// The container it is about, if it is about one.
    pub(crate) fn container(&self) -> Option<&str> {
        match self {
            Step::Kill { name, .. } | Step::Remove { name, .. } | Step::Start { name, .. } => Some(name),
            Step::StopAll | Step::CreateSandbox(_) | Step::Resize => None,
        }
    }
}

/// Steps, and when to look again without being told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// Containers that wait out their back-off, and until when.
    pub backing_off: HashMap<String, Instant>,
    /// Everything the pod had to do is done, or cannot be: it ends.
    pub finished: bool,
}

/// Pauses between restarts: from 10 s, doubling, back to none after ten minutes of running.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    /// When a container was last restarted, and the pause since.
    entries: HashMap<String, (Instant, Duration)>,
    max: Duration,
}

const FIRST_PAUSE: Duration = Duration::from_secs(10);

impl Backoff {
    /// With at most `max` between restarts.
    pub(crate) fn new(max: Duration) -> Self {
        Backoff { entries: HashMap::new(), max }
    }

    /// Whether what is known of earlier restarts counts for a container that ended at `ended`.
    fn counts(&self, restarted: Instant, ended: Instant) -> bool {
        ended.saturating_duration_since(restarted) <= self.max * 2
    }

    /// Until when a container that ended at `ended` waits; `None` when it may start.
    pub(crate) fn until(&self, name: &str, ended: Instant, now: Instant) -> Option<Instant> {
        let (restarted, pause) = self.entries.get(name)?;
        let until = ended + *pause;
        (until > now && self.counts(*restarted, ended)).then_some(until)
    }

    /// How long the current pause is.
    pub(crate) fn pause(&self, name: &str) -> Duration {
        self.entries.get(name).map_or(Duration::ZERO, |(_, p)| *p)
    }

    /// Notes that a container that had ended at `ended` is restarted now.
    pub(crate) fn restarted(&mut self, name: &str, ended: Instant, now: Instant) {
        let pause = match self.entries.get(name) {
            Some((last, pause)) if self.counts(*last, ended) => (*pause * 2).min(self.max),
            _ => FIRST_PAUSE.min(self.max),
        };
        self.entries.insert(name.to_owned(), (now, pause));
    }
}

/// What the plan is made from.
pub struct Inputs<'a> {
    /// What should be.
    pub pod: &'a Pod,
    /// What is.
    pub seen: &'a Observed,
    /// What was last told of it.
    pub old: &'a PodStatus,
    /// What probes say, by container id.
    pub probed: &'a HashMap<String, Probed>,
    /// What containers were given.
    pub actuated: &'a Allocation,
    /// Who waits.
    pub backoff: &'a Backoff,
    /// The clock that `backoff` goes by.
    pub now: Instant,
    /// The wall clock in nanoseconds since the epoch, as the runtime counts.
    pub now_nanos: i64,
}

/// When a container ended, on the clock that back-off goes by.
pub fn ended_at(c: &Seen, now: Instant, now_nanos: i64) -> Instant {
    let ago = now_nanos.saturating_sub(c.finished_at.max(c.created_at)).max(0);
    now.checked_sub(Duration::from_nanos(ago.unsigned_abs())).unwrap_or(now)
}

/// What a pod needs next.
pub fn plan(i: &Inputs<'_>) -> Plan {
    let mut p = Plan::default();
    match usable_sandbox(i) {
        Some(sandbox) => {
            in_sandbox(i, &sandbox, &mut p);
            if !p.finished && resize::is_unfinished(i.pod, i.seen, i.actuated) {
                p.steps.push(Step::Resize);
                // what goes makes room, and what comes needs it
                p.steps.sort_by_key(|s| match s {
                    Step::Start { .. } => 2,
                    Step::Resize => 1,
                    _ => 0,
                });
            }
        }
        None => new_sandbox(i, &mut p),
    }
    p
}

/// The one sandbox that is up and has what it needs.
fn usable_sandbox(i: &Inputs<'_>) -> Option<String> {
    let newest = i.seen.sandbox()?;
    let only_one = i.seen.sandboxes.iter().filter(|s| s.ready).count() == 1;
    let has_address = i.pod.host_network() || !newest.ips.is_empty();
    (newest.ready && only_one && has_address).then(|| newest.id.clone())
}

fn new_sandbox(i: &Inputs<'_>, p: &mut Plan) {
    if i.seen.any_running() {
        p.steps.push(Step::StopAll);
    }
    let attempt = i.seen.sandbox().map_or(0, |s| s.attempt + 1);
    let policy = i.pod.restart_policy();
    if policy == "Never" && attempt > 0 && !i.seen.containers.is_empty() {
        p.finished = true;
        return;
    }
    let spec = i.pod.spec();
    let done = |c: &Container| {
        i.seen.container(&c.name).is_some_and(|s| {
            s.state == State::Exited && !pod::restarts(c, Kind::Regular, policy, s.exit_code)
        })
    };
    let to_start: Vec<&Container> = spec.containers.iter().filter(|c| !done(c)).collect();
    if to_start.is_empty() && spec.containers.iter().any(|c| i.seen.container(&c.name).is_some()) {
        p.finished = true;
        return;
    }
    p.steps.push(Step::CreateSandbox(attempt));
    if let Some(first) = i.pod.init_containers().first() {
        start(i, p, first, pod::init_kind(first));
        return;
    }
    for c in to_start {
        start(i, p, c, Kind::Regular);
    }
}

/// Starts a container, or notes that it waits.
fn start(i: &Inputs<'_>, p: &mut Plan, c: &Container, kind: Kind) {
    let last = i.seen.container(&c.name);
    if let Some(s) = last {
        if let Some(until) = i.backoff.until(&c.name, ended_at(s, i.now, i.now_nanos), i.now) {
            p.backing_off.insert(c.name.clone(), until);
            return;
        }
        if s.state == State::Created {
            // made by a kubelet that ended before it could start it
            p.steps.push(Step::Remove { id: s.id.clone(), name: c.name.clone() });
        }
    }
    let restarts = match last {
        Some(s) if s.state == State::Created => s.restarts,
        Some(s) => s.restarts + 1,
        None => lost_restarts(i, kind, &c.name),
    };
    p.steps.push(Step::Start { kind, name: c.name.clone(), restarts });
}

/// How often a container ran of which the runtime has nothing any more; its logs may be there still.
fn lost_restarts(i: &Inputs<'_>, kind: Kind, name: &str) -> u32 {
    let list = match kind {
        Kind::Regular | Kind::Ephemeral => &i.old.container_statuses,
        Kind::Init | Kind::Sidecar => &i.old.init_container_statuses,
    };
    let Some(s) = list.iter().flatten().find(|s| s.name == name) else { return 0 };
    let ran = s.state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some());
    u32::try_from(s.restart_count).unwrap_or(0) + u32::from(ran)
}

/// Why a running container has to go.
struct Doom {
    message: String,
    /// It comes back whatever the policy.
    always: bool,
    /// In what time it ends, where the probe that failed says so.
    grace: Option<Duration>,
}

impl Doom {
    fn changed(message: String) -> Self {
        Doom { message, always: true, grace: None }
    }

    fn failed(message: String, probe: Option<&Probe>) -> Self {
        let secs = probe.and_then(|p| p.termination_grace_period_seconds).and_then(|s| u32::try_from(s).ok());
        Doom { message, always: false, grace: secs.map(|s| Duration::from_secs(s.into())) }
    }
}

/// Why a running container has to go, if it has to.
fn must_die(i: &Inputs<'_>, c: &Container, s: &Seen) -> Option<Doom> {
    let probed = i.probed.get(&s.id).copied().unwrap_or_default();
    if !s.hash.is_empty() && s.hash != container_hash(c) {
        Some(Doom::changed(format!("Container {} definition changed", c.name)))
    } else if resize::change(i.pod, c, i.actuated) == Change::Restart {
        Some(Doom::changed(format!("Container {} resize requires restart", c.name)))
    } else if probed.liveness_failed {
        Some(Doom::failed(format!("Container {} failed liveness probe", c.name), c.liveness_probe.as_ref()))
    } else if probed.startup_failed {
        Some(Doom::failed(format!("Container {} failed startup probe", c.name), c.startup_probe.as_ref()))
    } else {
        None
    }
}

fn kill(i: &Inputs<'_>, p: &mut Plan, c: &Container, kind: Kind, s: &Seen, why: Doom) {
    let policy = c.restart_policy.as_deref().unwrap_or_else(|| i.pod.restart_policy());
    let again = why.always || kind == Kind::Sidecar || policy != "Never";
    let message = if again { format!("{}, will be restarted", why.message) } else { why.message };
    // one that is being deleted ends in the time it was given
    let grace = why.grace.filter(|_| !i.pod.is_deleted());
    p.steps.push(Step::Kill { id: s.id.clone(), name: c.name.clone(), message, grace });
    if again {
        start(i, p, c, kind);
    }
}

/// Ends a container of which the runtime does not know whether it runs, and starts it again.
fn replace_unknown(i: &Inputs<'_>, p: &mut Plan, c: &Container, kind: Kind, s: &Seen) {
    let message = "Container is in \"unknown\" state, try killing it before restart".to_owned();
    p.steps.push(Step::Kill { id: s.id.clone(), name: c.name.clone(), message, grace: None });
    start(i, p, c, kind);
}

fn in_sandbox(i: &Inputs<'_>, sandbox: &str, p: &mut Plan) {
    for e in i.pod.spec().ephemeral_containers.iter().flatten() {
        if i.seen.container(&e.name).is_none() {
            p.steps.push(Step::Start { kind: Kind::Ephemeral, name: e.name.clone(), restarts: 0 });
        }
    }
    let before_init = p.clone();
    if !init_containers(i, sandbox, p) {
        return;
    }
    let after_init = p.steps.len();
    let mut kept = 0;
    for c in &i.pod.spec().containers {
        let Some(s) = i.seen.container_in(sandbox, &c.name) else {
            // one that ended for good in an earlier sandbox does not come back
            let done = i.seen.container(&c.name).is_some_and(|s| {
                s.state == State::Exited
                    && !pod::restarts(c, Kind::Regular, i.pod.restart_policy(), s.exit_code)
            });
            if !done {
                start(i, p, c, Kind::Regular);
            }
            continue;
        };
        match s.state {
            State::Running => match must_die(i, c, s) {
                Some(why) => kill(i, p, c, Kind::Regular, s, why),
                None => kept += 1,
            },
            State::Exited if !pod::restarts(c, Kind::Regular, i.pod.restart_policy(), s.exit_code) => {}
            State::Exited | State::Created => start(i, p, c, Kind::Regular),
            State::Unknown => replace_unknown(i, p, c, Kind::Regular, s),
        }
    }
    let waiting = i.pod.spec().containers.iter().any(|c| p.backing_off.contains_key(&c.name));
    let starting = p.steps[after_init..].iter().any(|s| matches!(s, Step::Start { .. }));
    if kept == 0 && !starting && !waiting {
        // sidecars do not keep a pod alive
        *p = before_init;
        p.finished = true;
    }
}

/// Plans init containers and sidecars; answers whether the regular containers may run.
fn init_containers(i: &Inputs<'_>, sandbox: &str, p: &mut Plan) -> bool {
    let regular_ran = i.pod.spec().containers.iter().any(|c| i.seen.container_in(sandbox, &c.name).is_some());
    let all = i.pod.init_containers();
    for (n, c) in all.iter().enumerate() {
        let seen = i.seen.container_in(sandbox, &c.name);
        // those after it only began when it had done its part
        let passed =
            regular_ran || all[n + 1..].iter().any(|l| i.seen.container_in(sandbox, &l.name).is_some());
        if pod::init_kind(c) == Kind::Sidecar {
            let up = match seen {
                Some(s) if s.state == State::Running => {
                    if let Some(why) = must_die(i, c, s) {
                        kill(i, p, c, Kind::Sidecar, s, why);
                        false
                    } else {
                        i.probed.get(&s.id).is_some_and(|r| r.started)
                    }
                }
                Some(s) if s.state == State::Unknown => {
                    replace_unknown(i, p, c, Kind::Sidecar, s);
                    false
                }
                _ => {
                    start(i, p, c, Kind::Sidecar);
                    false
                }
            };
            if !up && !passed {
                return false;
            }
            continue;
        }
        if regular_ran {
            continue;
        }
        match seen {
            Some(s) if s.state == State::Running => {
                let why = if !s.hash.is_empty() && s.hash != container_hash(c) {
                    Some("definition changed")
                } else {
                    (resize::change(i.pod, c, i.actuated) == Change::Restart)
                        .then_some("resize requires restart")
                };
                if let Some(why) = why {
                    kill(i, p, c, Kind::Init, s, Doom::changed(format!("Init container {} {why}", c.name)));
                }
                return false;
            }
            Some(s) if s.state == State::Unknown => {
                replace_unknown(i, p, c, Kind::Init, s);
                return false;
            }
            Some(s) if s.state == State::Exited && s.exit_code == 0 => {}
            Some(s)
                if s.state == State::Exited
                    && !pod::restarts(c, Kind::Init, i.pod.restart_policy(), s.exit_code) =>
            {
                p.steps.clear();
                p.finished = true;
                return false;
            }
            // what is left of it was cleared away
            None if passed => {}
            _ => {
                start(i, p, c, Kind::Init);
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::observed::Sandbox;
    use serde_json::json;

    /// Containers are written `name state[:exit][!]`, with `!` for a failed liveness probe; then `old` if it is of an
    /// earlier sandbox, or `small` if it was given nothing.
    fn check(spec: serde_json::Value, sandboxes: &[bool], containers: &[&str], want: &str) {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec}))
            .unwrap_or_else(|e| panic!("{e}"));
        let mut seen = Observed::default();
        let mut probed = HashMap::new();
        for (n, ready) in sandboxes.iter().enumerate().rev() {
            seen.sandboxes.push(Sandbox {
                id: format!("s{n}"),
                ready: *ready,
                attempt: n as u32,
                ips: vec!["1.1.1.1".into()],
                created_at: n as i64,
            });
        }
        let newest = seen.sandboxes.first().map(|s| s.id.clone()).unwrap_or_default();
        for (n, text) in containers.iter().enumerate() {
            let mut words = text.split(' ');
            let (name, state) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            let old = words.next() == Some("old");
            let failed = state.ends_with('!');
            let (state, code) =
                state.trim_end_matches('!').split_once(':').unwrap_or((state.trim_end_matches('!'), "0"));
            let state = match state {
                "running" => State::Running,
                "exited" => State::Exited,
                "created" => State::Created,
                _ => State::Unknown,
            };
            let id = format!("c{n}");
            probed.insert(
                id.clone(),
                Probed {
                    started: state == State::Running,
                    ready: true,
                    liveness_failed: failed,
                    startup_failed: false,
                },
            );
            seen.containers.push(Seen {
                id,
                name: name.into(),
                sandbox: if old { "s0".into() } else { newest.clone() },
                state,
                exit_code: code.parse().unwrap_or(0),
                ..Default::default()
            });
        }
        let backoff = Backoff::new(Duration::from_secs(300));
        let p = plan(&Inputs {
            pod: &pod,
            seen: &seen,
            old: pod.api_status(),
            probed: &probed,
            actuated: &Allocation {
                pod: None,
                containers: containers
                    .iter()
                    .filter(|c| c.ends_with(" small"))
                    .filter_map(|c| Some((c.split(' ').next()?.to_owned(), Default::default())))
                    .collect(),
            },
            backoff: &backoff,
            now: Instant::now(),
            now_nanos: 0,
        });
        let steps: Vec<String> = p
            .steps
            .iter()
            .map(|s| match s {
                Step::StopAll => "stop all".into(),
                Step::CreateSandbox(n) => format!("sandbox {n}"),
                Step::Kill { name, grace: Some(g), .. } => format!("kill {name} in {}", g.as_secs()),
                Step::Kill { name, .. } => format!("kill {name}"),
                Step::Remove { id, .. } => format!("remove {id}"),
                Step::Resize => "resize".into(),
                Step::Start { name, restarts, .. } => format!("start {name} {restarts}"),
            })
            .collect();
        let got = steps.join(", ") + if p.finished { " finished" } else { "" };
        assert_eq!(got.trim(), want, "{spec} {sandboxes:?} {containers:?}");
    }

    #[test]
    fn plans() {
        let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let once = json!({"restartPolicy": "Never", "containers": [{"name": "a"}, {"name": "b"}]});
        let failing = json!({"restartPolicy": "OnFailure", "containers": [{"name": "a"}]});
        let init = json!({"initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "a"}]});
        let init_once = json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
        check(two.clone(), &[], &[], "sandbox 0, start a 0, start b 0");
        check(two.clone(), &[true], &["a running"], "start b 0");
        check(two.clone(), &[true], &["a running", "b running"], "");
        check(two.clone(), &[true], &["a running!", "b exited:1"], "kill a, start a 1, start b 1");
        let probe = json!({"containers": [{"name": "a", "livenessProbe": {"exec": {}, "terminationGracePeriodSeconds": 2}}, {"name": "b"}]});
        check(probe, &[true], &["a running!", "b running!"], "kill a in 2, start a 1, kill b, start b 1");
        let two_inits = json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "i"}], "containers": [{"name": "a"}]});
        check(two_inits.clone(), &[true], &["s exited:1"], "start s 1");
        check(two_inits.clone(), &[true], &["s exited:1", "i exited:0"], "start s 1, start a 0");
        check(two_inits.clone(), &[true], &["i exited:0"], "start s 0, start a 0");
        check(two_inits.clone(), &[true], &["s running", "i unknown"], "kill i, start i 1");
        check(two_inits, &[true], &["s unknown"], "kill s, start s 1");
        check(two.clone(), &[true], &["a running", "b unknown"], "kill b, start b 1");
        check(two.clone(), &[true], &["a running", "b created"], "remove c1, start b 0");
        check(
            two.clone(),
            &[false],
            &["a exited:2", "b running"],
            "stop all, sandbox 1, start a 1, start b 1",
        );
        check(two, &[true, true], &["a running", "b running"], "stop all, sandbox 2, start a 1, start b 1");
        check(once.clone(), &[true], &["a exited:1", "b running"], "");
        check(once.clone(), &[true], &["a exited:1", "b exited"], "finished");
        check(once.clone(), &[false], &["a exited:1", "b exited"], "finished");
        check(once.clone(), &[false], &[], "sandbox 1, start a 0, start b 0");
        check(once, &[true], &["a running!", "b running"], "kill a");
        let wants = json!({"requests": {"cpu": "1"}});
        let restart = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
        let grown = json!({"restartPolicy": "Never", "initContainers": [{"name": "s", "restartPolicy": "Always", "resources": wants, "resizePolicy": restart}],
            "containers": [{"name": "a", "resources": wants}, {"name": "b", "resources": wants, "resizePolicy": restart}]});
        check(
            grown.clone(),
            &[true],
            &["s running", "a running small", "b running small"],
            "kill b, resize, start b 1",
        );
        check(
            grown.clone(),
            &[true],
            &["s running small", "a running", "b running"],
            "kill s, resize, start s 1",
        );
        check(grown, &[true], &["s running", "a exited small", "b running"], "");
        check(failing.clone(), &[true], &["a exited:1"], "start a 1");
        check(failing, &[true], &["a exited:0"], "finished");
        check(init.clone(), &[], &[], "sandbox 0, start i 0");
        check(init.clone(), &[true], &["i running"], "");
        check(init.clone(), &[true], &["i exited:1"], "start i 1");
        check(init.clone(), &[true], &["i exited:0"], "start s 0");
        check(init.clone(), &[true], &["i exited:0", "s running"], "start a 0");
        check(init.clone(), &[true], &["i exited:0", "s exited:1", "a running"], "start s 1");
        check(
            init,
            &[true, true, true],
            &["i exited:0 old", "s running old"],
            "stop all, sandbox 3, start i 1",
        );
        check(init_once.clone(), &[true], &["i exited:1"], "finished");
        check(init_once, &[true], &["i exited:0"], "start a 0");
    }

    #[test]
    fn a_container_that_vanished_is_counted() {
        for (state, want) in [
            (json!({"running": {}}), 4),
            (json!({"terminated": {"exitCode": 1}}), 4),
            (json!({"waiting": {}}), 3),
        ] {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]},
                "status": {"containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 3, "state": state}]},
            }))
            .unwrap_or_else(|e| panic!("{e}"));
            let seen = Observed {
                sandboxes: vec![Sandbox {
                    id: "s".into(),
                    ready: true,
                    ips: vec!["1.1.1.1".into()],
                    ..Default::default()
                }],
                ..Default::default()
            };
            let p = plan(&Inputs {
                pod: &pod,
                seen: &seen,
                old: pod.api_status(),
                probed: &HashMap::new(),
                actuated: &Allocation::default(),
                backoff: &Backoff::new(Duration::from_secs(300)),
                now: Instant::now(),
                now_nanos: 0,
            });
            assert_eq!(
                p.steps,
                [Step::Start { kind: Kind::Regular, name: "a".into(), restarts: want }],
                "{state}"
            );
        }
    }

    #[test]
    fn pauses_double_and_reset() {
        let mut b = Backoff::new(Duration::from_secs(300));
        let t = Instant::now();
        let at = |secs| t + Duration::from_secs(secs);
        assert_eq!(b.until("a", t, t), None);
        b.restarted("a", t, t);
        assert_eq!(b.until("a", t, t), Some(at(10)));
        b.restarted("a", at(11), at(21));
        assert_eq!(b.pause("a"), Duration::from_secs(20));
        for _ in 0..9 {
            b.restarted("a", at(22), at(30));
        }
        assert_eq!(b.pause("a"), Duration::from_secs(300));
        assert_eq!(b.until("a", at(31), at(32)), Some(at(331)));
        // it ran for 500 s, which is not enough, and then for 601 s
        assert!(b.until("a", at(530), at(531)).is_some());
        assert_eq!(b.until("a", at(631), at(632)), None, "it starts again at once");
        b.restarted("a", at(631), at(632));
        assert_eq!(b.pause("a"), Duration::from_secs(10));
    }
}
