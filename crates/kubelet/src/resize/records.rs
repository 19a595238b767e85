//! What pods were allocated and what they were given, remembered in a file beside each pod's volumes, so that a
//! kubelet that starts anew goes on where the last one was.

use super::Allocation;
use k8s_openapi::api::core::v1::ResourceRequirements;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

const FILE: &str = "resources.json";

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
}

impl Records {
    /// Those below the kubelet's directory of pods.
    pub fn new(dir: PathBuf) -> Self {
        Records { dir, known: Mutex::default() }
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
        if *record != before
            && let Err(e) = self.store(uid, record)
        {
            tracing::warn!(uid, error = %e, "what a pod was allocated cannot be written");
        }
    }

    fn store(&self, uid: &str, record: &Record) -> std::io::Result<()> {
        let dir = self.dir.join(uid);
        std::fs::create_dir_all(&dir)?;
        let new = dir.join(format!("{FILE}.new"));
        std::fs::write(&new, serde_json::to_vec(record)?)?;
        std::fs::rename(new, dir.join(FILE))
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_outlive_the_kubelet() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let first = Records::new(dir.path().into());
        assert_eq!(first.allocated("u"), None);
        let given: ResourceRequirements = serde_json::from_str(r#"{"limits": {"cpu": "1"}}"#)?;
        let all = Allocation { pod: None, containers: [("a".to_owned(), given.clone())].into() };
        first.allocate("u", all.clone());
        first.actuate("u", "a", given);
        let next = Records::new(dir.path().into());
        assert_eq!((next.allocated("u"), next.actuated("u")), (Some(all.clone()), all));
        std::fs::remove_dir_all(dir.path().join("u"))?;
        next.forget("u");
        assert_eq!(next.allocated("u"), None);
        Ok(())
    }
}
