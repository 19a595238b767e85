//! What `kubectl get pods` prints.

use super::or_none;
use crate::check::{list, text};
use crate::core::pod_spec::containers::is_sidecar;
use crate::kind::age_column;
use crate::table::{Column, human_duration};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use serde_json::Value;

pub(super) static COLUMNS: &[Column<Pod>] = &[
    Column::text(
        "Ready",
        "The aggregate readiness state of this pod for accepting traffic.",
        |p: &Pod, _| {
            let row = Row::of(p);
            format!("{}/{}", row.ready, row.total).into()
        },
    ),
    Column::text("Status", "The aggregate status of the containers in this pod.", |p: &Pod, _| {
        Row::of(p).reason.into()
    }),
    Column::text(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
        |p, now| Row::of(p).restarts(now),
    ),
    age_column(),
    Column::text("IP", "Its address.", |p: &Pod, _| {
        or_none(p.status.iter().flat_map(|s| list(&s.pod_ips)).next().map(|i| i.ip.clone()))
    })
    .wide(),
    Column::text("Node", "The node it is on.", |p: &Pod, _| {
        or_none(p.spec.as_ref().and_then(|s| s.node_name.clone()))
    })
    .wide(),
    Column::text("Nominated Node", "The node that is being cleared for it.", |p: &Pod, _| {
        or_none(p.status.as_ref().and_then(|s| s.nominated_node_name.clone()))
    })
    .wide(),
    Column::text("Readiness Gates", "How many of its readiness gates are passed.", |p: &Pod, _| gates(p))
        .wide(),
];

/// What is told of a pod, gathered as upstream's printer does, step by step.
struct Row {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i32,
    last_restart: Option<Timestamp>,
}

fn last_end(s: &ContainerStatus) -> Option<Timestamp> {
    s.last_state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|t| t.0)
}

/// Why a container has ended.
fn ended(s: &ContainerStatus) -> Option<(String, i32)> {
    let t = s.state.as_ref()?.terminated.as_ref()?;
    let why = match (text(&t.reason), t.signal.unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", t.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_string(),
    };
    Some((why, t.exit_code))
}

/// Why a container waits.
fn waiting(s: &ContainerStatus) -> Option<&str> {
    s.state.as_ref()?.waiting.as_ref()?.reason.as_deref().filter(|r| !r.is_empty())
}

impl Row {
    fn of(p: &Pod) -> Row {
        let none = PodStatus::default();
        let status = p.status.as_ref().unwrap_or(&none);
        let inits = p.spec.as_ref().map_or(&[][..], |s| list(&s.init_containers));
        let conditions = list(&status.conditions);
        let is_true = |kind: &str| conditions.iter().any(|c| c.type_ == kind && c.status == "True");
        let (phase, own_reason) = (text(&status.phase), text(&status.reason));
        let gated = |c: &k8s_openapi::api::core::v1::PodCondition| {
            c.type_ == "PodScheduled" && text(&c.reason) == "SchedulingGated"
        };
        let mut row = Row {
            ready: 0,
            total: p.spec.as_ref().map_or(0, |s| s.containers.len())
                + inits.iter().filter(|c| is_sidecar(c)).count(),
            reason: match own_reason {
                _ if conditions.iter().any(gated) => "SchedulingGated",
                "" => phase,
                reason => reason,
            }
            .into(),
            restarts: 0,
            last_restart: None,
        };
        let (mut sidecar_restarts, mut last_sidecar_restart) = (0, None);
        let mut initializing = false;
        for (i, s) in list(&status.init_container_statuses).iter().enumerate() {
            let sidecar = inits.iter().any(|c| c.name == s.name && is_sidecar(c));
            row.restarts += s.restart_count;
            row.last_restart = row.last_restart.max(last_end(s));
            if sidecar {
                sidecar_restarts += s.restart_count;
                last_sidecar_restart = last_sidecar_restart.max(last_end(s));
            }
            let end = ended(s);
            if end.as_ref().is_some_and(|(_, code)| *code == 0) {
                continue;
            }
            if sidecar && s.started == Some(true) {
                row.ready += usize::from(s.ready);
                continue;
            }
            row.reason = match (end, waiting(s)) {
                (Some((why, _)), _) => format!("Init:{why}"),
                (None, Some(why)) if why != "PodInitializing" => format!("Init:{why}"),
                _ => format!("Init:{i}/{}", inits.len()),
            };
            initializing = true;
            break;
        }
        if !initializing || is_true("Initialized") {
            (row.restarts, row.last_restart) = (sidecar_restarts, last_sidecar_restart);
            let (mut running, mut error) = (false, None);
            for s in list(&status.container_statuses).iter().rev() {
                row.restarts += s.restart_count;
                row.last_restart = row.last_restart.max(last_end(s));
                if let Some(why) = waiting(s) {
                    row.reason = why.into();
                } else if let Some((why, code)) = ended(s) {
                    if code != 0 {
                        error = Some(why.clone());
                    }
                    row.reason = why;
                } else if s.ready && s.state.as_ref().is_some_and(|s| s.running.is_some()) {
                    running = true;
                    row.ready += 1;
                }
            }
            if row.reason == "Completed" {
                match error {
                    _ if running && is_true("Ready") => row.reason = "Running".into(),
                    Some(error) => row.reason = error,
                    None if running => row.reason = "NotReady".into(),
                    None => {}
                }
            }
        }
        if p.metadata.deletion_timestamp.is_some() {
            if own_reason == "NodeLost" {
                row.reason = "Unknown".into();
            } else if !matches!(phase, "Succeeded" | "Failed") {
                row.reason = "Terminating".into();
            }
        }
        row
    }

    fn restarts(&self, now: Timestamp) -> Value {
        match self.last_restart {
            Some(last) if self.restarts != 0 => {
                let ago = human_duration(now.as_second() - last.as_second());
                format!("{} ({ago} ago)", self.restarts).into()
            }
            _ => self.restarts.to_string().into(),
        }
    }
}

fn gates(p: &Pod) -> Value {
    let gates = p.spec.as_ref().map_or(&[][..], |s| list(&s.readiness_gates));
    if gates.is_empty() {
        return "<none>".into();
    }
    let conditions = p.status.as_ref().map_or(&[][..], |s| list(&s.conditions));
    let passed = gates
        .iter()
        .filter(|g| {
            conditions.iter().find(|c| c.type_ == g.condition_type).is_some_and(|c| c.status == "True")
        })
        .count();
    format!("{passed}/{}", gates.len()).into()
}
