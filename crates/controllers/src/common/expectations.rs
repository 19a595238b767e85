//! What a controller has asked for and its caches don't show yet. Until they do, or it took too long, it
//! must not count: it would create or delete the same again.

use api::ObjectKey;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// After so long a missing event is taken for lost.
const LOST_AFTER: Duration = Duration::from_secs(300);

struct Expected {
    creations: i64,
    /// Unique ids of the objects that are to go: an update and a deletion may tell of the same one.
    deletions: HashSet<String>,
    since: Instant,
}

/// The expectations of a controller's objects.
#[derive(Default)]
pub struct Expectations(Mutex<HashMap<ObjectKey, Expected>>);

impl Expectations {
    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Expected>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Some creations and some deletions will be seen. Replaces what was expected before.
    pub fn expect(&self, key: &ObjectKey, creations: usize, deletions: impl IntoIterator<Item = String>) {
        let expected = Expected {
            creations: i64::try_from(creations).unwrap_or(i64::MAX),
            deletions: deletions.into_iter().collect(),
            since: Instant::now(),
        };
        self.lock().insert(key.clone(), expected);
    }

    /// Creations were seen, or will not happen.
    pub fn created(&self, key: &ObjectKey, count: usize) {
        if let Some(e) = self.lock().get_mut(key) {
            e.creations -= i64::try_from(count).unwrap_or(i64::MAX);
        }
    }

    /// A deletion was seen, or will not happen.
    pub fn deleted(&self, key: &ObjectKey, uid: &str) {
        if let Some(e) = self.lock().get_mut(key) {
            e.deletions.remove(uid);
        }
    }

    /// Whether all was seen that was expected.
    pub fn met(&self, key: &ObjectKey) -> bool {
        self.lock()
            .get(key)
            .is_none_or(|e| (e.creations <= 0 && e.deletions.is_empty()) || e.since.elapsed() > LOST_AFTER)
    }

    /// The object is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn they_are_met_when_all_was_seen_or_lost() {
        let (e, key) = (Expectations::default(), ObjectKey::new("ns", "a"));
        assert!(e.met(&key));
        e.expect(&key, 2, ["x".to_string()]);
        e.created(&key, 1);
        e.created(&key, 1);
        assert!(!e.met(&key));
        e.deleted(&key, "y");
        assert!(!e.met(&key));
        e.deleted(&key, "x");
        assert!(e.met(&key));
        e.expect(&key, 1, []);
        tokio::time::advance(Duration::from_secs(299)).await;
        assert!(!e.met(&key));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(e.met(&key));
        e.expect(&key, 1, []);
        e.forget(&key);
        assert!(e.met(&key));
    }
}
