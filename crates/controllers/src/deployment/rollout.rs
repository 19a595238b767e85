//! How large each ReplicaSet of a Deployment should be next.

use super::revision::{DESIRED, MAX, by_age};
use crate::common::intstr::scaled;
use client::ObjectExt;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, RollingUpdateDeployment};
use std::sync::Arc;

/// What a Deployment's numbers come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// How many pods are wanted.
    pub replicas: i32,
    /// How many more there may be meanwhile.
    pub surge: i32,
    /// How many may be missing meanwhile.
    pub unavailable: i32,
    /// All old ones go before the first new one comes.
    pub recreate: bool,
}

pub fn bounds(d: &Deployment) -> Bounds {
    let Some(spec) = &d.spec else {
        return Bounds { replicas: 0, surge: 0, unavailable: 0, recreate: false };
    };
    let replicas = spec.replicas.unwrap_or(1);
    let strategy = spec.strategy.as_ref();
    if strategy.is_some_and(|s| s.type_.as_deref() == Some("Recreate")) {
        return Bounds { replicas, surge: 0, unavailable: 0, recreate: true };
    }
    let rolling =
        strategy.and_then(|s| s.rolling_update.clone()).unwrap_or_else(RollingUpdateDeployment::default);
    let surge = scaled(rolling.max_surge.as_ref(), replicas, true);
    let unavailable = scaled(rolling.max_unavailable.as_ref(), replicas, false);
    // Shares of few pods may both round to nothing; then one may be missing, or nothing would ever move.
    let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
    Bounds { replicas, surge, unavailable: unavailable.min(replicas), recreate: false }
}

pub fn replicas(rs: &ReplicaSet) -> i32 {
    rs.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub fn available(rs: &ReplicaSet) -> i32 {
    rs.status.as_ref().and_then(|s| s.available_replicas).unwrap_or_default()
}

fn number(rs: &ReplicaSet, annotation: &str) -> Option<i32> {
    rs.annotation(annotation)?.parse().ok()
}

/// A size that a ReplicaSet is to have; also written when only its annotations are old, if `force` says so.
#[derive(Debug, PartialEq)]
pub struct Resize {
    pub set: Arc<ReplicaSet>,
    pub to: i32,
    pub force: bool,
}

fn resize(set: &Arc<ReplicaSet>, to: i32) -> Resize {
    Resize { set: set.clone(), to, force: false }
}

fn active(sets: &[Arc<ReplicaSet>]) -> impl Iterator<Item = &Arc<ReplicaSet>> {
    sets.iter().filter(|rs| replicas(rs) > 0)
}

/// Whether the Deployment's size was changed since its ReplicaSets were sized.
pub fn was_scaled(b: Bounds, all: &[Arc<ReplicaSet>]) -> bool {
    active(all).any(|rs| number(rs, DESIRED).is_some_and(|n| n != b.replicas))
}

/// How large the newest is to be, when it is `current` large and all together have `total`.
pub fn newest(b: Bounds, current: i32, total: i32) -> i32 {
    if b.recreate || current > b.replicas {
        return b.replicas;
    }
    let room = b.replicas + b.surge - total;
    if room <= 0 { current } else { current + room.min(b.replicas - current) }
}

/// How far the old ones shrink in a rolling update: first what is unhealthy, then what the new ones replace.
pub fn shrink_old(b: Bounds, new: Option<&ReplicaSet>, old: &[Arc<ReplicaSet>]) -> Vec<Resize> {
    let old: Vec<&Arc<ReplicaSet>> = active(old).collect(); // oldest first
    let total = old.iter().map(|rs| replicas(rs)).sum::<i32>() + new.map_or(0, replicas);
    let least = b.replicas - b.unavailable;
    let missing = new.map_or(0, |n| replicas(n) - available(n));
    let most = total - least - missing;
    if most <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<i32> = old.iter().map(|rs| replicas(rs)).collect();
    let mut gone = 0;
    for (rs, size) in old.iter().zip(&mut sizes) {
        let unhealthy = (*size - available(rs)).clamp(0, most - gone);
        (*size, gone) = (*size - unhealthy, gone + unhealthy);
    }
    let running = old.iter().map(|rs| available(rs)).sum::<i32>() + new.map_or(0, available);
    let mut spare = (running - least).max(0);
    for size in &mut sizes {
        let step = (*size).min(spare);
        (*size, spare) = (*size - step, spare - step);
    }
    let changed = old.iter().zip(sizes).filter(|(rs, to)| replicas(rs) != *to);
    changed.map(|(rs, to)| resize(rs, to)).collect()
}

/// The sizes after the Deployment itself was scaled, or while it is paused: each ReplicaSet in proportion.
pub fn proportional(
    b: Bounds,
    status_replicas: i32,
    new: Option<&Arc<ReplicaSet>>,
    old: &[Arc<ReplicaSet>],
) -> Vec<Resize> {
    let all: Vec<Arc<ReplicaSet>> = old.iter().chain(new).cloned().collect();
    let running: Vec<&Arc<ReplicaSet>> = active(&all).collect();
    // One that runs, or none: it gets all.
    let single = match running.as_slice() {
        [] => new.or(old.last()),
        [one] => Some(*one),
        _ => None,
    };
    if let Some(rs) = single {
        return if replicas(rs) == b.replicas { vec![] } else { vec![resize(rs, b.replicas)] };
    }
    let saturated = new.is_some_and(|n| {
        replicas(n) == b.replicas && number(n, DESIRED) == Some(b.replicas) && available(n) == b.replicas
    });
    if saturated {
        return active(old).map(|rs| resize(rs, 0)).collect();
    }
    if b.recreate || running.is_empty() {
        return Vec::new();
    }
    let allowed = if b.replicas > 0 { b.replicas + b.surge } else { 0 };
    let to_add = allowed - running.iter().map(|rs| replicas(rs)).sum::<i32>();
    let mut order = running;
    // The larger first; of the same size the newer grows first and the older shrinks first.
    order.sort_by(|x, y| {
        let age = if to_add > 0 { by_age(y, x) } else { by_age(x, y) };
        replicas(y).cmp(&replicas(x)).then(age)
    });
    let mut added = 0;
    let mut sizes = Vec::new();
    for rs in &order {
        let share = fraction(rs, b, status_replicas);
        let left = to_add - added;
        let step = if to_add > 0 { share.min(left) } else { share.max(left) };
        let step = if to_add == 0 || left == 0 { 0 } else { step };
        added += step;
        sizes.push(replicas(rs) + step);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    order.into_iter().zip(sizes).map(|(set, to)| Resize { set: set.clone(), to, force: true }).collect()
}

/// What a ReplicaSet's share of the change is, from how large the Deployment could be when it was sized last.
fn fraction(rs: &ReplicaSet, b: Bounds, status_replicas: i32) -> i32 {
    let size = replicas(rs);
    if b.replicas == 0 {
        return -size;
    }
    let before = number(rs, MAX).filter(|n| *n != 0).unwrap_or(status_replicas);
    if before == 0 {
        return 0;
    }
    (f64::from(size) * f64::from(b.replicas + b.surge) / f64::from(before)).round() as i32 - size
}

/// The old ReplicaSets beyond the history that is kept, oldest revision first; those that still run stay.
pub fn superfluous(d: &Deployment, old: &[Arc<ReplicaSet>]) -> Vec<Arc<ReplicaSet>> {
    let limit = d.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
    if limit == i32::MAX {
        return Vec::new();
    }
    let mut kept: Vec<&Arc<ReplicaSet>> = old.iter().filter(|rs| !rs.is_deleting()).collect();
    kept.sort_by_key(|rs| super::revision::of(&rs.metadata));
    let excess = kept.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
    let idle = |rs: &&Arc<ReplicaSet>| {
        let status = rs.status.clone().unwrap_or_default();
        status.replicas == 0 && replicas(rs) == 0 && rs.metadata.generation <= status.observed_generation
    };
    kept.into_iter().take(excess).filter(idle).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A ReplicaSet: name (also its age), replicas, available, the most its Deployment could have.
    fn set(name: &str, size: i32, available: i32, max: i32) -> Arc<ReplicaSet> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "annotations": {MAX: max.to_string(), DESIRED: "10"}},
                "spec": {"replicas": size, "selector": {}}, "status": {"replicas": size, "availableReplicas": available},
            }))
            .unwrap(),
        )
    }

    fn sizes(v: Vec<Resize>) -> Vec<(String, i32)> {
        v.into_iter().map(|r| (r.set.name().to_string(), r.to)).collect()
    }

    fn b(replicas: i32, surge: i32, unavailable: i32) -> Bounds {
        Bounds { replicas, surge, unavailable, recreate: false }
    }

    #[test]
    fn numbers_are_resolved() {
        for (spec, want) in [
            (
                json!({"replicas": 10, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}}),
                b(10, 3, 2),
            ),
            (
                json!({"replicas": 1, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "25%"}}}),
                b(1, 0, 1),
            ),
            (
                json!({"replicas": 2, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 5}}}),
                b(2, 1, 2),
            ),
            (
                json!({"replicas": 4, "strategy": {"type": "Recreate"}}),
                Bounds { recreate: true, ..b(4, 0, 0) },
            ),
        ] {
            let mut spec = spec;
            spec["selector"] = json!({});
            spec["template"] = json!({});
            assert_eq!(bounds(&serde_json::from_value(json!({"spec": spec})).unwrap()), want, "{spec}");
        }
    }

    #[test]
    fn the_newest_grows_into_the_room_there_is() {
        for (bounds, current, total, want) in [
            (b(10, 3, 2), 0, 10, 3),
            (b(10, 3, 2), 3, 13, 3),
            (b(10, 3, 2), 3, 11, 5),
            (b(10, 3, 2), 9, 9, 10),
            (b(5, 0, 1), 7, 7, 5),
            (b(3, 0, 0), 0, 0, 3),
        ] {
            assert_eq!(newest(bounds, current, total), want, "{bounds:?} {current} {total}");
        }
    }

    #[test]
    fn the_old_shrink_as_the_new_become_available() {
        let old = |a: (i32, i32), c: (i32, i32)| [set("a", a.0, a.1, 0), set("c", c.0, c.1, 0)];
        let new = |size, available| set("n", size, available, 0);
        for (bounds, new, old, want) in [
            (b(10, 3, 2), new(3, 0), old((0, 0), (10, 10)), vec![("c", 8)]),
            (b(10, 3, 2), new(5, 3), old((0, 0), (8, 8)), vec![("c", 5)]),
            (b(10, 3, 2), new(5, 5), old((2, 0), (6, 6)), vec![("a", 0), ("c", 3)]), // unhealthy first
            (b(10, 3, 0), new(3, 0), old((0, 0), (10, 10)), vec![]),
            (b(10, 3, 0), new(10, 10), old((1, 1), (2, 2)), vec![("a", 0), ("c", 0)]),
        ] {
            let got = sizes(shrink_old(bounds, Some(&new), &old));
            assert_eq!(got, want.into_iter().map(|(n, s)| (n.to_string(), s)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn scaling_is_shared_out() {
        let one = |name: &str, size| (name.to_string(), size);
        // One that runs gets all.
        assert_eq!(
            sizes(proportional(b(7, 0, 1), 3, Some(&set("n", 3, 3, 3)), &[set("a", 0, 0, 3)])),
            [one("n", 7)]
        );
        assert_eq!(
            sizes(proportional(b(7, 0, 1), 0, None, &[set("a", 0, 0, 3), set("b", 0, 0, 3)])),
            [one("b", 7)]
        );
        // Upstream's example: 10 with surge 3 to 15, 8 old and 5 new.
        assert_eq!(
            sizes(proportional(b(15, 3, 2), 13, Some(&set("n", 5, 0, 13)), &[set("a", 8, 8, 13)])),
            [one("a", 11), one("n", 7)]
        );
        assert_eq!(
            sizes(proportional(b(0, 3, 2), 13, Some(&set("n", 5, 0, 13)), &[set("a", 8, 8, 13)])),
            [one("a", 0), one("n", 0)]
        );
        assert_eq!(
            sizes(proportional(b(10, 0, 1), 13, Some(&set("n", 10, 10, 10)), &[set("a", 8, 8, 13)])),
            [one("a", 0)]
        );
        assert!(
            was_scaled(b(9, 0, 0), &[set("a", 1, 1, 1)])
                && !was_scaled(b(10, 0, 0), &[set("a", 1, 1, 1), set("b", 0, 0, 0)])
        );
    }
}
