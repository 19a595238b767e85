//! Changes that wait for one watcher: so many, so many bytes. One that falls further behind loses all of them,
//! at once and whether it reads or not; its watch ends, and it starts anew from the last change it was told.

use super::collection::Change;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Changes that may wait,
const LENGTH: usize = 1024;
/// and bytes of their objects.
const BYTES: usize = 8 << 20;

#[derive(Default)]
struct Waiting {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    ended: bool,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Shared(Mutex<Waiting>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A queue's end for the collection. Dropped, the watch ends after what waits.
pub struct Sender(Arc<Shared>);

/// A queue's end for the watch.
pub struct Changes(Arc<Shared>);

/// An empty queue.
pub fn queue() -> (Sender, Changes) {
    let shared = Arc::<Shared>::default();
    (Sender(shared.clone()), Changes(shared))
}

impl Sender {
    /// Whether nobody takes changes any more.
    pub fn is_closed(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Puts a change in the queue. If it is full or closed, that is its end.
    pub fn send(&self, change: &Arc<Change>) -> bool {
        if self.is_closed() {
            return false;
        }
        let mut waiting = self.0.lock();
        let bytes = waiting.bytes + change.entry.json.len();
        let fits = waiting.changes.is_empty() || waiting.changes.len() < LENGTH && bytes <= BYTES;
        if fits {
            waiting.bytes = bytes;
            waiting.changes.push_back(change.clone());
        } else {
            waiting.changes = VecDeque::new();
            waiting.ended = true;
        }
        let waker = waiting.waker.take();
        drop(waiting);
        waker.into_iter().for_each(Waker::wake);
        fits
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.ended = true;
        let waker = waiting.waker.take();
        drop(waiting);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Changes {
    /// The next change; `None` at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arc<Change>>> {
        let mut waiting = self.0.lock();
        if let Some(change) = waiting.changes.pop_front() {
            waiting.bytes = waiting.bytes.saturating_sub(change.entry.json.len());
            return Poll::Ready(Some(change));
        }
        if waiting.ended {
            return Poll::Ready(None);
        }
        waiting.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{ChangeKind, Entry};

    fn change(revision: u64, size: usize) -> Arc<Change> {
        let json = format!(r#"{{"metadata":{{"name":"a"}},"data":"{}"}}"#, "x".repeat(size));
        let entry = Entry::new("a/a".into(), revision, json.as_bytes(), &[]).unwrap();
        Arc::new(Change::new(ChangeKind::Modified, Arc::new(entry), None))
    }

    fn next(changes: &mut Changes) -> Poll<Option<u64>> {
        let mut cx = Context::from_waker(Waker::noop());
        changes.poll_next(&mut cx).map(|c| c.map(|c| c.entry.revision))
    }

    #[test]
    fn hands_on_in_order_and_ends_with_its_sender() {
        let (sender, mut changes) = queue();
        assert!(next(&mut changes).is_pending());
        assert!(sender.send(&change(1, 0)) && sender.send(&change(2, 0)));
        drop(sender);
        let told: Vec<_> = (0..3).map(|_| next(&mut changes)).collect();
        assert_eq!(told, [Poll::Ready(Some(1)), Poll::Ready(Some(2)), Poll::Ready(None)]);
        let (sender, changes) = queue();
        drop(changes);
        assert!(sender.is_closed() && !sender.send(&change(1, 0)));
    }

    #[test]
    fn who_falls_behind_is_ended_and_holds_nothing() {
        for (size, fit) in [(0, LENGTH), (1 << 20, 7), (BYTES * 2, 1)] {
            let (sender, mut changes) = queue();
            let one = change(7, size);
            for _ in 0..fit {
                assert!(sender.send(&one), "{size}");
            }
            assert!(!sender.send(&one), "{size}");
            assert_eq!((next(&mut changes), Arc::strong_count(&one)), (Poll::Ready(None), 1), "{size}");
        }
    }
}
