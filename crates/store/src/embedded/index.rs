//! Where the newest value of every key stands in the log.

use super::record;
use crate::{KeyValue, Revision};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The number of a file of the log.
pub type SegmentId = u32;

/// Where a value stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slot {
    /// The revision that wrote it.
    pub revision: Revision,
    /// When it goes away by itself, in Unix seconds; 0 for never.
    pub expiry: u64,
    /// The file.
    pub segment: SegmentId,
    /// The value's place in it.
    pub at: u32,
    /// The value's length.
    pub length: u32,
}

/// A file of the log.
#[derive(Debug)]
pub struct Segment {
    /// The file. Who reads from it may go on when it is removed.
    pub file: Arc<File>,
    /// Bytes that count; a write that failed may have left others behind them.
    pub length: u64,
    /// Bytes of frames that say the newest of their key.
    pub live: u64,
}

/// All keys. Their values stay on the disk: whoever asks for many keeps them itself.
#[derive(Debug, Default)]
pub struct Index {
    /// The newest change.
    pub revision: Revision,
    /// The files, oldest first.
    pub segments: BTreeMap<SegmentId, Segment>,
    keys: BTreeMap<Arc<str>, Slot>,
    expiries: BTreeSet<(u64, Arc<str>)>,
}

impl Index {
    /// Where a key's value stands.
    pub fn get(&self, key: &str) -> Option<&Slot> {
        self.keys.get(key)
    }

    /// A key as it is kept, and where its value stands.
    pub fn get_key(&self, key: &str) -> Option<(&Arc<str>, &Slot)> {
        self.keys.get_key_value(key)
    }

    /// The keys from `start` on, in order.
    pub fn range<'a>(
        &'a self,
        start: std::ops::Bound<&'a str>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Slot)> {
        self.keys.range::<str, _>((start, std::ops::Bound::Unbounded))
    }

    /// Puts a key's value there, or takes the key out.
    pub fn set(&mut self, key: Arc<str>, slot: Option<Slot>) {
        let old = match slot {
            Some(slot) => {
                if slot.expiry != 0 {
                    self.expiries.insert((slot.expiry, key.clone()));
                }
                self.count(&key, &slot, |live, length| live + length);
                self.keys.insert(key.clone(), slot)
            }
            None => self.keys.remove(&key),
        };
        if let Some(old) = old {
            if old.expiry != 0 && slot.is_none_or(|slot| slot.expiry != old.expiry) {
                self.expiries.remove(&(old.expiry, key.clone()));
            }
            self.count(&key, &old, |live, length| live.saturating_sub(length));
        }
    }

    fn count(&mut self, key: &str, slot: &Slot, change: impl Fn(u64, u64) -> u64) {
        if let Some(segment) = self.segments.get_mut(&slot.segment) {
            segment.live = change(segment.live, record::frame_length(key.len(), slot.length as usize));
        }
    }

    /// The first key that goes away by itself, and when.
    pub fn next_expiry(&self) -> Option<&(u64, Arc<str>)> {
        self.expiries.first()
    }

    /// The keys whose time has come, and when it came.
    pub fn expired(&self, now: u64) -> impl Iterator<Item = &(u64, Arc<str>)> {
        self.expiries.iter().take_while(move |(at, _)| *at <= now)
    }

    /// Bytes of the log that count, and those of them that say the newest of a key.
    pub fn sizes(&self) -> (u64, u64) {
        self.segments.values().fold((0, 0), |(all, live), s| (all + s.length, live + s.live))
    }

    /// The file in which a value stands.
    pub fn file(&self, slot: &Slot) -> io::Result<Arc<File>> {
        let gone = || io::Error::other(format!("no file {} in the log", slot.segment));
        self.segments.get(&slot.segment).map(|s| s.file.clone()).ok_or_else(gone)
    }
}

/// Reads a key's value.
pub fn value(key: Arc<str>, slot: &Slot, file: &File) -> io::Result<KeyValue> {
    let mut value = vec![0; slot.length as usize];
    file.read_exact_at(&mut value, slot.at.into())?;
    Ok(KeyValue { key, value: Bytes::from(value), mod_revision: slot.revision })
}
