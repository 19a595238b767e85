//! The cgroups above containers: `kubepods`, one below it for each lesser quality of service, and one for
//! each pod. The runtime makes those of containers. Version 1 (a tree per controller) and 2 (one tree).

use crate::blocking::Blocking;
use crate::config::CgroupDriver;
use crate::pod::Qos;
use crate::runtime::resources::PodLimits;
use crate::systemd;
use std::io;
use std::path::{Path, PathBuf};

/// Where the kernel shows cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Hierarchy {
    /// Mount points with the controllers of each.
    V1(Vec<(Vec<String>, PathBuf)>),
    /// The one mount point.
    V2(PathBuf),
}

/// Makes, limits and removes the cgroups of pods.
#[derive(Clone, Debug)]
pub struct Cgroups {
    hierarchy: Hierarchy,
    driver: CgroupDriver,
    /// The cgroup all pods are in, below what the operator gave as root; as path parts.
    root: Vec<String>,
    enabled: bool,
    /// Beside those of version 1, the hierarchy of version 2 without controllers: the runtime makes groups there too.
    beside: Option<PathBuf>,
}

/// Why a cgroup is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The kernel shows none.
    #[error("no cgroup file systems are mounted")]
    NotMounted,
    /// A file or directory could not be written.
    #[error("cannot set {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

const QOS: [Qos; 3] = [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort];
/// Microseconds in a period unless told otherwise.
const PERIOD: i64 = 100_000;
/// From here on a number of bytes is no bound.
const UNBOUNDED: i64 = i64::MAX - 0xf_ffff;
/// Controllers that pods need under version 2.
const V2_CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "memory", "pids", "io"];

impl Cgroups {
    /// Finds out what the kernel has. `root` is --cgroup-root; pods go to `kubepods` below it if `per_qos`.
    pub fn detect(driver: CgroupDriver, root: &str, per_qos: bool) -> Result<Self, CgroupError> {
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let hierarchy = read_mounts(&table).ok_or(CgroupError::NotMounted)?;
        let beside = match hierarchy {
            Hierarchy::V1(_) => read_v2(&table),
            Hierarchy::V2(_) => None,
        };
        Ok(Cgroups { beside, ..Self::new(hierarchy, driver, root, per_qos) })
    }

    /// None at all.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self::new(Hierarchy::V2("/nonexistent".into()), CgroupDriver::Cgroupfs, "", false)
    }

    fn new(hierarchy: Hierarchy, driver: CgroupDriver, root: &str, per_qos: bool) -> Self {
        let mut parts: Vec<String> = root.split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect();
        if per_qos {
            parts.push("kubepods".into());
        }
        Cgroups { hierarchy, driver, root: parts, enabled: per_qos, beside: None }
    }

    /// 1 or 2.
    pub fn version(&self) -> u8 {
        if matches!(self.hierarchy, Hierarchy::V2(_)) { 2 } else { 1 }
    }

    fn pod_parts(&self, qos: Qos, uid: &str) -> Vec<String> {
        let mut parts = self.root.clone();
        if self.enabled {
            parts.extend(qos_part(qos).map(str::to_owned));
            parts.push(format!("pod{uid}"));
        }
        parts
    }

    /// What the runtime is told to put a pod's containers under.
    pub fn pod_parent(&self, qos: Qos, uid: &str) -> String {
        let parts = self.pod_parts(qos, uid);
        match self.driver {
            CgroupDriver::Cgroupfs => format!("/{}", parts.join("/")),
            CgroupDriver::Systemd => slice(&parts),
        }
    }

    /// A cgroup's directory below a mount point.
    fn dir(&self, mount: &Path, parts: &[String]) -> PathBuf {
        match self.driver {
            CgroupDriver::Cgroupfs => parts.iter().fold(mount.to_owned(), |p, part| p.join(part)),
            // each slice lies in the one that its name begins with
            CgroupDriver::Systemd => {
                (1..=parts.len()).fold(mount.to_owned(), |p, n| p.join(slice(&parts[..n])))
            }
        }
    }

    /// Makes the cgroups that all pods share and sets what the node as a whole may use.
    pub(crate) async fn set_up_node(
        &self,
        blocking: &Blocking,
        cpu_milli: i64,
        memory: Option<i64>,
    ) -> Result<(), CgroupError> {
        let shares = crate::runtime::resources::shares(cpu_milli);
        self.set(blocking, self.root.clone(), PodLimits { shares, memory, ..Default::default() }).await?;
        for qos in [Qos::Burstable, Qos::BestEffort] {
            let mut parts = self.root.clone();
            parts.extend(qos_part(qos).map(str::to_owned));
            self.set(blocking, parts, PodLimits { shares: 2, ..Default::default() }).await?;
        }
        Ok(())
    }

    /// Gives burstable pods together the share that they ask for.
    pub(crate) async fn set_burstable_shares(
        &self,
        blocking: &Blocking,
        cpu_milli: i64,
    ) -> Result<(), CgroupError> {
        let mut parts = self.root.clone();
        parts.push("burstable".into());
        let shares = crate::runtime::resources::shares(cpu_milli);
        self.set(blocking, parts, PodLimits { shares, ..Default::default() }).await
    }

    /// Makes a pod's cgroup with its limits; again is harmless.
    pub(crate) async fn set_up_pod(
        &self,
        blocking: &Blocking,
        qos: Qos,
        uid: &str,
        limits: PodLimits,
    ) -> Result<(), CgroupError> {
        self.set(blocking, self.pod_parts(qos, uid), limits).await
    }

    async fn set(&self, blocking: &Blocking, parts: Vec<String>, l: PodLimits) -> Result<(), CgroupError> {
        if !self.enabled {
            return Ok(());
        }
        let name = parts.join("/");
        let failed = |source| CgroupError::Write { path: name.clone().into(), source };
        if self.driver == CgroupDriver::Systemd {
            return systemd::apply(&slice(&parts), &l, self.version() == 2).await.map_err(failed);
        }
        let own = self.clone();
        let key = format!("cgroup {name}");
        let done = blocking.run(&key, crate::blocking::LIMIT, move || own.apply(&parts, &l));
        done.await.map_err(failed)?
    }

    /// What a pod's cgroup has now.
    pub fn pod_cgroup(&self, qos: Qos, uid: &str) -> PodCgroup {
        let parts = self.pod_parts(qos, uid);
        let dir = |controller: &str| self.controller(controller).map(|m| self.dir(m, &parts));
        let (Some(cpu), Some(memory)) = (dir("cpu"), dir("memory")) else { return PodCgroup::default() };
        match &self.hierarchy {
            Hierarchy::V1(_) => PodCgroup {
                shares: bound(&cpu.join("cpu.shares")).unwrap_or(2),
                quota: bound(&cpu.join("cpu.cfs_quota_us")),
                period: bound(&cpu.join("cpu.cfs_period_us")).unwrap_or(PERIOD),
                memory: bound(&memory.join("memory.limit_in_bytes")),
            },
            Hierarchy::V2(_) => {
                let max = std::fs::read_to_string(cpu.join("cpu.max")).unwrap_or_default();
                let period = max.split_whitespace().nth(1).and_then(|p| p.parse().ok());
                PodCgroup {
                    shares: shares(bound(&cpu.join("cpu.weight")).unwrap_or(1)),
                    quota: bound(&cpu.join("cpu.max")),
                    period: period.unwrap_or(PERIOD),
                    memory: bound(&memory.join("memory.max")),
                }
            }
        }
    }

    /// Removes a pod's cgroups, whatever its class, and what is below them. The runtime has nothing of the pod that
    /// runs any more: processes that are in there all the same it has forgotten, and they are ended.
    pub(crate) async fn remove_pod(&self, blocking: &Blocking, uid: &str) -> Result<(), CgroupError> {
        if !self.enabled {
            return Ok(());
        }
        // an orphan's class is not known; most of these have nothing to remove
        let all: Vec<_> = QOS.iter().map(|q| self.pod_parts(*q, uid)).collect();
        let mounts: Vec<PathBuf> = self.mounts().map(Path::to_owned).chain(self.beside.clone()).collect();
        let mut dirs: Vec<PathBuf> = Vec::new();
        for parts in &all {
            let own: Vec<PathBuf> = mounts.iter().map(|m| self.dir(m, parts)).collect();
            if self.driver == CgroupDriver::Systemd {
                let look = own.clone();
                let there = crate::blocking::quick(move || look.iter().any(|d| d.exists())).await;
                if there.unwrap_or(true) {
                    systemd::stop(&slice(parts)).await;
                }
            }
            dirs.extend(own);
        }
        let work = move || {
            dirs.into_iter().try_for_each(|dir| {
                remove_with_processes(&dir).map_err(|source| CgroupError::Write { path: dir, source })
            })
        };
        let failed = |source| CgroupError::Write { path: uid.into(), source };
        blocking.run(&format!("cgroup pod{uid}"), crate::blocking::LIMIT, work).await.map_err(failed)?
    }

    /// Whether the kernel bounds how much a cgroup may swap.
    pub(crate) fn bounds_swap(&self) -> bool {
        let file = match &self.hierarchy {
            Hierarchy::V1(_) => "memory.memsw.limit_in_bytes",
            Hierarchy::V2(_) => "memory.swap.max",
        };
        self.controller("memory").is_some_and(|m| self.dir(m, &self.root).join(file).exists())
    }

    /// The uids of pods that have a cgroup. It may block.
    pub(crate) fn pods(&self) -> Vec<String> {
        let mut found = Vec::new();
        let Some(mount) = self.mounts().next() else { return found };
        if !self.enabled {
            return found;
        }
        for qos in QOS {
            let mut parts = self.root.clone();
            parts.extend(qos_part(qos).map(str::to_owned));
            for e in std::fs::read_dir(self.dir(mount, &parts)).into_iter().flatten().flatten() {
                let name = e.file_name().to_string_lossy().into_owned();
                let uid = match self.driver {
                    CgroupDriver::Cgroupfs => name.strip_prefix("pod").map(str::to_owned),
                    CgroupDriver::Systemd => {
                        let prefix = format!("{}-pod", slice(&parts).trim_end_matches(".slice"));
                        let rest = name.strip_prefix(&prefix).and_then(|r| r.strip_suffix(".slice"));
                        rest.map(|r| r.replace('_', "-"))
                    }
                };
                found.extend(uid);
            }
        }
        found
    }

    fn mounts(&self) -> impl Iterator<Item = &Path> {
        match &self.hierarchy {
            Hierarchy::V1(list) => list.iter().map(|(_, p)| p.as_path()).collect::<Vec<_>>(),
            Hierarchy::V2(p) => vec![p.as_path()],
        }
        .into_iter()
    }

    fn controller(&self, name: &str) -> Option<&Path> {
        match &self.hierarchy {
            Hierarchy::V1(list) => {
                list.iter().find(|(c, _)| c.iter().any(|c| c == name)).map(|(_, p)| p.as_path())
            }
            Hierarchy::V2(p) => Some(p),
        }
    }

    fn apply(&self, parts: &[String], l: &PodLimits) -> Result<(), CgroupError> {
        match &self.hierarchy {
            Hierarchy::V1(list) => {
                for (_, mount) in list {
                    let dir = self.dir(mount, parts);
                    make(&dir)?;
                    inherit_cpuset(mount, &dir)?;
                }
                if let Some(cpu) = self.controller("cpu").map(|m| self.dir(m, parts)) {
                    write(&cpu.join("cpu.shares"), l.shares)?;
                    match l.quota {
                        Some((quota, period)) => {
                            write(&cpu.join("cpu.cfs_period_us"), period)?;
                            write(&cpu.join("cpu.cfs_quota_us"), quota)?;
                        }
                        None if bound(&cpu.join("cpu.cfs_quota_us")).is_some() => {
                            write(&cpu.join("cpu.cfs_quota_us"), -1)?
                        }
                        None => {}
                    }
                }
                if let Some(memory) = self.controller("memory").map(|m| self.dir(m, parts)) {
                    let file = memory.join("memory.limit_in_bytes");
                    match l.memory {
                        Some(bytes) => write(&file, bytes)?,
                        None if bound(&file).is_some() => write(&file, -1)?,
                        None => {}
                    }
                }
                if let (Some(pids), Some(n)) = (self.controller("pids").map(|m| self.dir(m, parts)), l.pids) {
                    write(&pids.join("pids.max"), n)?;
                }
            }
            Hierarchy::V2(mount) => {
                let dir = self.dir(mount, parts);
                make(&dir)?;
                delegate(mount, &dir);
                write(&dir.join("cpu.weight"), weight(l.shares))?;
                match l.quota {
                    Some((quota, period)) => write(&dir.join("cpu.max"), format!("{quota} {period}"))?,
                    None if bound(&dir.join("cpu.max")).is_some() => write(&dir.join("cpu.max"), "max")?,
                    None => {}
                }
                match l.memory {
                    Some(bytes) => write(&dir.join("memory.max"), bytes)?,
                    None if bound(&dir.join("memory.max")).is_some() => {
                        write(&dir.join("memory.max"), "max")?
                    }
                    None => {}
                }
                if let Some(n) = l.pids {
                    write(&dir.join("pids.max"), n)?;
                }
            }
        }
        Ok(())
    }

    /// Processor time in nanoseconds and working-set bytes of a pod's cgroup, where the kernel tells.
    pub fn pod_usage(&self, qos: Qos, uid: &str) -> Usage {
        self.usage(&self.pod_parts(qos, uid))
    }

    /// The same of the whole node.
    pub fn node_usage(&self) -> Usage {
        self.usage(&[])
    }

    fn usage(&self, parts: &[String]) -> Usage {
        let number = |p: PathBuf| std::fs::read_to_string(p).ok().and_then(|t| t.trim().parse::<u64>().ok());
        let stat = |p: PathBuf, key: &str| {
            let text = std::fs::read_to_string(p).ok()?;
            text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse::<u64>().ok())
        };
        match &self.hierarchy {
            Hierarchy::V1(_) => {
                let cpu =
                    self.controller("cpuacct").and_then(|m| number(self.dir(m, parts).join("cpuacct.usage")));
                let Some(dir) = self.controller("memory").map(|m| self.dir(m, parts)) else {
                    return Usage { cpu_nanos: cpu, ..Default::default() };
                };
                let used = number(dir.join("memory.usage_in_bytes"));
                let inactive = stat(dir.join("memory.stat"), "total_inactive_file").unwrap_or(0);
                Usage {
                    cpu_nanos: cpu,
                    memory_usage: used,
                    working_set: used.map(|u| u.saturating_sub(inactive)),
                    rss: stat(dir.join("memory.stat"), "total_rss"),
                    page_faults: stat(dir.join("memory.stat"), "total_pgfault"),
                    major_faults: stat(dir.join("memory.stat"), "total_pgmajfault"),
                }
            }
            Hierarchy::V2(mount) => {
                let dir = self.dir(mount, parts);
                let used = number(dir.join("memory.current"));
                let inactive = stat(dir.join("memory.stat"), "inactive_file").unwrap_or(0);
                Usage {
                    cpu_nanos: stat(dir.join("cpu.stat"), "usage_usec").map(|u| u * 1000),
                    memory_usage: used,
                    working_set: used.map(|u| u.saturating_sub(inactive)),
                    rss: stat(dir.join("memory.stat"), "anon"),
                    page_faults: stat(dir.join("memory.stat"), "pgfault"),
                    major_faults: stat(dir.join("memory.stat"), "pgmajfault"),
                }
            }
        }
    }
}

/// What a pod's cgroup has as bounds; what is absent is unbounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodCgroup {
    /// Processor shares.
    pub shares: i64,
    /// Processor time per period, in microseconds.
    pub quota: Option<i64>,
    /// The period.
    pub period: i64,
    /// Bytes of memory.
    pub memory: Option<i64>,
}

impl Default for PodCgroup {
    fn default() -> Self {
        PodCgroup { shares: 2, quota: None, period: PERIOD, memory: None }
    }
}

/// What a cgroup has used, as far as the kernel tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time so far.
    pub cpu_nanos: Option<u64>,
    /// Bytes charged to it.
    pub memory_usage: Option<u64>,
    /// Those that cannot be taken back at once.
    pub working_set: Option<u64>,
    /// Anonymous memory.
    pub rss: Option<u64>,
    /// Page faults so far.
    pub page_faults: Option<u64>,
    /// Those that read from disk.
    pub major_faults: Option<u64>,
}

fn qos_part(qos: Qos) -> Option<&'static str> {
    match qos {
        Qos::Guaranteed => None,
        Qos::Burstable => Some("burstable"),
        Qos::BestEffort => Some("besteffort"),
    }
}

/// systemd's name for a path: dashes separate levels, so those in parts become underscores.
fn slice(parts: &[String]) -> String {
    let parts: Vec<String> = parts.iter().map(|p| p.trim_end_matches(".slice").replace('-', "_")).collect();
    format!("{}.slice", parts.join("-"))
}

/// Where version 2 is mounted.
fn read_v2(table: &str) -> Option<PathBuf> {
    table.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>().as_slice() {
        [_, at, "cgroup2", ..] => Some(PathBuf::from(at)),
        _ => None,
    })
}

fn read_mounts(table: &str) -> Option<Hierarchy> {
    let mut v1 = Vec::new();
    for line in table.lines() {
        let mut f = line.split(' ');
        let (Some(_), Some(at), Some(kind), Some(options)) = (f.next(), f.next(), f.next(), f.next()) else {
            continue;
        };
        if kind == "cgroup" {
            let controllers = options.split(',').map(str::to_owned).collect();
            v1.push((controllers, PathBuf::from(at)));
        }
    }
    if v1.iter().any(|(c, _): &(Vec<String>, _)| c.iter().any(|c| c == "cpu" || c == "memory")) {
        return Some(Hierarchy::V1(v1));
    }
    read_v2(table).map(Hierarchy::V2)
}

/// Shares of 2..262144 onto weights of 1..10000, as runc does since its version 1.3: 1024 are 100.
pub(crate) fn weight(shares: i64) -> i64 {
    if shares <= 2 {
        return 1;
    }
    let l = (shares.min(262_144) as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as i64).min(10_000)
}

/// The least shares that have this weight.
fn shares(of: i64) -> i64 {
    let (mut low, mut high) = (2, 262_144);
    while low < high {
        let middle = (low + high) / 2;
        if weight(middle) < of { low = middle + 1 } else { high = middle }
    }
    low
}

/// The first number of a file, if it bounds anything: version 1 writes the largest that is whole pages for none.
fn bound(path: &Path) -> Option<i64> {
    let text = std::fs::read_to_string(path).ok()?;
    let n = text.split_whitespace().next()?.parse::<i64>().ok()?;
    (0..UNBOUNDED).contains(&n).then_some(n)
}

fn make(dir: &Path) -> Result<(), CgroupError> {
    std::fs::create_dir_all(dir).map_err(|source| CgroupError::Write { path: dir.into(), source })
}

fn write(path: &Path, value: impl ToString) -> Result<(), CgroupError> {
    std::fs::write(path, value.to_string()).map_err(|source| CgroupError::Write { path: path.into(), source })
}

/// A new cpuset of version 1 is empty and takes no process until it has what its parent has.
fn inherit_cpuset(mount: &Path, dir: &Path) -> Result<(), CgroupError> {
    if !mount.join("cpuset.cpus").exists() {
        return Ok(());
    }
    let Ok(below) = dir.strip_prefix(mount) else { return Ok(()) };
    let mut at = mount.to_owned();
    for part in below.components() {
        let parent = at.clone();
        at.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = std::fs::read_to_string(at.join(file)).unwrap_or_default();
            if own.trim().is_empty() {
                let from = std::fs::read_to_string(parent.join(file)).unwrap_or_default();
                write(&at.join(file), from.trim())?;
            }
        }
    }
    Ok(())
}

/// Passes controllers down from the root to `dir`; those the kernel lacks are passed over.
fn delegate(mount: &Path, dir: &Path) {
    let Ok(below) = dir.strip_prefix(mount) else { return };
    let mut at = mount.to_owned();
    for part in std::iter::once(None).chain(below.components().map(Some)) {
        at.extend(part);
        for c in V2_CONTROLLERS {
            let _ = std::fs::write(at.join("cgroup.subtree_control"), format!("+{c}"));
        }
    }
}

/// How often the kernel is given a moment to be done with processes that were ended.
const MOMENTS: u32 = 50;

fn remove_with_processes(dir: &Path) -> io::Result<()> {
    for n in 0.. {
        match remove_tree(dir) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && n < MOMENTS => {
                kill_all(dir, n == 0);
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            other => return other,
        }
    }
    Ok(())
}

/// Ends all processes in a cgroup and below, and says so if that is news.
fn kill_all(dir: &Path, news: bool) {
    let procs = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let own = std::process::id();
    for pid in procs.lines().filter_map(|l| l.trim().parse::<i32>().ok()).filter(|p| p.unsigned_abs() != own)
    {
        if news {
            tracing::info!(pid, cgroup = %dir.display(), "ending a process that the runtime has forgotten");
        }
        if let Err(e) = sys::node::kill(pid) {
            tracing::warn!(pid, error = %e, "it could not be ended");
        }
    }
    for e in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if e.file_type().is_ok_and(|t| t.is_dir()) {
            kill_all(&e.path(), news);
        }
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
    for e in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        remove_tree(&e.path())?;
    }
    match std::fs::remove_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies() {
        let v1 = "cgroup /c/cpu cgroup rw,cpu,cpuacct 0 0\ncgroup /c/memory cgroup rw,memory 0 0\ncgroup2 /c/unified cgroup2 rw 0 0\n";
        assert!(matches!(read_mounts(v1), Some(Hierarchy::V1(l)) if l.len() == 2));
        assert_eq!(read_mounts("cgroup2 /c cgroup2 rw 0 0"), Some(Hierarchy::V2("/c".into())));
        assert_eq!(read_mounts("proc /proc proc rw 0 0"), None);
        assert_eq!(read_v2(v1), Some("/c/unified".into()));
    }

    #[tokio::test]
    async fn nothing_is_left_where_only_the_runtime_made_groups() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let v1 = Hierarchy::V1(vec![(vec!["cpu".into()], dir.path().join("cpu"))]);
        let beside = dir.path().join("unified");
        let cgroups =
            Cgroups { beside: Some(beside.clone()), ..Cgroups::new(v1, CgroupDriver::Cgroupfs, "", true) };
        let left = beside.join("kubepods/besteffort/podu/container");
        std::fs::create_dir_all(&left)?;
        cgroups.remove_pod(&Blocking::default(), "u").await?;
        assert!(!left.exists() && !beside.join("kubepods/besteffort/podu").exists());
        Ok(())
    }

    #[tokio::test]
    async fn bounds_are_read_back() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let limits = |quota, memory| PodLimits { shares: 1024, quota, memory, pids: None };
        let v1 = Hierarchy::V1(vec![(vec!["cpu".into(), "memory".into()], dir.path().join("1"))]);
        for hierarchy in [v1, Hierarchy::V2(dir.path().join("2"))] {
            let c = Cgroups::new(hierarchy, CgroupDriver::Cgroupfs, "", true);
            assert_eq!(c.pod_cgroup(Qos::Burstable, "u"), PodCgroup::default());
            for (quota, memory) in [(Some((5000, 50_000)), Some(4096)), (None, None)] {
                c.set_up_pod(&Blocking::default(), Qos::Burstable, "u", limits(quota, memory)).await?;
                let got = c.pod_cgroup(Qos::Burstable, "u");
                assert_eq!((got.quota, got.memory), (quota.map(|q| q.0), memory));
                assert_eq!(weight(got.shares), weight(1024));
            }
        }
        Ok(())
    }

    #[test]
    fn weights() {
        for (shares, want) in [(0, 1), (2, 1), (102, 17), (1024, 100), (262_144, 10_000), (i64::MAX, 10_000)]
        {
            assert_eq!(weight(shares), want, "{shares}");
        }
        for w in [1, 17, 100, 5000, 10_000] {
            assert_eq!(weight(shares(w)), w, "{w}");
        }
    }

    #[test]
    fn processes_that_were_forgotten_are_ended() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let deep = dir.path().join("container");
        std::fs::create_dir(&deep)?;
        let mut left = std::process::Command::new("sleep").arg("600").spawn()?;
        // never what stands for no process, nor this one
        std::fs::write(dir.path().join("cgroup.procs"), format!("0\n1\n-1\nx\n{}\n", std::process::id()))?;
        std::fs::write(deep.join("cgroup.procs"), format!("{}\n", left.id()))?;
        kill_all(dir.path(), true);
        assert!(!left.wait()?.success());
        Ok(())
    }

    #[test]
    fn parents() {
        let make = |driver, root| Cgroups::new(Hierarchy::V2("/c".into()), driver, root, true);
        for (driver, root, qos, parent, dir) in [
            (
                CgroupDriver::Cgroupfs,
                "",
                Qos::Burstable,
                "/kubepods/burstable/podu-1",
                "/c/kubepods/burstable/podu-1",
            ),
            (CgroupDriver::Cgroupfs, "/n1", Qos::Guaranteed, "/n1/kubepods/podu-1", "/c/n1/kubepods/podu-1"),
            (
                CgroupDriver::Systemd,
                "",
                Qos::BestEffort,
                "kubepods-besteffort-podu_1.slice",
                "/c/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podu_1.slice",
            ),
        ] {
            let c = make(driver, root);
            assert_eq!(c.pod_parent(qos, "u-1"), parent);
            assert_eq!(c.dir("/c".as_ref(), &c.pod_parts(qos, "u-1")), PathBuf::from(dir));
        }
    }
}
