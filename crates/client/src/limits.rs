//! How many requests a client sends: at once, and in a second.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// The limits of a client; none at first. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    seats: Option<Arc<Semaphore>>,
    pace: Option<Arc<Pace>>,
}

#[derive(Debug)]
struct Pace {
    /// Between two requests.
    gap: Duration,
    burst: u32,
    /// When the requests that were granted so far are used up.
    until: Mutex<Option<Instant>>,
}

impl Limits {
    pub fn bounded(self, in_flight: usize) -> Self {
        Limits { seats: Some(Arc::new(Semaphore::new(in_flight.max(1)))), ..self }
    }

    pub fn paced(self, per_second: f64, burst: u32) -> Self {
        let gap = Duration::try_from_secs_f64(1.0 / per_second).ok();
        let pace = gap.map(|gap| Arc::new(Pace { gap, burst: burst.max(1), until: Mutex::default() }));
        Limits { pace, ..self }
    }

    pub fn is_paced(&self) -> bool {
        self.pace.is_some()
    }

    /// Waits until a request may be sent; it ends when what is answered is dropped.
    pub async fn seat(&self) -> Option<OwnedSemaphorePermit> {
        if let Some(pace) = &self.pace {
            tokio::time::sleep(pace.grant(Instant::now())).await;
        }
        // It is never closed.
        self.seats.clone()?.acquire_owned().await.ok()
    }
}

impl Pace {
    /// How long the next request has to wait.
    fn grant(&self, now: Instant) -> Duration {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let next = until.map_or(now, |t| t.max(now)) + self.gap;
        *until = Some(next);
        (next - now).saturating_sub(self.gap * self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_wait_for_their_turn() {
        let limits = Limits::default().paced(10.0, 5);
        let start = Instant::now();
        for _ in 0..25 {
            limits.seat().await;
        }
        assert_eq!(start.elapsed().as_millis() / 100, 20);
        let limits = Limits::default().bounded(2);
        let (a, _b) = (limits.seat().await, limits.seat().await);
        let third = tokio::spawn({
            let limits = limits.clone();
            async move { limits.seat().await.is_some() }
        });
        tokio::task::yield_now().await;
        assert!(!third.is_finished());
        drop(a);
        assert!(third.await.unwrap());
    }
}
