//! From requests and limits to the numbers cgroups take.

use crate::config::Config;
use crate::pod::{self, Kind, PodExt, Qos};
use crate::quantity::{self, Amount};
use cri::types::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

/// The least and most processor shares the kernel takes.
const SHARES: (i64, i64) = (2, 262_144);
/// The least quota the kernel takes, in microseconds.
const MIN_QUOTA: i64 = 1000;
/// From this priority on a pod is critical to its node.
const NODE_CRITICAL: i32 = 2_000_001_000;

/// Processor shares for a number of thousandths of processors.
pub fn shares(milli: i64) -> i64 {
    if milli == 0 { SHARES.0 } else { (milli.saturating_mul(1024) / 1000).clamp(SHARES.0, SHARES.1) }
}

/// Processor time in a period, both in microseconds; 0 means no bound.
pub fn quota(milli: i64, period: i64) -> i64 {
    if milli == 0 { 0 } else { (milli.saturating_mul(period) / 1000).max(MIN_QUOTA) }
}

/// How likely the kernel is to end a container's processes first when memory runs out.
pub fn oom_score_adj(pod: &Pod, c: &Container, kind: Kind, memory_capacity: u64) -> i64 {
    // no API server has put a number to a static pod's class
    let critical =
        pod.is_static() && pod.spec().priority_class_name.as_deref() == Some("system-node-critical");
    if critical || pod.spec().priority.is_some_and(|p| p >= NODE_CRITICAL) {
        return -997;
    }
    let burstable = |c: &Container| {
        let request = quantity::of(c.resources.as_ref().and_then(|r| r.requests.as_ref()), "memory").bytes();
        let adj = 1000
            - 1000_i64.saturating_mul(request) / i64::try_from(memory_capacity.max(1)).unwrap_or(i64::MAX);
        if adj < 1000 - 997 { 1000 - 997 } else { adj.min(999) }
    };
    match pod.qos() {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        // a sidecar must not go before the containers it serves
        Qos::Burstable if kind == Kind::Sidecar => {
            pod.spec().containers.iter().map(burstable).min().unwrap_or(999).min(burstable(c))
        }
        Qos::Burstable => burstable(c),
    }
}

/// The limit that holds for a container: its own, or else the pod's.
pub fn limit(
    pod: Option<&ResourceRequirements>,
    container: Option<&ResourceRequirements>,
    name: &str,
) -> Amount {
    let of = |r: Option<&ResourceRequirements>| quantity::of(r.and_then(|r| r.limits.as_ref()), name);
    let own = of(container);
    if own.is_zero() { of(pod) } else { own }
}

/// Limits of one container.
pub fn container(
    pod: &Pod,
    c: &Container,
    kind: Kind,
    config: &Config,
    memory_capacity: u64,
) -> LinuxContainerResources {
    let requests = c.resources.as_ref().and_then(|r| r.requests.as_ref());
    let limit = |name| limit(pod.spec().resources.as_ref(), c.resources.as_ref(), name);
    let cpu = limit("cpu");
    let request = match requests.is_some_and(|l| l.contains_key("cpu")) {
        true => quantity::of(requests, "cpu"),
        false => quantity::of(c.resources.as_ref().and_then(|r| r.limits.as_ref()), "cpu"),
    };
    let period = i64::try_from(config.cpu_cfs_quota_period.as_micros()).unwrap_or(100_000);
    let mut r = LinuxContainerResources {
        cpu_shares: shares(request.milli()),
        memory_limit_in_bytes: limit("memory").bytes(),
        oom_score_adj: oom_score_adj(pod, c, kind, memory_capacity),
        ..Default::default()
    };
    if config.cpu_cfs_quota && !cpu.is_zero() {
        r.cpu_period = period;
        r.cpu_quota = quota(cpu.milli(), period);
    }
    r
}

/// What cgroups of either version have each in its own way: whether all processes of a container end when it runs
/// out of memory, and that it does not swap.
pub(crate) fn of_kernel(r: &mut LinuxContainerResources, config: &Config, version: u8, bounds_swap: bool) {
    if version == 2 {
        if !config.single_process_oom_kill {
            r.unified.insert("memory.oom.group".into(), "1".into());
        }
        if bounds_swap {
            r.unified.insert("memory.swap.max".into(), "0".into());
        }
    } else if bounds_swap && r.memory_limit_in_bytes > 0 {
        // version 1 bounds memory and swap together
        r.memory_swap_limit_in_bytes = r.memory_limit_in_bytes;
    }
}

/// What a pod as a whole is bounded by, for its cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodLimits {
    /// Processor shares.
    pub shares: i64,
    /// Processor quota and period in microseconds; `None` for no bound.
    pub quota: Option<(i64, i64)>,
    /// Bytes of memory; `None` for no bound.
    pub memory: Option<i64>,
    /// Processes; `None` for no bound.
    pub pids: Option<i64>,
}

/// Limits of a pod.
pub fn of_pod(pod: &Pod, config: &Config) -> PodLimits {
    let period = i64::try_from(config.cpu_cfs_quota_period.as_micros()).unwrap_or(100_000);
    let spec = pod.spec();
    let cpu = pod::limits(spec, "cpu").map(Amount::milli).filter(|m| *m > 0 && config.cpu_cfs_quota);
    let memory = pod::limits(spec, "memory").map(Amount::bytes).filter(|b| *b > 0);
    let best_effort = pod.qos() == Qos::BestEffort;
    PodLimits {
        shares: if best_effort { SHARES.0 } else { shares(pod::requests(spec, "cpu").milli()) },
        quota: cpu.filter(|_| !best_effort).map(|m| (quota(m, period), period)),
        memory: memory.filter(|_| !best_effort),
        pids: (config.pod_pids_limit > 0).then_some(config.pod_pids_limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_of_both_kinds() -> Result<(), crate::config::ConfigError> {
        let flags = <crate::Flags as clap::Parser>::parse_from(["kubelet"]);
        let config = Config::resolve(&flags, Default::default(), "".as_ref())?;
        let mut r = LinuxContainerResources { memory_limit_in_bytes: 7, ..Default::default() };
        of_kernel(&mut r, &config, 1, true);
        assert_eq!((r.memory_swap_limit_in_bytes, r.unified.len()), (7, 0));
        let mut r = LinuxContainerResources::default();
        of_kernel(&mut r, &config, 2, true);
        let has = |k: &str| r.unified.get(k).map(String::as_str);
        assert_eq!((has("memory.oom.group"), has("memory.swap.max")), (Some("1"), Some("0")));
        Ok(())
    }

    #[test]
    fn numbers() {
        for (milli, want) in [(0, 2), (1, 2), (100, 102), (1000, 1024), (10_000_000, 262_144)] {
            assert_eq!(shares(milli), want, "{milli}m");
        }
        for (milli, want) in [(0, 0), (1, 1000), (500, 50_000), (2000, 200_000)] {
            assert_eq!(quota(milli, 100_000), want, "{milli}m");
        }
    }
}
