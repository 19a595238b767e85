//! The log against a model: whatever is done, and wherever it stops, what was synced is there afterwards, what was
//! not is there up to some point in time, and nothing else is.

use super::super::index;
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Small, so that a few writes fill some.
const SMALL: u64 = 2_000;

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: u8,
        length: u16,
        expires: bool,
    },
    Delete {
        key: u8,
    },
    Write {
        durable: bool,
    },
    Clean,
    /// The process ends and begins again, as it should or not.
    Restart {
        cleanly: bool,
    },
    /// Nobody knows what of the last write is on the disk.
    Reopen,
    /// The machine stops: of what was not synced a part is left, and some of that is not what was written.
    Crash {
        left: f64,
        garbled: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0..12u8, 0..400u16, any::<bool>()).prop_map(|(key, length, expires)| Step::Put { key, length, expires }),
        4 => (0..12u8).prop_map(|key| Step::Delete { key }),
        6 => any::<bool>().prop_map(|durable| Step::Write { durable }),
        6 => Just(Step::Clean),
        1 => any::<bool>().prop_map(|cleanly| Step::Restart { cleanly }),
        1 => Just(Step::Reopen),
        1 => (0.0..1.0f64, any::<bool>()).prop_map(|(left, garbled)| Step::Crash { left, garbled }),
    ];
    vec(step, 1..200)
}

/// What the store holds: revision, expiry and value of each key.
type State = BTreeMap<String, (u64, u64, Vec<u8>)>;

fn state(log: &Log) -> State {
    let index = log.read();
    let values = index.range(std::ops::Bound::Unbounded).map(|(key, slot)| {
        let kv = index::value(key.clone(), slot, &index.file(slot).unwrap()).unwrap();
        (key.to_string(), (slot.revision, slot.expiry, kv.value.to_vec()))
    });
    values.collect()
}

fn newest_file(dir: &Path) -> PathBuf {
    let files = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    files.filter(|p| p.extension().is_some_and(|e| e == "log")).max().unwrap()
}

struct Run {
    dir: tempfile::TempDir,
    log: Option<Log>,
    /// What is written; and what was after each change since all was last synced.
    written: State,
    past: Vec<State>,
    /// What is put and not written yet, change by change.
    open: State,
    pending: Vec<State>,
    revision: Revision,
    handed_out: Revision,
}

impl Run {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), SMALL).unwrap();
        let revision = log.read().revision;
        let empty = State::new();
        let past = vec![empty.clone()];
        Run {
            dir,
            log: Some(log),
            written: empty.clone(),
            past,
            open: empty,
            pending: Vec::new(),
            revision,
            handed_out: revision,
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn begin(&mut self) {
        if self.log().buffer.is_empty() {
            self.log().begin().unwrap();
        }
        self.revision += 1;
    }

    fn write(&mut self, durable: bool) {
        let revision = self.revision;
        self.log().write(revision, durable).unwrap();
        self.handed_out = revision;
        self.written = self.open.clone();
        self.past.append(&mut self.pending);
        self.synced();
    }

    /// Forgets what can't come back.
    fn synced(&mut self) {
        let head = &self.log().head;
        if head.synced == head.length {
            self.past = vec![self.written.clone()];
        }
    }

    /// Opens it again. What was written and not synced may be lost from some point on.
    fn again(&mut self, lost: bool) {
        let log = Log::open(self.dir.path(), SMALL).unwrap();
        let now = state(&log);
        match lost {
            true => assert!(self.past.contains(&now), "{now:?} never was"),
            false => assert_eq!(now, self.written),
        }
        self.revision = log.read().revision;
        assert!(self.revision >= self.handed_out, "a revision is used twice");
        self.log = Some(log);
        self.pending.clear();
        (self.written, self.open) = (now.clone(), now);
        self.synced();
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Put { key, length, expires } => {
                self.begin();
                let (key, revision) = (format!("/r/{key}"), self.revision);
                let (expiry, value) =
                    (if expires { revision } else { 0 }, vec![key.len() as u8; length.into()]);
                self.log().put(key.as_str().into(), revision, expiry, &value);
                self.open.insert(key, (revision, expiry, value));
                self.pending.push(self.open.clone());
            }
            Step::Delete { key } => {
                self.begin();
                let (key, revision) = (format!("/r/{key}"), self.revision);
                self.log().delete(key.as_str().into(), revision);
                self.open.remove(&key);
                self.pending.push(self.open.clone());
            }
            Step::Write { durable } => self.write(durable),
            Step::Clean => {
                self.write(false);
                self.log().clean(100).unwrap();
                self.synced();
            }
            Step::Restart { cleanly } => {
                self.write(false);
                if cleanly {
                    self.log().close().unwrap();
                }
                self.log = None;
                self.again(false);
                if cleanly {
                    assert_eq!(self.revision, self.handed_out.max(1));
                }
            }
            Step::Reopen => {
                self.write(false);
                self.log().reopen().unwrap();
                let now = state(self.log());
                assert!(self.past.contains(&now), "{now:?} never was");
                let revision = self.log().read().revision;
                self.revision = revision;
                assert!(self.revision >= self.handed_out, "a revision is used twice");
                self.pending.clear();
                (self.written, self.open) = (now.clone(), now);
                self.synced();
            }
            Step::Crash { left, garbled } => {
                let log = self.log.take().unwrap();
                let (synced, length) = (log.head.synced, log.head.length);
                let path = log.dir.join(name(log.head.id));
                drop(log);
                let kept = synced + ((length - synced) as f64 * left) as u64;
                let file = File::options().write(true).open(path).unwrap();
                if garbled && kept > synced {
                    file.write_all_at(&[0xa5], kept - 1).unwrap();
                } else {
                    file.set_len(kept).unwrap();
                }
                self.again(true);
            }
        }
        let log = self.log.as_ref().unwrap();
        assert_eq!(state(log), self.written);
        let expiries: Vec<u64> = log.read().expired(u64::MAX).map(|(at, _)| *at).collect();
        let mut expected: Vec<u64> = self.written.values().map(|v| v.1).filter(|e| *e != 0).collect();
        expected.sort_unstable();
        assert_eq!(expiries, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn keeps_what_it_was_told(steps in steps()) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
        }
    }
}

/// Writes many values of a few keys.
fn churn(log: &mut Log, changes: u64) {
    for _ in 0..changes {
        let revision = log.read().revision + 1;
        log.begin().unwrap();
        log.put(format!("/r/{}", revision % 20).into(), revision, 0, &[7; 200]);
        log.write(revision, revision.is_multiple_of(5)).unwrap();
        log.clean(250).unwrap();
    }
}

#[test]
fn the_past_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), SMALL).unwrap();
    churn(&mut log, 5_000);
    let (all, live) = log.read().sizes();
    assert_eq!(live, state(&log).keys().map(|k| record::frame_length(k.len(), 200)).sum::<u64>());
    assert!(all < 2 * live + 4 * SMALL, "{all} bytes for {live}");
    let files = std::fs::read_dir(dir.path()).unwrap().count() - 1;
    assert_eq!(files, log.read().segments.len());
}

#[test]
fn what_is_damaged_is_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), SMALL).unwrap();
    churn(&mut log, 40);
    let (oldest, newest) = {
        let index = log.read();
        (*index.segments.keys().next().unwrap(), log.head.id)
    };
    assert_ne!(oldest, newest);
    drop(log);
    for (id, at) in [(oldest, 500), (newest, HEADER.len() as u64 + 60), (oldest, 3)] {
        let path = dir.path().join(name(id));
        let whole = std::fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[at as usize] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let refused = Log::open(dir.path(), SMALL).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains(&name(id)), "{refused}");
        std::fs::write(&path, &whole).unwrap();
    }
    std::fs::remove_file(dir.path().join(name(oldest + 1))).unwrap();
    let refused = Log::open(dir.path(), SMALL).map(|_| ()).unwrap_err().to_string();
    assert!(refused.ends_with("is missing"), "{refused}");
}

#[test]
fn a_segment_that_was_being_made_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), SMALL).unwrap();
    churn(&mut log, 3);
    let before = (state(&log), log.head.id);
    drop(log);
    let next = dir.path().join(name(before.1 + 1));
    for start in [&b""[..], &HEADER[..5], &[0; 40]] {
        std::fs::write(&next, start).unwrap();
        let log = Log::open(dir.path(), SMALL).unwrap();
        assert_eq!((state(&log), log.head.id), (before.0.clone(), before.1 + 1));
    }
    assert_eq!(newest_file(dir.path()), next);
}

#[test]
fn what_was_not_synced_is_dropped_when_it_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), SMALL).unwrap();
    let first = log.read().revision + 1;
    log.put("/r/a".into(), first, 0, b"synced");
    log.write(first, true).unwrap();
    log.put("/r/a".into(), first + 1, 0, b"not");
    log.write(first + 1, false).unwrap();
    log.reopen().unwrap();
    assert_eq!(state(&log)["/r/a"].2, b"synced");
    assert!(log.read().revision > first, "what was seen is not seen as new again");
    drop(log);
    assert_eq!(state(&Log::open(dir.path(), SMALL).unwrap())["/r/a"].2, b"synced");
}
