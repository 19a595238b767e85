//! Processor use as a rate: what was used since it was last asked.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Closer together than this, the last rate is given again.
const LEAST: Duration = Duration::from_secs(1);
/// Entries not asked for so long are forgotten.
const STALE: Duration = Duration::from_secs(600);

#[derive(Default)]
pub(super) struct Rates(Mutex<HashMap<String, (Instant, u64, u64)>>);

impl Rates {
    /// Nanoseconds of processor per second for what `key` stands for.
    pub fn rate(&self, key: &str, used: Option<u64>) -> Option<u64> {
        let used = used?;
        let now = Instant::now();
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() > 1000 {
            map.retain(|_, (at, ..)| now.duration_since(*at) < STALE);
        }
        let entry = map.entry(key.to_owned()).or_insert((now, used, 0));
        let passed = now.duration_since(entry.0);
        if passed >= LEAST {
            let rate = u128::from(used.saturating_sub(entry.1)) * 1_000_000_000 / passed.as_nanos().max(1);
            *entry = (now, used, u64::try_from(rate).unwrap_or(u64::MAX));
        }
        Some(entry.2)
    }
}
