//! How many pods there should be, by what they use, and how fast their number may change.

use crate::common::pods;
use api::time;
use client::ObjectExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::HPAScalingRules;
use k8s_openapi::api::core::v1::Pod;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// What the flags say.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How often each autoscaler is looked at.
    pub period: Duration,
    /// A usage that is off by less is let be.
    pub tolerance: f64,
    /// What a pod uses of the CPU says little for so long after its start.
    pub cpu_initialization: Duration,
    /// A pod that is not ready so long after its start never was.
    pub initial_readiness: Duration,
    /// A workload shrinks only if nothing else was recommended for so long.
    pub stabilization: Duration,
}

impl Default for Settings {
    /// Upstream's.
    fn default() -> Self {
        Settings {
            period: Duration::from_secs(15),
            tolerance: 0.1,
            cpu_initialization: Duration::from_secs(300),
            initial_readiness: Duration::from_secs(30),
            stabilization: Duration::from_secs(300),
        }
    }
}

/// Without rules of its own a workload at most doubles, or gets to four.
const UP_FACTOR: f64 = 2.0;
const UP_LEAST: f64 = 4.0;

/// What a pod used, in thousandths.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub milli: i64,
    pub at: Timestamp,
    pub window: i64,
}

/// What pods used, by name.
pub type Samples = HashMap<String, Sample>;

/// How far above and below its target a usage may be.
#[derive(Clone, Copy, Debug)]
pub struct Tolerances {
    pub up: f64,
    pub down: f64,
}

impl Tolerances {
    fn holds(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// What is measured by.
#[derive(Clone, Copy, Debug)]
pub enum Goal<'a> {
    /// So much a pod.
    Average(i64),
    /// So many percent of what each pod requests.
    Utilization(i32, &'a BTreeMap<String, i64>),
}

#[derive(Debug, PartialEq)]
pub struct Proposal {
    pub replicas: i32,
    /// What a pod uses on average.
    pub average: i64,
    /// In percent of the requests.
    pub utilization: Option<i32>,
}

struct Measured {
    ratio: f64,
    average: i64,
    utilization: Option<i32>,
}

fn measure(samples: &HashMap<String, i64>, goal: Goal<'_>) -> Result<Measured, String> {
    match goal {
        Goal::Average(target) => {
            let total: i64 = samples.values().fold(0, |sum, v| sum.saturating_add(*v));
            let average = total / (samples.len().max(1) as i64);
            Ok(Measured { ratio: average as f64 / target.max(1) as f64, average, utilization: None })
        }
        Goal::Utilization(target, requests) => {
            let (mut used, mut asked, mut count) = (0i64, 0i64, 0);
            for (name, milli) in samples {
                let Some(request) = requests.get(name) else { continue };
                used = used.saturating_add(*milli);
                asked = asked.saturating_add(*request);
                count += 1;
            }
            if asked == 0 {
                return Err("no metrics returned matched known pods".into());
            }
            let percent = i32::try_from(used.saturating_mul(100) / asked).unwrap_or(i32::MAX);
            let ratio = f64::from(percent) / f64::from(target.max(1));
            Ok(Measured { ratio, average: used / count.max(1), utilization: Some(percent) })
        }
    }
}

fn is_unready(pod: &Pod, sample: &Sample, settings: &Settings, now: Timestamp) -> bool {
    let start = pod.status.as_ref().and_then(|s| s.start_time.as_ref());
    let (Some(ready), Some(start)) = (pods::condition(pod, "Ready"), start) else { return true };
    let since = ready.last_transition_time.as_ref().map_or(Timestamp::MIN, |t| t.0);
    let after =
        |t: Timestamp, seconds| t.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    if time::later(start.0, settings.cpu_initialization) > now {
        ready.status == "False" || sample.at < after(since, sample.window)
    } else {
        ready.status == "False" && time::later(start.0, settings.initial_readiness) > since
    }
}

/// How many pods their usage asks for. Pods that are not ready, or that nothing is known of, are taken to use
/// what changes the least. `startup` is given where a pod's usage says little while it starts: of the CPU.
pub fn propose(
    all: &[Arc<Pod>],
    samples: &Samples,
    goal: Goal<'_>,
    startup: Option<&Settings>,
    current: i32,
    tolerances: Tolerances,
    now: Timestamp,
) -> Result<Proposal, String> {
    if all.is_empty() {
        return Err("no pods returned by selector while calculating replica count".into());
    }
    let (mut unready, mut missing, mut ignored) = (HashSet::new(), HashSet::new(), HashSet::new());
    let mut ready = 0;
    for pod in all {
        let name = pod.name().to_string();
        if pod.is_deleting() || pods::phase(pod) == "Failed" {
            ignored.insert(name);
        } else if pods::phase(pod) == "Pending" {
            unready.insert(name);
        } else {
            match samples.get(&name) {
                None => drop(missing.insert(name)),
                Some(sample) if startup.is_some_and(|s| is_unready(pod, sample, s, now)) => {
                    unready.insert(name);
                }
                Some(_) => ready += 1,
            }
        }
    }
    let counts = |name: &String| !unready.contains(name) && !ignored.contains(name);
    let mut used: HashMap<String, i64> =
        samples.iter().filter(|(n, _)| counts(n)).map(|(n, s)| (n.clone(), s.milli)).collect();
    if used.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".into());
    }
    let Measured { ratio, average, utilization } = measure(&used, goal)?;
    let proposal = |replicas| Proposal { replicas, average, utilization };
    let up_with_unready = !unready.is_empty() && ratio > 1.0;
    if !up_with_unready && missing.is_empty() {
        let wanted = if tolerances.holds(ratio) { current } else { ceil(ratio * f64::from(ready)) };
        return Ok(proposal(wanted));
    }
    for name in missing {
        let guess = match goal {
            _ if ratio > 1.0 => 0,
            Goal::Average(target) => target,
            Goal::Utilization(target, requests) => {
                requests.get(&name).copied().unwrap_or_default().saturating_mul(i64::from(target.max(100)))
                    / 100
            }
        };
        if ratio != 1.0 {
            used.insert(name, guess);
        }
    }
    if up_with_unready {
        used.extend(unready.into_iter().map(|name| (name, 0)));
    }
    let again = measure(&used, goal)?.ratio;
    let turned = ratio < 1.0 && again > 1.0 || ratio > 1.0 && again < 1.0;
    let wanted = ceil(again * used.len() as f64);
    let backwards = again < 1.0 && wanted > current || again > 1.0 && wanted < current;
    Ok(proposal(if tolerances.holds(again) || turned || backwards { current } else { wanted }))
}

/// Rounded up, as far as the type holds.
pub fn ceil(value: f64) -> i32 {
    value.ceil() as i32
}

/// How many pods a metric of the whole workload asks for.
pub fn by_ratio(current: i32, ready: usize, ratio: f64, tolerances: Tolerances) -> i32 {
    match current {
        0 => ceil(ratio),
        _ if tolerances.holds(ratio) => current,
        _ => ceil(ratio * ready as f64),
    }
}

/// How many pods a metric of which each pod takes a share asks for.
pub fn by_share(current: i32, usage: i64, target: i64, tolerances: Tolerances) -> i32 {
    let whole = usage as f64 / target.max(1) as f64;
    if tolerances.holds(whole / f64::from(current)) { current } else { ceil(whole) }
}

/// What was recommended and done before.
#[derive(Debug, Default)]
pub struct Memory {
    recommended: Vec<(Timestamp, i32)>,
    /// How many pods came, or went if it is less than nothing.
    changes: Vec<(Timestamp, i32)>,
}

/// What the workload is to have, and what the conditions say of it.
#[derive(Debug, PartialEq)]
pub struct Limited {
    pub replicas: i32,
    /// The reason of AbleToScale, and its message.
    pub able: (&'static str, &'static str),
    /// Whether the number was limited, why, and the message.
    pub limited: (bool, &'static str, &'static str),
}

/// The bounds and the rules of an autoscaler.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    pub min: i32,
    pub max: i32,
    /// How long a recommendation holds before the workload shrinks, if there are no rules.
    pub stabilization: Duration,
    /// Rules for growing and for shrinking; without them upstream's defaults hold.
    pub rules: Option<(&'a HPAScalingRules, &'a HPAScalingRules)>,
}

const WITHIN: (&str, &str) = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_MANY: (&str, &str) =
    ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: (&str, &str) =
    ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const UP_LIMIT: (&str, &str) =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: (&str, &str) =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");

fn ago(now: Timestamp, seconds: i64) -> Timestamp {
    now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN)
}

impl Memory {
    /// What is there counts as recommended when nothing is known yet: a new leader must not shrink at once what was
    /// held up until now.
    pub fn begin(&mut self, current: i32, now: Timestamp) {
        if self.recommended.is_empty() {
            self.recommended.push((now, current));
        }
    }

    /// Notes that the number of pods was changed.
    pub fn changed(&mut self, from: i32, to: i32, now: Timestamp) {
        self.changes.push((now, to.saturating_sub(from)));
        let oldest = ago(now, 3600);
        self.changes.retain(|(at, _)| *at >= oldest);
    }

    /// What a recommendation comes to: it must have been made for long enough, and must not go too far at once.
    pub fn limit(&mut self, current: i32, desired: i32, bounds: Bounds<'_>, now: Timestamp) -> Limited {
        let window = |rules: &HPAScalingRules, otherwise: i32| {
            i64::from(rules.stabilization_window_seconds.unwrap_or(otherwise))
        };
        let usual = i32::try_from(bounds.stabilization.as_secs()).unwrap_or(i32::MAX);
        let (up_window, down_window) = match bounds.rules {
            Some((up, down)) => (window(up, 0), window(down, usual)),
            None => (0, i64::from(usual)),
        };
        let since = |seconds| {
            let cutoff = ago(now, seconds);
            self.recommended.iter().filter(move |(at, _)| *at > cutoff).map(|(_, n)| *n).chain([desired])
        };
        let (least, most) =
            (since(up_window).min().unwrap_or(desired), since(down_window).max().unwrap_or(desired));
        let stable = match bounds.rules {
            Some(_) => current.max(least).min(most.max(least)),
            None => most,
        };
        self.recommended.push((now, desired));
        let oldest = ago(now, up_window.max(down_window));
        self.recommended.retain(|(at, _)| *at >= oldest);
        let able = if stable == desired {
            ("ReadyForNewScale", "recommended size matches current size")
        } else if desired >= current && bounds.rules.is_some() {
            (
                "ScaleUpStabilized",
                "recent recommendations were lower than current one, applying the lowest recent recommendation",
            )
        } else {
            (
                "ScaleDownStabilized",
                "recent recommendations were higher than current one, applying the highest recent recommendation",
            )
        };
        let (replicas, (reason, message)) = match bounds.rules {
            None => {
                let fastest = ceil((UP_FACTOR * f64::from(current)).max(UP_LEAST));
                let (most, why) =
                    if bounds.max > fastest { (fastest, UP_LIMIT) } else { (bounds.max, TOO_MANY) };
                clamp(stable, bounds.min, TOO_FEW, most, why)
            }
            Some((up, down)) => {
                let fastest = self.most(current, up, now).max(current);
                let slowest = self.least(current, down, now).min(current);
                let (most, why_most) =
                    if bounds.max > fastest { (fastest, UP_LIMIT) } else { (bounds.max, TOO_MANY) };
                let (least, why_least) =
                    if bounds.min < slowest { (slowest, DOWN_LIMIT) } else { (bounds.min, TOO_FEW) };
                match stable.cmp(&current) {
                    std::cmp::Ordering::Greater => clamp(stable, i32::MIN, TOO_FEW, most, why_most),
                    std::cmp::Ordering::Less => clamp(stable, least, why_least, i32::MAX, TOO_MANY),
                    std::cmp::Ordering::Equal => (stable, WITHIN),
                }
            }
        };
        Limited { replicas, able, limited: (replicas != stable, reason, message) }
    }

    /// How many pods there were a while ago.
    fn before(&self, current: i32, seconds: i32, now: Timestamp) -> i32 {
        let cutoff = ago(now, seconds.into());
        let changes = self.changes.iter().filter(|(at, _)| *at > cutoff);
        changes.fold(current, |n, (_, change)| n.saturating_sub(*change))
    }

    fn most(&self, current: i32, rules: &HPAScalingRules, now: Timestamp) -> i32 {
        let proposals = rules.policies.iter().flatten().map(|p| {
            let start = self.before(current, p.period_seconds, now);
            match p.type_.as_str() {
                "Pods" => start.saturating_add(p.value),
                _ => ceil(f64::from(start) * (1.0 + f64::from(p.value) / 100.0)),
            }
        });
        let chosen = match rules.select_policy.as_deref() {
            Some("Disabled") => None,
            Some("Min") => proposals.min(),
            _ => proposals.max(),
        };
        chosen.unwrap_or(current)
    }

    fn least(&self, current: i32, rules: &HPAScalingRules, now: Timestamp) -> i32 {
        let proposals = rules.policies.iter().flatten().map(|p| {
            let start = self.before(current, p.period_seconds, now);
            match p.type_.as_str() {
                "Pods" => start.saturating_sub(p.value),
                _ => (f64::from(start) * (1.0 - f64::from(p.value) / 100.0)) as i32,
            }
        });
        let chosen = match rules.select_policy.as_deref() {
            Some("Disabled") => None,
            Some("Min") => proposals.max(),
            _ => proposals.min(),
        };
        chosen.unwrap_or(current)
    }
}

type Reason = (&'static str, &'static str);

fn clamp(n: i32, least: i32, few: Reason, most: i32, many: Reason) -> (i32, Reason) {
    if n < least {
        (least, few)
    } else if n > most {
        (most, many)
    } else {
        (n, WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    fn pod(name: &str, phase: &str) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"containers": []}, "status": {
                "phase": phase, "startTime": "2026-01-01T00:00:00Z",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z"}]}}))
            .unwrap(),
        )
    }

    const T: Tolerances = Tolerances { up: 0.1, down: 0.1 };

    #[test]
    fn usage_asks_for_pods() {
        for (pods, used, want) in [
            ("a b", "a=500 b=500", 2),
            ("a b", "a=900 b=900", 4),
            ("a b", "a=100 b=100", 1),
            ("a b", "a=520 b=520", 2),
            // One that nothing is known of: it is taken to be idle, or just right.
            ("a b", "a=1000", 2),
            ("a b", "a=100", 2),
            // One that is not running yet counts as idle when more are wanted.
            ("a B", "a=1500", 3),
        ] {
            let all: Vec<_> = pods
                .split(' ')
                .map(|n| pod(&n.to_lowercase(), if n == n.to_lowercase() { "Running" } else { "Pending" }))
                .collect();
            let samples: Samples = used
                .split(' ')
                .filter_map(|p| p.split_once('='))
                .map(|(n, v)| (n.into(), Sample { milli: v.parse().unwrap(), at: now(), window: 30 }))
                .collect();
            let requests: BTreeMap<String, i64> = all.iter().map(|p| (p.name().to_string(), 1000)).collect();
            let settings = Settings::default();
            let plain = propose(&all, &samples, Goal::Average(500), None, 2, T, now()).unwrap();
            let share =
                propose(&all, &samples, Goal::Utilization(50, &requests), Some(&settings), 2, T, now())
                    .unwrap();
            assert_eq!(plain.replicas, want, "{pods} {used}");
            if used != "a=100" {
                assert_eq!(share.replicas, want, "{pods} {used}");
            }
        }
        assert!(propose(&[], &Samples::new(), Goal::Average(1), None, 2, T, now()).is_err());
    }

    #[test]
    fn whole_workloads_are_measured() {
        assert_eq!((by_ratio(3, 3, 1.05, T), by_ratio(3, 2, 2.0, T), by_ratio(0, 0, 2.5, T)), (3, 4, 3));
        assert_eq!((by_share(2, 1000, 500, T), by_share(2, 1600, 500, T)), (2, 4));
    }

    #[test]
    fn numbers_change_slowly() {
        let plain = Bounds { min: 2, max: 20, stabilization: Duration::from_secs(300), rules: None };
        let mut memory = Memory::default();
        let at = |s: i64| now().checked_add(SignedDuration::from_secs(s)).unwrap();
        let first = memory.limit(3, 10, plain, at(0));
        assert_eq!((first.replicas, first.limited.1), (6, "ScaleUpLimit"));
        let held = memory.limit(6, 1, plain, at(60));
        assert_eq!((held.replicas, held.able.0), (10, "ScaleDownStabilized"));
        let late = memory.limit(6, 1, plain, at(500));
        assert_eq!((late.replicas, late.limited.1), (2, "TooFewReplicas"));
        let rules = |v| serde_json::from_value::<HPAScalingRules>(v).unwrap();
        let up = rules(
            json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}),
        );
        let down = rules(
            json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}]}),
        );
        let ruled =
            Bounds { min: 1, max: 20, stabilization: Duration::from_secs(300), rules: Some((&up, &down)) };
        let mut memory = Memory::default();
        assert_eq!(memory.limit(4, 9, ruled, at(0)).replicas, 5);
        memory.changed(4, 5, at(0));
        assert_eq!(memory.limit(5, 9, ruled, at(10)).replicas, 5);
        assert_eq!(memory.limit(5, 9, ruled, at(70)).replicas, 6);
        assert_eq!(memory.limit(8, 1, ruled, at(200)).replicas, 4);
    }

    #[test]
    fn a_new_leader_does_not_shrink_at_once() {
        let bounds = Bounds { min: 1, max: 20, stabilization: Duration::from_secs(300), rules: None };
        let at = |s: i64| now().checked_add(SignedDuration::from_secs(s)).unwrap();
        let mut memory = Memory::default();
        memory.begin(10, at(0));
        assert_eq!(memory.limit(10, 1, bounds, at(0)).replicas, 10);
        memory.begin(10, at(15)); // once only
        assert_eq!(memory.limit(10, 1, bounds, at(290)).replicas, 10);
        assert_eq!(memory.limit(10, 1, bounds, at(310)).replicas, 1);
    }
}
