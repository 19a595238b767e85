//! A pod's status, worked out from what the runtime has of it. No I/O.

use super::conditions;
use crate::plan::Probed;
use crate::pod::{self, Kind, PodExt};
use crate::resize::{self, Allocation, Pending};
use crate::runtime::observed::{Container as Seen, Observed, State};
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, ContainerUser, HostIP, LinuxContainerUser, Pod, PodIP, PodStatus, ResourceRequirements,
    VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::HashMap;

/// Why a container waits: a reason for machines and a message for people.
pub type Waiting = HashMap<String, (String, String)>;

/// What a status is made from.
pub struct Inputs<'a> {
    /// The pod; its own status is what the API has.
    pub pod: &'a Pod,
    /// The status last made, or what the API has.
    pub old: &'a PodStatus,
    /// What the runtime has.
    pub seen: &'a Observed,
    /// What probes say, by container id.
    pub probed: &'a HashMap<String, Probed>,
    /// Who waits for what.
    pub waiting: &'a Waiting,
    /// What containers were given.
    pub actuated: &'a Allocation,
    /// How far a change of that is.
    pub resize: &'a Resize,
    /// The pod is ending, and its containers do not come back.
    pub ending: bool,
    /// Nothing of the pod runs any more.
    pub ended: bool,
    /// Why it failed, decided by the kubelet: reason and message.
    pub failed: Option<&'a (String, String)>,
    /// The node's addresses.
    pub host_ips: &'a [String],
    /// When the kubelet first saw the pod.
    pub first_seen: jiff::Timestamp,
    /// The runtime's name, the prefix of container ids.
    pub runtime_name: &'a str,
    /// Now.
    pub now: jiff::Timestamp,
}

/// How far a change of what containers may use is.
#[derive(Clone, Debug, Default)]
pub struct Resize {
    /// It waits, and why.
    pub pending: Option<Pending>,
    /// Containers are being changed: for which generation, and what was in the way.
    pub in_progress: Option<(i64, Option<String>)>,
}

/// The generation that containers were being changed for when the status was made.
pub fn resizing(status: &PodStatus) -> Option<i64> {
    let found = status.conditions.iter().flatten().find(|c| c.type_ == "PodResizeInProgress")?;
    Some(found.observed_generation.unwrap_or_default())
}

/// Makes the status.
pub fn generate(i: &Inputs<'_>) -> PodStatus {
    let pod = i.pod;
    let of = |kind: fn(Kind) -> bool, old: Option<&Vec<ContainerStatus>>| -> Vec<ContainerStatus> {
        pod.containers()
            .filter(|(k, _)| kind(*k))
            .map(|(k, c)| container(i, k, c, find(old, &c.name)))
            .collect()
    };
    let is_init = |k| matches!(k, Kind::Init | Kind::Sidecar);
    let init = of(is_init, i.old.init_container_statuses.as_ref());
    let regular = of(|k| k == Kind::Regular, i.old.container_statuses.as_ref());
    let ephemeral: Vec<ContainerStatus> = pod
        .spec()
        .ephemeral_containers
        .iter()
        .flatten()
        .map(|e| {
            container(
                i,
                Kind::Ephemeral,
                &pod::from_ephemeral(e),
                find(i.old.ephemeral_container_statuses.as_ref(), &e.name),
            )
        })
        .collect();
    let ran = i.seen.sandbox().is_some_and(|s| {
        pod.spec().containers.iter().any(|c| {
            i.seen
                .container_in(&s.id, &c.name)
                .is_some_and(|c| matches!(c.state, State::Running | State::Exited))
        })
    });
    let mut s = PodStatus {
        phase: Some(phase(i, &init, &regular, ran).into()),
        start_time: i.old.start_time.clone().or(Some(Time(i.first_seen))),
        qos_class: Some(pod.qos().as_str().into()),
        observed_generation: pod.metadata.generation,
        nominated_node_name: pod.api_status().nominated_node_name.clone(),
        resource_claim_statuses: pod.api_status().resource_claim_statuses.clone(),
        host_ip: i.host_ips.first().cloned(),
        host_ips: (!i.host_ips.is_empty())
            .then(|| i.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        ..PodStatus::default()
    };
    let api_phase = pod.phase();
    let terminal = |p: &str| matches!(p, "Succeeded" | "Failed");
    if let Some((reason, message)) = i.failed {
        s.phase = Some("Failed".into());
        (s.reason, s.message) = (Some(reason.clone()), Some(message.clone()).filter(|m| !m.is_empty()));
    }
    // what ended stays ended
    for done in [i.old.phase.as_deref().unwrap_or(""), api_phase] {
        if terminal(done) && !s.phase.as_deref().is_some_and(terminal) {
            s.phase = Some(done.into());
        }
    }
    if terminal(api_phase) {
        s.phase = Some(api_phase.into());
    }
    if i.ended && !pod.is_static() && !s.phase.as_deref().is_some_and(terminal) {
        s.phase = Some("Failed".into());
    }
    // as long as anything of it may run, others must not take the pod for done
    let before = i.old.phase.as_deref().unwrap_or(api_phase);
    if s.phase.as_deref().is_some_and(terminal) && !terminal(before) && !i.ended {
        s.phase = Some(if before.is_empty() { "Pending" } else { before }.into());
        (s.reason, s.message) = (i.old.reason.clone(), i.old.message.clone());
    }
    if s.phase == i.old.phase && s.reason.is_none() {
        s.reason = i.old.reason.clone().or_else(|| pod.api_status().reason.clone());
        s.message = i.old.message.clone().or_else(|| pod.api_status().message.clone());
    }
    let ips: Vec<String> = match i.seen.sandbox() {
        _ if pod.host_network() => i.host_ips.to_vec(),
        Some(sandbox) if !sandbox.ips.is_empty() => sandbox.ips.clone(),
        Some(_) | None => i
            .old
            .pod_ips
            .iter()
            .flatten()
            .map(|p| p.ip.clone())
            .filter(|_| i.seen.sandbox().is_some() || i.ended)
            .collect(),
    };
    s.pod_ip = ips.first().cloned();
    s.pod_ips = (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect());
    let all: Vec<ContainerStatus> = init.iter().chain(&regular).cloned().collect();
    s.conditions = Some(conditions::all(i, s.phase.as_deref().unwrap_or(""), &all, ran));
    let some = |v: Vec<ContainerStatus>| (!v.is_empty()).then_some(v);
    s.init_container_statuses = some(init);
    s.container_statuses = some(regular);
    let (allocated, given) = resize::of_whole(pod, i.actuated);
    s.allocated_resources = Some(allocated).filter(|a| !a.is_empty());
    s.resources = Some(given).filter(|g| *g != ResourceRequirements::default());
    s.ephemeral_container_statuses = some(ephemeral);
    s
}

/// The status of a container by its name.
pub fn find<'a>(list: Option<&'a Vec<ContainerStatus>>, name: &str) -> Option<&'a ContainerStatus> {
    list?.iter().find(|s| s.name == name)
}

/// A moment the runtime gave, or none.
fn time(nanos: i64) -> Option<Time> {
    // the API keeps whole seconds
    (nanos > 0).then(|| jiff::Timestamp::from_second(nanos / 1_000_000_000).ok().map(Time)).flatten()
}

fn terminated(c: &Seen, runtime: &str) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: Some(format!("{runtime}://{}", c.id)),
        exit_code: c.exit_code,
        finished_at: time(c.finished_at).or(Some(Time(jiff::Timestamp::UNIX_EPOCH))),
        started_at: time(c.started_at).or(Some(Time(jiff::Timestamp::UNIX_EPOCH))),
        message: Some(c.message.clone()).filter(|m| !m.is_empty()),
        reason: Some(c.reason.clone()).filter(|r| !r.is_empty()),
        signal: None,
    }
}

fn container(i: &Inputs<'_>, kind: Kind, c: &Container, old: Option<&ContainerStatus>) -> ContainerStatus {
    let mut s = ContainerStatus {
        name: c.name.clone(),
        image: c.image.clone().unwrap_or_default(),
        volume_mounts: mounts(c),
        ..Default::default()
    };
    let mut runs = i.seen.containers.iter().filter(|s| s.name == c.name);
    let waits = |reason: &str, message: &str| ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()).filter(|m| !m.is_empty()),
        }),
        ..Default::default()
    };
    let waiting = i.waiting.get(&c.name);
    let has_init = i.pod.containers().any(|(k, _)| matches!(k, Kind::Init | Kind::Sidecar));
    let default_reason = if has_init && matches!(kind, Kind::Regular | Kind::Init) {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    match runs.next() {
        Some(now) => {
            let probed = i.probed.get(&now.id).copied().unwrap_or_default();
            s.restart_count = i32::try_from(now.restarts).unwrap_or(i32::MAX);
            s.container_id = Some(format!("{}://{}", i.runtime_name, now.id));
            s.image_id = now.image_id.clone();
            if !now.image.is_empty() {
                s.image = now.image.clone();
            }
            s.user = now.user.as_ref().map(|u| ContainerUser {
                linux: Some(LinuxContainerUser {
                    uid: u.uid,
                    gid: u.gid,
                    supplemental_groups: Some(u.supplemental_groups.clone()).filter(|g| !g.is_empty()),
                }),
            });
            s.last_state = runs.find(|r| r.state == State::Exited).map(|r| ContainerState {
                terminated: Some(terminated(r, i.runtime_name)),
                ..Default::default()
            });
            let state = match now.state {
                State::Running => {
                    s.started = Some(kind == Kind::Ephemeral || kind == Kind::Init || probed.started);
                    s.ready = probed.ready
                        && s.started == Some(true)
                        && matches!(kind, Kind::Regular | Kind::Sidecar)
                        && !i.ended;
                    let has = i.actuated.containers.get(&c.name).or(c.resources.as_ref());
                    s.resources = has.map(|has| resize::reported(has, now.resources.as_ref()));
                    ContainerState {
                        running: Some(ContainerStateRunning { started_at: time(now.started_at) }),
                        ..Default::default()
                    }
                }
                State::Created => {
                    let (reason, message) = waiting.map_or((default_reason, ""), |(r, m)| (r, m));
                    waits(reason, message)
                }
                State::Exited => {
                    s.started = Some(false);
                    s.ready = kind == Kind::Init && now.exit_code == 0;
                    let done = ContainerState {
                        terminated: Some(terminated(now, i.runtime_name)),
                        ..Default::default()
                    };
                    match waiting.filter(|_| {
                        !i.ending && pod::restarts(c, kind, i.pod.restart_policy(), now.exit_code)
                    }) {
                        Some((reason, message)) => {
                            s.last_state = Some(done);
                            waits(reason, message)
                        }
                        None => done,
                    }
                }
                State::Unknown => waits(default_reason, ""),
            };
            s.resources = s.resources.or_else(|| c.resources.clone()).or_else(|| Some(Default::default()));
            s.allocated_resources =
                c.resources.as_ref().and_then(|r| r.requests.clone()).filter(|r| !r.is_empty());
            s.state = Some(state);
        }
        None => absent(i, kind, old, waiting, default_reason, waits, &mut s),
    }
    if s.started.is_none() {
        s.started = Some(false);
    }
    s
}

/// The runtime has no container of this name: it is still to come, or it is lost.
fn absent(
    i: &Inputs<'_>,
    kind: Kind,
    old: Option<&ContainerStatus>,
    waiting: Option<&(String, String)>,
    default_reason: &str,
    waits: impl Fn(&str, &str) -> ContainerState,
    s: &mut ContainerStatus,
) {
    let was = old.and_then(|o| o.state.as_ref());
    if let (Some(old), Some(t)) = (old, was.and_then(|w| w.terminated.clone())) {
        // its remains were cleared away; what is known of it stays
        (s.restart_count, s.last_state) = (old.restart_count, old.last_state.clone());
        (s.container_id, s.image_id, s.image) =
            (old.container_id.clone(), old.image_id.clone(), old.image.clone());
        s.ready = kind == Kind::Init && t.exit_code == 0;
        s.state = Some(ContainerState { terminated: Some(t), ..Default::default() });
        return;
    }
    let lost = ContainerStateTerminated {
        reason: Some("ContainerStatusUnknown".into()),
        message: Some("The container could not be located when the pod was terminated".into()),
        exit_code: 137,
        ..Default::default()
    };
    if let Some(old) = old {
        (s.restart_count, s.last_state) = (old.restart_count, old.last_state.clone());
    }
    let was_running = was.is_some_and(|w| w.running.is_some());
    // of those that were never to begin, as an init container failed, nothing is lost
    let begun = if kind == Kind::Regular { initialized(i) } else { has_begun(i, &s.name) };
    if i.ended && !begun {
        let (reason, message) = waiting.map_or((default_reason, ""), |(r, m)| (r, m));
        s.state = Some(waits(reason, message));
        return;
    }
    if i.ended && kind != Kind::Ephemeral {
        if was_running {
            s.restart_count += 1;
        }
        s.state = Some(ContainerState { terminated: Some(lost), ..Default::default() });
        return;
    }
    if was_running {
        let message =
            "The container could not be located when the pod was deleted.  The container used to be Running"
                .to_owned();
        s.last_state = Some(ContainerState {
            terminated: Some(ContainerStateTerminated { message: Some(message), ..lost }),
            ..Default::default()
        });
        s.restart_count += 1;
    }
    let (reason, message) = waiting.map_or((default_reason, ""), |(r, m)| (r, m));
    s.state = Some(waits(reason, message));
}

/// Whether an init container, or one after it, has ever begun.
fn has_begun(i: &Inputs<'_>, name: &str) -> bool {
    let from = i.pod.init_containers().iter().skip_while(|c| c.name != name);
    let old = i.old.init_container_statuses.as_ref();
    from.filter_map(|c| find(old, &c.name)).any(|s| {
        s.last_state.as_ref().is_some_and(|l| l.terminated.is_some())
            || s.state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some())
    })
}

/// Whether the pod came so far that its regular containers were to begin.
fn initialized(i: &Inputs<'_>) -> bool {
    let Some(last) = i.pod.init_containers().last() else { return true };
    let moved = |s: &ContainerStatus| {
        let state = s.state.as_ref();
        s.last_state.as_ref().is_some_and(|l| l.terminated.is_some())
            || state.is_some_and(|s| s.running.is_some() || s.terminated.is_some())
    };
    if i.old.container_statuses.iter().flatten().any(moved) {
        return true;
    }
    let Some(s) = find(i.old.init_container_statuses.as_ref(), &last.name) else { return false };
    let state = s.state.as_ref();
    if pod::init_kind(last) == Kind::Sidecar {
        return state.is_some_and(|s| s.running.is_some()) && s.started == Some(true);
    }
    let ended_well =
        |s: Option<&ContainerState>| s.and_then(|s| s.terminated.as_ref()).is_some_and(|t| t.exit_code == 0);
    ended_well(state) || ended_well(s.last_state.as_ref())
}

fn mounts(c: &Container) -> Option<Vec<VolumeMountStatus>> {
    let list = c.volume_mounts.as_ref().filter(|m| !m.is_empty())?;
    let status = |m: &k8s_openapi::api::core::v1::VolumeMount| VolumeMountStatus {
        name: m.name.clone(),
        mount_path: m.mount_path.clone(),
        read_only: m.read_only.filter(|r| *r),
        // what the runtime could not do was refused; whether "IfPossible" was possible it does not tell
        recursive_read_only: (m.read_only == Some(true)).then(|| match m.recursive_read_only.as_deref() {
            Some("Enabled") => "Enabled".to_owned(),
            _ => "Disabled".to_owned(),
        }),
        ..Default::default()
    };
    Some(list.iter().map(status).collect())
}

/// The pod's phase, by upstream's rules.
fn phase(i: &Inputs<'_>, init: &[ContainerStatus], regular: &[ContainerStatus], ran: bool) -> &'static str {
    let policy = i.pod.restart_policy();
    let state = |s: &ContainerStatus| s.state.clone().unwrap_or_default();
    let last_exit =
        |s: &ContainerStatus| s.last_state.as_ref().and_then(|l| l.terminated.as_ref()).map(|t| t.exit_code);
    let (mut pending_init, mut pending_sidecars, mut init_failed) = (0, 0, false);
    let (mut unknown, mut running, mut waiting) = (0, 0, 0);
    for (c, s) in i.pod.init_containers().iter().zip(init) {
        let now = state(s);
        if pod::init_kind(c) == Kind::Sidecar {
            if now.running.is_some() {
                pending_sidecars += i32::from(s.started != Some(true));
                running += 1;
            } else if now.waiting.is_some() && last_exit(s).is_none() {
                pending_sidecars += 1;
                waiting += 1;
            }
            continue;
        }
        let exit = now
            .terminated
            .as_ref()
            .map(|t| t.exit_code)
            .or_else(|| last_exit(s).filter(|_| now.waiting.is_some()));
        match exit {
            Some(0) => {}
            Some(code) => init_failed |= !pod::restarts(c, Kind::Init, policy, code),
            None => pending_init += 1,
        }
    }
    let (mut stopped, mut succeeded, mut for_good) = (0, 0, 0);
    for (c, s) in i.pod.spec().containers.iter().zip(regular) {
        let now = state(s);
        if now.running.is_some() {
            running += 1;
        } else if let Some(code) = now.terminated.as_ref().map(|t| t.exit_code) {
            stopped += 1;
            succeeded += i32::from(code == 0);
            for_good += i32::from(!pod::restarts(c, Kind::Regular, policy, code));
        } else if now.waiting.is_some() {
            match last_exit(s) {
                Some(code) => {
                    stopped += 1;
                    for_good += i32::from(!pod::restarts(c, Kind::Regular, policy, code));
                }
                None => waiting += 1,
            }
        } else {
            unknown += 1;
        }
    }
    if init_failed {
        return "Failed";
    }
    if pending_init > 0 || (pending_sidecars > 0 && !ran) || waiting > 0 {
        return "Pending";
    }
    if running > 0 && unknown == 0 {
        return "Running";
    }
    if running == 0 && stopped > 0 && unknown == 0 {
        let outcome = if stopped == succeeded { "Succeeded" } else { "Failed" };
        if i.ending && !i.pod.is_static() {
            return outcome;
        }
        return if stopped != for_good { "Running" } else { outcome };
    }
    "Pending"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::observed::Sandbox;
    use serde_json::json;

    /// Containers are written `name state[:exit]`; waiting ones `name reason`.
    fn check(spec: serde_json::Value, containers: &[&str], waiting: &[&str], ending: bool, want: &str) {
        // only what has ended whole is done
        let ended = want.starts_with("Failed") || want.starts_with("Succeeded");
        let s = make(&spec, containers, waiting, ending, ended, None);
        let show = |c: &ContainerStatus| {
            let st = c.state.clone().unwrap_or_default();
            let word = st
                .running
                .map(|_| "running".to_owned())
                .or(st.terminated.map(|t| format!("exit {}", t.exit_code)))
                .or(st.waiting.and_then(|w| w.reason))
                .unwrap_or_default();
            format!("{}={word}{}", c.name, if c.ready { "+" } else { "" })
        };
        let list: Vec<String> = s
            .init_container_statuses
            .iter()
            .flatten()
            .chain(s.container_statuses.iter().flatten())
            .map(show)
            .collect();
        let ready = s
            .conditions
            .iter()
            .flatten()
            .find(|c| c.type_ == "Ready")
            .map(|c| c.status.clone())
            .unwrap_or_default();
        assert_eq!(
            format!("{} {} ready={ready}", s.phase.unwrap_or_default(), list.join(" ")),
            want,
            "{containers:?}"
        );
    }

    fn make(
        spec: &serde_json::Value,
        containers: &[&str],
        waiting: &[&str],
        ending: bool,
        ended: bool,
        failed: Option<&(String, String)>,
    ) -> PodStatus {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec}))
            .unwrap_or_else(|e| panic!("{e}"));
        let mut seen = Observed {
            sandboxes: vec![Sandbox {
                id: "s".into(),
                ready: true,
                ips: vec!["1.1.1.1".into()],
                ..Default::default()
            }],
            ..Default::default()
        };
        let mut probed = HashMap::new();
        for (n, text) in containers.iter().enumerate() {
            let (name, state) = text.split_once(' ').unwrap_or((text, ""));
            let (state, code) = state.split_once(':').unwrap_or((state, "0"));
            let state = match state {
                "running" => State::Running,
                "exited" => State::Exited,
                _ => State::Created,
            };
            let id = format!("c{n}");
            probed.insert(id.clone(), Probed { started: true, ready: true, ..Default::default() });
            seen.containers.push(Seen {
                id,
                name: name.into(),
                sandbox: "s".into(),
                state,
                exit_code: code.parse().unwrap_or(0),
                ..Default::default()
            });
        }
        let waiting: Waiting = waiting
            .iter()
            .filter_map(|w| w.split_once(' '))
            .map(|(n, r)| (n.to_owned(), (r.to_owned(), String::new())))
            .collect();
        generate(&Inputs {
            pod: &pod,
            old: &PodStatus { phase: Some("Pending".into()), ..Default::default() },
            seen: &seen,
            probed: &probed,
            waiting: &waiting,
            actuated: &Allocation::default(),
            resize: &Resize::default(),
            ending,
            ended,
            failed,
            host_ips: &[],
            first_seen: jiff::Timestamp::UNIX_EPOCH,
            runtime_name: "containerd",
            now: jiff::Timestamp::UNIX_EPOCH,
        })
    }

    #[test]
    fn a_pod_is_done_when_nothing_of_it_runs() {
        let two = json!({"restartPolicy": "Never", "containers": [{"name": "a"}, {"name": "b"}]});
        let why = ("DeadlineExceeded".to_owned(), "too long".to_owned());
        let phase = |containers: &[&str], ended| {
            let s = make(&two, containers, &[], true, ended, Some(&why));
            (s.phase.unwrap_or_default(), s.reason.unwrap_or_default())
        };
        assert_eq!(phase(&["a running", "b exited:0"], false), ("Pending".into(), String::new()));
        assert_eq!(phase(&["a exited:137", "b exited:0"], true), ("Failed".into(), why.0.clone()));
    }

    #[test]
    fn what_never_began_is_not_lost() {
        let spec = json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]});
        let s = make(&spec, &["i exited:1"], &[], true, true, None);
        let waits = |list: &Option<Vec<ContainerStatus>>, name: &str| {
            find(list.as_ref(), name).and_then(|s| s.state.clone()).is_some_and(|s| s.waiting.is_some())
        };
        assert_eq!(s.phase.as_deref(), Some("Failed"));
        assert!(waits(&s.container_statuses, "a") && waits(&s.init_container_statuses, "j"));
        assert!(!waits(&s.init_container_statuses, "i"));
        let plain = json!({"containers": [{"name": "a"}]});
        let s = make(&plain, &[], &[], true, true, None);
        assert!(!waits(&s.container_statuses, "a"), "one without init containers was to begin at once");
    }

    #[test]
    fn statuses() {
        let always = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let never = json!({"restartPolicy": "Never", "containers": [{"name": "a"}]});
        let init = json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
        check(always.clone(), &[], &[], false, "Pending a=ContainerCreating b=ContainerCreating ready=False");
        check(
            always.clone(),
            &["a running"],
            &["b ErrImagePull"],
            false,
            "Pending a=running+ b=ErrImagePull ready=False",
        );
        check(
            always.clone(),
            &["a running", "b running"],
            &[],
            false,
            "Running a=running+ b=running+ ready=True",
        );
        check(
            always.clone(),
            &["a running", "b exited:1"],
            &["b CrashLoopBackOff"],
            false,
            "Running a=running+ b=CrashLoopBackOff ready=False",
        );
        check(
            always.clone(),
            &["a exited:1", "b exited:0"],
            &[],
            false,
            "Running a=exit 1 b=exit 0 ready=False",
        );
        check(
            always,
            &["a exited:1", "b exited:0"],
            &["a CrashLoopBackOff"],
            true,
            "Failed a=exit 1 b=exit 0 ready=False",
        );
        check(never.clone(), &["a exited:0"], &[], false, "Succeeded a=exit 0 ready=False");
        check(never, &["a exited:3"], &[], false, "Failed a=exit 3 ready=False");
        check(init.clone(), &["i running"], &[], false, "Pending i=running a=PodInitializing ready=False");
        check(init.clone(), &["i exited:1"], &[], false, "Failed i=exit 1 a=PodInitializing ready=False");
        check(init, &["i exited:0", "a running"], &[], false, "Running i=exit 0+ a=running+ ready=True");
    }
}
