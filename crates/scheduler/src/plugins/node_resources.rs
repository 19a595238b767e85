//! NodeResourcesFit and NodeResourcesBalancedAllocation: arithmetic on columns.

use super::Plugin;
use crate::framework::{MAX_SCORE, Prepared, Reason, Verdict};

/// What is asked for must be there; of nodes that have it, those with more left are better.
pub const FIT: Plugin = Plugin {
    name: "NodeResourcesFit",
    weight: 1,
    filter: |pod, cluster| {
        let (r, c) = (&pod.requests, &cluster.columns);
        let get = |column: &Vec<i64>, at: usize| column.get(at).copied().unwrap_or(0);
        Prepared::Check(Box::new(move |at| {
            let mut reasons: Vec<Reason> = Vec::new();
            let mut never = false;
            if get(&c.used_pods, at) + 1 > get(&c.pods, at) {
                reasons.push("Too many pods".into());
            }
            let mut check = |wanted: i64, all: i64, used: i64, reason: Reason| {
                if wanted > 0 && wanted > all - used {
                    never |= wanted > all;
                    reasons.push(reason);
                }
            };
            check(r.cpu, get(&c.cpu, at), get(&c.used_cpu, at), "Insufficient cpu".into());
            check(r.memory, get(&c.memory, at), get(&c.used_memory, at), "Insufficient memory".into());
            check(
                r.storage,
                get(&c.storage, at),
                get(&c.used_storage, at),
                "Insufficient ephemeral-storage".into(),
            );
            for (name, wanted) in &r.other {
                let row = cluster.rows.get(at);
                let all = row.and_then(|row| row.other.get(name)).copied().unwrap_or(0);
                let used = row.and_then(|row| row.used_other.get(name)).copied().unwrap_or(0);
                check(*wanted, all, used, format!("Insufficient {name}").into());
            }
            match (reasons.is_empty(), never) {
                (true, _) => Verdict::Fits,
                (false, true) => Verdict::Unresolvable(reasons),
                (false, false) => Verdict::Unschedulable(reasons),
            }
        }))
    },
    score: |pod, cluster, nodes| {
        let c = &cluster.columns;
        let score = |at: &usize| {
            let parts = [
                left(pod.assumed.0 + c.assumed_cpu.get(*at)?, *c.cpu.get(*at)?),
                left(pod.assumed.1 + c.assumed_memory.get(*at)?, *c.memory.get(*at)?),
            ];
            let known = parts.iter().flatten();
            known.clone().sum::<i64>().checked_div(known.count() as i64)
        };
        Some(nodes.iter().map(|at| score(at).unwrap_or(0)).collect())
    },
};

/// How much is left, of a hundred.
fn left(used: i64, all: i64) -> Option<i64> {
    match all {
        0 => None,
        all if used > all => Some(0),
        all => Some((i128::from(all - used) * i128::from(MAX_SCORE) / i128::from(all)) as i64),
    }
}

/// Better where processor time and memory are used up alike.
pub const BALANCED: Plugin = Plugin {
    name: "NodeResourcesBalancedAllocation",
    weight: 1,
    score: |pod, cluster, nodes| {
        let (r, c) = (&pod.requests, &cluster.columns);
        if r.cpu == 0 && r.memory == 0 {
            return None;
        }
        let score = |at: &usize| {
            let (cpu, memory) = (*c.cpu.get(*at)?, *c.memory.get(*at)?);
            let (used_cpu, used_memory) = (*c.used_cpu.get(*at)?, *c.used_memory.get(*at)?);
            let with = balance((used_cpu + r.cpu, cpu), (used_memory + r.memory, memory));
            let without = balance((used_cpu, cpu), (used_memory, memory));
            Some(MAX_SCORE / 2 + (MAX_SCORE / 2 + with - without) / 2)
        };
        Some(nodes.iter().map(|at| score(at).unwrap_or(0)).collect())
    },
    ..Plugin::NONE
};

fn balance(a: (i64, i64), b: (i64, i64)) -> i64 {
    let fraction = |(used, all): (i64, i64)| (used as f64 / all as f64).min(1.0);
    let deviation = if a.1 == 0 || b.1 == 0 { 0.0 } else { ((fraction(a) - fraction(b)) / 2.0).abs() };
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}
