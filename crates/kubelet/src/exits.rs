//! What the runtime's events said a moment ago and its own books may not say yet.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For so long an event is worth more than the runtime's answer.
const FRESH: Duration = Duration::from_secs(2);
/// For so long it is remembered why a container ended.
const REASON: Duration = Duration::from_secs(60);

/// Containers that ended, and those that ran out of memory.
#[derive(Debug, Default)]
pub struct Exits {
    ended: Mutex<HashMap<String, Instant>>,
    out_of_memory: Mutex<HashMap<String, Instant>>,
}

fn note(map: &Mutex<HashMap<String, Instant>>, id: &str, keep: Duration) {
    let now = Instant::now();
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    map.retain(|_, at| now.duration_since(*at) < keep);
    map.insert(id.to_owned(), now);
}

fn has(map: &Mutex<HashMap<String, Instant>>, id: &str, keep: Duration) -> bool {
    map.lock().unwrap_or_else(PoisonError::into_inner).get(id).is_some_and(|at| at.elapsed() < keep)
}

impl Exits {
    /// A container (or sandbox) has ended.
    pub fn ended(&self, id: &str) {
        note(&self.ended, id, FRESH);
    }

    /// A container ran out of memory.
    pub fn out_of_memory(&self, id: &str) {
        note(&self.out_of_memory, id, REASON);
    }

    /// Whether it ended just now.
    pub fn has_ended(&self, id: &str) -> bool {
        has(&self.ended, id, FRESH)
    }

    /// Whether it ran out of memory lately.
    pub fn ran_out_of_memory(&self, id: &str) -> bool {
        has(&self.out_of_memory, id, REASON)
    }
}
