//! What the machine has, and what of it pods may use.

use crate::config::Config;
use crate::quantity::{self, Amount, Resources};
use std::path::Path;

/// What the machine has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Capacity {
    /// All of it.
    pub total: Resources,
    /// What is left for pods after reservations and the eviction threshold.
    pub allocatable: Resources,
}

/// Looks at the machine.
pub fn measure(config: &Config) -> Capacity {
    let disk = sys::mount::usage(&existing(&config.root_dir)).unwrap_or_default();
    let cpu = Amount::from_units(sys::node::processors() as u64);
    let memory = Amount::from_units(sys::node::memory_bytes());
    let storage = Amount::from_units(disk.capacity);
    let pods = Amount::from_units(config.max_pods.unsigned_abs());
    let reserved = |name: &str| {
        let of = |m: &std::collections::BTreeMap<String, String>| {
            m.get(name).and_then(|q| quantity::parse(q)).unwrap_or_default()
        };
        of(&config.system_reserved).plus(of(&config.kube_reserved))
    };
    let eviction = |signal: &str, total: Amount| match config.eviction_hard.get(signal) {
        Some(t) => match t.strip_suffix('%').and_then(|p| p.parse::<f64>().ok()) {
            Some(percent) => Amount::from_milli((total.milli() as f64 * percent / 100.0) as i64),
            None => quantity::parse(t).unwrap_or_default(),
        },
        None => Amount::default(),
    };
    let mut total = Resources::from([
        ("cpu".into(), cpu.cpu()),
        ("memory".into(), memory.memory()),
        ("ephemeral-storage".into(), storage.memory()),
        ("pods".into(), pods.count()),
    ]);
    let storage_left =
        storage.minus(reserved("ephemeral-storage")).minus(eviction("nodefs.available", storage));
    let mut allocatable = Resources::from([
        ("cpu".into(), cpu.minus(reserved("cpu")).cpu()),
        (
            "memory".into(),
            memory.minus(reserved("memory")).minus(eviction("memory.available", memory)).memory(),
        ),
        ("ephemeral-storage".into(), storage_left.count()),
        ("pods".into(), pods.count()),
    ]);
    for (name, amount) in huge_pages() {
        total.insert(name.clone(), amount.memory());
        allocatable.insert(name, amount.minus(Amount::default()).memory());
    }
    Capacity { total, allocatable }
}

/// The deepest directory of a path that is there.
fn existing(path: &Path) -> std::path::PathBuf {
    path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/")).to_owned()
}

fn huge_pages() -> Vec<(String, Amount)> {
    let mut out = Vec::new();
    for e in std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten() {
        let name = e.file_name().to_string_lossy().into_owned();
        let Some(kb) = name
            .strip_prefix("hugepages-")
            .and_then(|n| n.strip_suffix("kB"))
            .and_then(|n| n.parse::<u64>().ok())
        else {
            continue;
        };
        let count = std::fs::read_to_string(e.path().join("nr_hugepages"))
            .ok()
            .and_then(|t| t.trim().parse::<u64>().ok())
            .unwrap_or(0);
        let label = if kb.is_multiple_of(1 << 20) {
            format!("{}Gi", kb >> 20)
        } else if kb.is_multiple_of(1 << 10) {
            format!("{}Mi", kb >> 10)
        } else {
            format!("{kb}Ki")
        };
        out.push((format!("hugepages-{label}"), Amount::from_units(count * kb * 1024)));
    }
    out
}
