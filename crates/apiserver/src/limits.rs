//! What one client may hold of the server: seats for requests, and time on its connection.

use crate::body::{Body, BodyError};
use crate::metrics::LongRunning;
use crate::request::Verb;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A connection without a request may stay this long: upstream's idle timeout.
pub const IDLE: Duration = Duration::from_secs(90);
/// A request's head must be there after this: upstream's time limit.
pub const HEAD: Duration = Duration::from_secs(32);
/// A client has this long to take an answer, after the time that its request had.
const GRACE: Duration = Duration::from_secs(10);
/// For so many seats of reading requests there is one for those who are not known.
const ANONYMOUS: usize = 10;
/// Requests that may wait for each seat.
const WAITING: usize = 50;

/// Seats of one class of requests. Who finds none waits in line for one.
struct Class {
    seats: Arc<Semaphore>,
    line: Semaphore,
}

/// Seats for the requests under way: `--max-requests-inflight` and `--max-mutating-requests-inflight`.
pub struct Seats {
    reading: Option<Class>,
    changing: Option<Class>,
    /// Of those nobody knows, whatever they do: they can't take the others' seats.
    anonymous: Option<Class>,
    patience: Duration,
}

/// A seat, until it is dropped; none where there is no limit.
pub type Seat = Option<OwnedSemaphorePermit>;

impl Seats {
    /// So many for each class, 0 for no limit. Who waits longer than `patience` is turned away.
    pub fn new(reading: usize, changing: usize, patience: Duration) -> Self {
        let class = |n: usize| {
            (n > 0).then(|| Class {
                seats: Arc::new(Semaphore::new(n.min(Semaphore::MAX_PERMITS))),
                line: Semaphore::new(n.saturating_mul(WAITING).min(Semaphore::MAX_PERMITS)),
            })
        };
        let anonymous = class(reading.div_ceil(ANONYMOUS));
        Seats { reading: class(reading), changing: class(changing), anonymous, patience }
    }

    /// A seat for a request with this verb. `None` if there is none to be had in time.
    pub async fn take(&self, verb: Verb, anonymous: bool) -> Option<Seat> {
        let class = match (anonymous, verb.reads()) {
            (true, _) => &self.anonymous,
            (_, true) => &self.reading,
            _ => &self.changing,
        };
        let Some(class) = class else { return Some(None) };
        if let Ok(seat) = class.seats.clone().try_acquire_owned() {
            return Some(Some(seat));
        }
        let _place = class.line.try_acquire().ok()?;
        let seat = tokio::time::timeout(self.patience, class.seats.clone().acquire_owned()).await.ok()?;
        seat.ok().map(Some)
    }
}

/// What becomes of a connection.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// It goes on.
    Stay,
    /// Nothing has been asked on it for long: it ends.
    Idle,
    /// An answer has not been taken in time: it is cut.
    Stalled,
}

#[derive(Default)]
struct State {
    busy: usize,
    /// Since when it has not been busy; the connection's beginning at first.
    idle: Option<Instant>,
    /// When each request with a time limit must be through.
    due: BTreeMap<u64, Instant>,
    next: u64,
}

/// The requests of one connection.
pub struct Pace(Mutex<State>);

impl Pace {
    /// Of a connection that begins now.
    pub fn new(now: Instant) -> Arc<Self> {
        Arc::new(Pace(Mutex::new(State { idle: Some(now), ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins, and ends when the answer is dropped. One with a time limit should be through by `due`.
    pub fn begin(self: &Arc<Self>, due: Option<Instant>) -> Busy {
        let mut state = self.state();
        state.busy += 1;
        state.idle = None;
        state.next += 1;
        let id = state.next;
        if let Some(due) = due {
            state.due.insert(id, due + GRACE);
        }
        Busy { pace: self.clone(), id }
    }

    /// Whether a request is under way that has a time limit.
    pub fn has_due(&self) -> bool {
        !self.state().due.is_empty()
    }

    /// How the connection does.
    pub fn judge(&self, now: Instant) -> Verdict {
        let state = self.state();
        let patience = if state.next == 0 { HEAD } else { IDLE };
        if state.due.first_key_value().is_some_and(|(_, due)| *due < now) {
            Verdict::Stalled
        } else if state.idle.is_some_and(|since| now.saturating_duration_since(since) >= patience) {
            Verdict::Idle
        } else {
            Verdict::Stay
        }
    }
}

/// A request under way.
pub struct Busy {
    pace: Arc<Pace>,
    id: u64,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.pace.state();
        state.due.remove(&self.id);
        state.busy -= 1;
        if state.busy == 0 {
            state.idle = Some(Instant::now());
        }
    }
}

/// An answer's body, which holds what the request holds until it is sent.
pub struct Held {
    body: Body,
    _busy: Busy,
    _seat: Seat,
    _goes_on: Option<LongRunning>,
}

impl Held {
    /// Puts them together. What is in memory as a whole needs no seat any more, however slowly it is taken.
    pub fn new(body: Body, busy: Busy, seat: Seat) -> Self {
        let seat = seat.filter(|_| !matches!(body, Body::Full(_)));
        Held { body, _busy: busy, _seat: seat, _goes_on: None }
    }

    /// Counts it as one that goes on for long.
    pub fn with(self, goes_on: Option<LongRunning>) -> Self {
        Held { _goes_on: goes_on, ..self }
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn seats_are_handed_on_in_line() {
        let seats = Seats::new(0, 1, Duration::from_secs(15));
        assert!(seats.take(Verb::Get, false).await.unwrap().is_none(), "0 is no limit");
        let first = seats.take(Verb::Create, false).await.unwrap();
        assert!(seats.take(Verb::Delete, false).await.is_none(), "the only one is taken");
        let (second, ()) = tokio::join!(seats.take(Verb::Patch, false), async { drop(first) });
        assert!(second.is_some());
        let waiting: Vec<_> = (0..WAITING + 1).map(|_| seats.take(Verb::Update, false)).collect();
        let started = tokio::time::Instant::now();
        let mut waiting = waiting.into_iter().map(Box::pin).collect::<Vec<_>>();
        for waiting in &mut waiting[..WAITING] {
            assert!(futures::poll!(waiting).is_pending());
        }
        assert!(waiting[WAITING].as_mut().await.is_none() && started.elapsed().is_zero(), "the line is full");
        drop(second);
        let seats = Seats::new(20, 1, Duration::ZERO);
        let strangers = [seats.take(Verb::Get, true).await, seats.take(Verb::Create, true).await];
        assert!(strangers.iter().all(Option::is_some), "a tenth is theirs");
        assert!(seats.take(Verb::Get, true).await.is_none() && seats.take(Verb::Get, false).await.is_some());
    }

    #[test]
    fn connections_are_judged_by_what_is_under_way() {
        let start = Instant::now();
        let pace = Pace::new(start);
        assert_eq!((pace.judge(start), pace.judge(start + HEAD)), (Verdict::Stay, Verdict::Idle));
        let watch = pace.begin(None);
        let list = pace.begin(Some(start));
        assert_eq!(pace.judge(start + GRACE), Verdict::Stay);
        assert_eq!(pace.judge(start + GRACE * 2), Verdict::Stalled);
        drop(list);
        assert_eq!(pace.judge(start + IDLE * 9), Verdict::Stay);
        drop(watch);
        assert_eq!(pace.judge(Instant::now()), Verdict::Stay);
        assert_eq!(pace.judge(Instant::now() + IDLE), Verdict::Idle);
    }
}
