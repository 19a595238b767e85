//! What pods were allocated and what they were given, remembered in a file beside each pod's volumes, so that a
//! kubelet that starts anew goes on where the last one was.

use super::Allocation;
use crate::blocking::{Blocking, LIMIT};
use crate::health::Health;
use k8s_openapi::api::core::v1::ResourceRequirements;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

const FILE: &str = "resources.json";
/// How soon a disk that took nothing is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// For so long the loop may be silent.
const BEAT: Duration = Duration::from_secs(300);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Record {
    allocated: Option<Allocation>,
    actuated: Allocation,
}

/// The records of all pods, by uid.
#[derive(Debug)]
pub struct Records {
    /// The directory that has those of pods.
    dir: PathBuf,
    known: Mutex<HashMap<String, Record>>,
    /// Those whose file is behind.
    behind: Mutex<BTreeSet<String>>,
    work: Notify,
}

impl Records {
    /// Those below the kubelet's directory of pods.
    pub fn new(dir: PathBuf) -> Self {
        Records { dir, known: Mutex::default(), behind: Mutex::default(), work: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Record>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, uid: &str, of: impl FnOnce(&Record) -> T) -> T {
        let mut known = self.lock();
        of(known.entry(uid.to_owned()).or_insert_with(|| self.load(uid)))
    }

    fn load(&self, uid: &str) -> Record {
        let path = self.dir.join(uid).join(FILE);
        let Ok(text) = std::fs::read(&path) else { return Record::default() };
        serde_json::from_slice(&text).unwrap_or_else(|e| {
            tracing::warn!(path = %path.display(), error = %e, "what a pod was allocated cannot be read");
            Record::default()
        })
    }

    fn write(&self, uid: &str, change: impl FnOnce(&mut Record)) {
        let mut known = self.lock();
        let record = known.entry(uid.to_owned()).or_insert_with(|| self.load(uid));
        let before = record.clone();
        change(record);
        if *record != before {
            drop(known);
            self.behind().insert(uid.to_owned());
            self.work.notify_one();
        }
    }

    fn behind(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what changed, for as long as it is polled. Nobody waits for the disk.
    pub(crate) async fn run(&self, blocking: &Blocking, health: &Health) {
        loop {
            health.beat("records", BEAT);
            if !self.write_down(blocking).await {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            let _ = tokio::time::timeout(BEAT / 4, self.work.notified()).await;
        }
    }

    /// Writes down what changed; answers whether all is.
    async fn write_down(&self, blocking: &Blocking) -> bool {
        let behind = std::mem::take(&mut *self.behind());
        let mut all = true;
        for uid in behind {
            let Some(record) = self.lock().get(&uid).cloned() else { continue };
            let dir = self.dir.join(&uid);
            let written = blocking.run(&format!("pod {uid}"), LIMIT, move || store(&dir, &record)).await;
            if let Err(e) = written.and_then(|r| r) {
                tracing::warn!(uid, error = %e, "what a pod was allocated cannot be written");
                self.behind().insert(uid);
                all = false;
            }
        }
        all
    }

    /// What a pod was allocated, if it was.
    pub fn allocated(&self, uid: &str) -> Option<Allocation> {
        self.read(uid, |r| r.allocated.clone())
    }

    /// Allocates to a pod.
    pub fn allocate(&self, uid: &str, to: Allocation) {
        self.write(uid, |r| r.allocated = Some(to));
    }

    /// What a pod was given.
    pub fn actuated(&self, uid: &str) -> Allocation {
        self.read(uid, |r| r.actuated.clone())
    }

    /// A container was given this.
    pub fn actuate(&self, uid: &str, container: &str, to: ResourceRequirements) {
        self.write(uid, |r| drop(r.actuated.containers.insert(container.to_owned(), to)));
    }

    /// The pod as a whole was given this.
    pub fn actuate_pod(&self, uid: &str, to: Option<ResourceRequirements>) {
        self.write(uid, |r| r.actuated.pod = to);
    }

    /// Forgets a pod; its file goes with its directory.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
        self.behind().remove(uid);
    }
}

fn store(dir: &Path, record: &Record) -> std::io::Result<()> {
    sys::dir::make_all(dir, 0o750)?;
    let new = dir.join(format!("{FILE}.new"));
    std::fs::write(&new, serde_json::to_vec(record)?)?;
    std::fs::rename(new, dir.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn records_outlive_the_kubelet() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let first = Records::new(dir.path().into());
        assert_eq!(first.allocated("u"), None);
        let given: ResourceRequirements = serde_json::from_str(r#"{"limits": {"cpu": "1"}}"#)?;
        let all = Allocation { pod: None, containers: [("a".to_owned(), given.clone())].into() };
        first.allocate("u", all.clone());
        first.actuate("u", "a", given);
        assert!(first.write_down(&Blocking::default()).await);
        let next = Records::new(dir.path().into());
        assert_eq!((next.allocated("u"), next.actuated("u")), (Some(all.clone()), all));
        std::fs::remove_dir_all(dir.path().join("u"))?;
        next.forget("u");
        assert_eq!(next.allocated("u"), None);
        // what is forgotten is not written down any more
        next.allocate("u", Allocation::default());
        next.forget("u");
        assert!(next.write_down(&Blocking::default()).await && !dir.path().join("u").exists());
        // a disk that takes nothing is tried again
        std::fs::write(dir.path().join("v"), "no directory")?;
        next.allocate("v", Allocation::default());
        assert!(!next.write_down(&Blocking::default()).await);
        std::fs::remove_file(dir.path().join("v"))?;
        assert!(next.write_down(&Blocking::default()).await && dir.path().join("v").join(FILE).exists());
        Ok(())
    }
}
