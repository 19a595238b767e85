//! The files of the embedded store: a log of changes, the newest last, in segments of some megabytes.
//!
//! A change is a frame at the end of the newest segment. Where the newest value of a key stands is kept in memory
//! ([`Index`]) and found again by reading all segments. When more than half of the log is of the past, the oldest
//! segment is read a piece at a time, what is still the newest of its key is written again at the end, and the file
//! is removed. As it is always the oldest that goes, a removal of a key may go with it: nothing older is left that
//! could bring the key back.

use super::OpenError;
use super::index::{Index, Segment, SegmentId, Slot};
use super::record::{self, Frame, HEADER, Record};
use crate::Revision;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

#[cfg(test)]
mod tests;

/// How long a segment gets, unless a test says otherwise.
pub const SEGMENT: u64 = 16 << 20;
/// Revisions are handed out from a block that is on disk before its first is used, so that none is
/// used twice after a crash that lost commits held in memory.
const REVISION_BLOCK: u64 = 100_000;
/// Bytes read at a time.
const CHUNK: usize = 256 << 10;
/// What is cleaned after a write: so many times its bytes, and at least such a part of a segment.
const CLEANED_TIMES: u64 = 4;
const CLEANED_PART: u64 = 256;

/// Why something was not written.
#[derive(Debug)]
pub enum Failure {
    /// Nothing was, and all is as before.
    Nothing(io::Error),
    /// It may or may not be on the disk: the log has to be read again.
    Unknown(io::Error),
}

impl Failure {
    /// Why.
    pub fn into_error(self) -> io::Error {
        let (Failure::Nothing(e) | Failure::Unknown(e)) = self;
        e
    }
}

/// The log.
pub struct Log {
    dir: PathBuf,
    /// A new segment is begun when one is this long; and so much of the past may be kept, however little is new.
    segment: u64,
    /// Held for as long as the store is open.
    _lock: File,
    index: Arc<RwLock<Index>>,
    head: Head,
    reserved: Revision,
    /// Frames to be written, and what they change.
    buffer: Vec<u8>,
    changes: Vec<(Arc<str>, Option<Slot>)>,
    /// How far the oldest segment is cleaned.
    cleaned: Option<u64>,
}

/// The segment that is written to.
struct Head {
    id: SegmentId,
    file: Arc<File>,
    length: u64,
    /// Bytes that are known to be on the disk.
    synced: u64,
}

impl Log {
    /// Opens the log in `dir`, which is there, or begins one, in segments of such a length.
    pub fn open(dir: &Path, segment: u64) -> Result<Self, OpenError> {
        let path = dir.join("lock");
        let fail = |e: io::Error| OpenError::file(&path, e);
        let lock = File::options().create(true).write(true).truncate(false).open(&path).map_err(fail)?;
        lock.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => OpenError::InUse(dir.into()),
            TryLockError::Error(e) => fail(e),
        })?;
        let (index, head, reserved) = load(dir)?;
        let index = Arc::new(RwLock::new(index));
        let (buffer, changes) = (Vec::new(), Vec::new());
        let mut log = Log {
            dir: dir.into(),
            segment,
            _lock: lock,
            index,
            head,
            reserved,
            buffer,
            changes,
            cleaned: None,
        };
        log.reserve().map_err(|e| OpenError::file(dir, e))?;
        Ok(log)
    }

    /// Reads everything again, after a [`Failure::Unknown`]. What was not synced is dropped: nobody was told that it is
    /// on the disk, and of what the kernel failed to write it may show pages that are only in its memory.
    pub fn reopen(&mut self) -> Result<(), OpenError> {
        let (id, synced) = (self.head.id, self.head.synced);
        if synced > 0 {
            let path = self.dir.join(name(id));
            self.head.file.set_len(synced).map_err(|e| OpenError::file(&path, e))?;
        }
        let revision = self.read().revision;
        let (mut index, head, reserved) = load(&self.dir)?;
        // What was seen is never taken back.
        index.revision = index.revision.max(revision);
        (self.head, self.reserved, self.cleaned) = (head, reserved, None);
        if self.head.id == id {
            self.head.synced = synced;
        }
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = index;
        self.reserve().map_err(|e| OpenError::file(&self.dir, e))
    }

    /// Where everything stands, for those who only read.
    pub fn index(&self) -> &Arc<RwLock<Index>> {
        &self.index
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a block of revisions.
    fn reserve(&mut self) -> io::Result<()> {
        let revision = self.read().revision;
        self.put_reserve(revision + REVISION_BLOCK);
        self.write(revision, true).map_err(Failure::into_error)
    }

    fn put_reserve(&mut self, revision: Revision) {
        record::write(&mut self.buffer, &Record::Reserve { revision }, self.head.synced as u32);
        self.reserved = revision;
    }

    /// Makes room before frames are put: a new segment if the newest is full.
    pub fn begin(&mut self) -> Result<(), Failure> {
        if self.head.length < self.segment {
            return Ok(());
        }
        self.sync()?;
        let head = create(&self.dir, self.head.id + 1, self.reserved).map_err(Failure::Nothing)?;
        let segment = Segment { file: head.file.clone(), length: head.length, live: 0 };
        self.index.write().unwrap_or_else(PoisonError::into_inner).segments.insert(head.id, segment);
        self.head = head;
        Ok(())
    }

    /// A key's value, to be written.
    pub fn put(&mut self, key: Arc<str>, revision: Revision, expiry: u64, value: &[u8]) {
        let record = Record::Put { key: &key, revision, expiry, value };
        let at = record::write(&mut self.buffer, &record, self.head.synced as u32);
        let at = (self.head.length + at as u64) as u32;
        let slot = Slot { revision, expiry, segment: self.head.id, at, length: value.len() as u32 };
        self.changes.push((key, Some(slot)));
    }

    /// A key's removal, to be written.
    pub fn delete(&mut self, key: Arc<str>, revision: Revision) {
        record::write(&mut self.buffer, &Record::Delete { key: &key, revision }, self.head.synced as u32);
        self.changes.push((key, None));
    }

    /// Writes all that was put, up to `revision`; if it is to be `durable`, to the disk.
    pub fn write(&mut self, revision: Revision, durable: bool) -> Result<(), Failure> {
        let (reserved, mut durable) = (self.reserved, durable);
        if revision >= reserved {
            self.put_reserve(revision + REVISION_BLOCK);
            durable = true;
        }
        let written = self.write_buffer(durable);
        self.buffer.clear();
        // One large group does not cost memory for ever.
        self.buffer.shrink_to(CHUNK);
        let changes = std::mem::take(&mut self.changes);
        if let Err(e) = written {
            self.reserved = reserved;
            return Err(e);
        }
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        changes.into_iter().for_each(|(key, slot)| index.set(key, slot));
        index.revision = revision;
        if let Some(segment) = index.segments.get_mut(&self.head.id) {
            segment.length = self.head.length;
        }
        Ok(())
    }

    fn write_buffer(&mut self, durable: bool) -> Result<(), Failure> {
        let head = &mut self.head;
        if let Err(e) = head.file.write_all_at(&self.buffer, head.length) {
            return Err(match head.file.set_len(head.length) {
                Ok(()) => Failure::Nothing(e),
                Err(_) => Failure::Unknown(e),
            });
        }
        head.length += self.buffer.len() as u64;
        match durable {
            true => self.sync(),
            false => Ok(()),
        }
    }

    /// Brings all that is written to the disk.
    pub fn sync(&mut self) -> Result<(), Failure> {
        // After a failure the kernel may have dropped what it could not write.
        self.head.file.sync_data().map_err(Failure::Unknown)?;
        self.head.synced = self.head.length;
        Ok(())
    }

    /// Goes on with taking the past out of the log, if there is too much of it, after `written` bytes.
    pub fn clean(&mut self, written: u64) -> Result<(), Failure> {
        let (id, file, length) = {
            let index = self.read();
            let (all, live) = index.sizes();
            let Some((&id, oldest)) = index.segments.first_key_value() else { return Ok(()) };
            if id == self.head.id || self.cleaned.is_none() && all - live <= live.max(self.segment) {
                return Ok(());
            }
            (id, oldest.file.clone(), oldest.length)
        };
        self.begin()?;
        let mut scan = Scan::new(file, self.cleaned.unwrap_or(HEADER.len() as u64), length);
        let until = scan.at + (self.segment / CLEANED_PART).max(CLEANED_TIMES * written);
        if let Err(e) = self.put_again(id, &mut scan, until.min(length)) {
            self.buffer.clear();
            self.changes.clear();
            return Err(Failure::Nothing(e));
        }
        let revision = self.read().revision;
        self.write(revision, false)?;
        self.cleaned = Some(scan.at);
        if scan.at < length {
            return Ok(());
        }
        // What was written again is on the disk before the file goes; the file is gone before the next one goes.
        self.sync()?;
        match std::fs::remove_file(self.dir.join(name(id))) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Failure::Nothing(e)),
            _ => sync_dir(&self.dir).map_err(Failure::Nothing)?,
        }
        self.index.write().unwrap_or_else(PoisonError::into_inner).segments.remove(&id);
        self.cleaned = None;
        Ok(())
    }

    /// Puts what a segment says the newest of, up to a place.
    fn put_again(&mut self, id: SegmentId, scan: &mut Scan, until: u64) -> io::Result<()> {
        while scan.at < until {
            let at = scan.at;
            let damaged = || io::Error::other(format!("{} is damaged at {at}", name(id)));
            let frame = scan.next()?.ok_or_else(damaged)?;
            let Record::Put { key, revision, expiry, value } = frame.record else { continue };
            let value_at = at + (frame.length - value.len()) as u64;
            let kept = {
                let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
                let newest = |slot: &Slot| slot.segment == id && u64::from(slot.at) == value_at;
                index.get_key(key).filter(|(_, slot)| newest(slot)).map(|(key, _)| key.clone())
            };
            if let Some(key) = kept {
                self.put(key, revision, expiry, value);
            }
        }
        Ok(())
    }

    /// Writes everything down and gives back the revisions that were reserved and not used.
    pub fn close(&mut self) -> Result<(), Failure> {
        let revision = self.read().revision;
        record::write(&mut self.buffer, &Record::Reserve { revision }, self.head.synced as u32);
        self.write_buffer(true)
    }
}

fn name(id: SegmentId) -> String {
    format!("{id:010}.log")
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Begins a segment; it is on the disk when this returns.
fn create(dir: &Path, id: SegmentId, reserved: Revision) -> io::Result<Head> {
    let path = dir.join(name(id));
    let file = File::options().create(true).truncate(true).read(true).write(true).open(path)?;
    let mut start = HEADER.to_vec();
    record::write(&mut start, &Record::Reserve { revision: reserved }, 0);
    file.write_all_at(&start, 0)?;
    file.sync_all()?;
    sync_dir(dir)?;
    let length = start.len() as u64;
    Ok(Head { id, file: Arc::new(file), length, synced: length })
}

/// Reads all segments.
fn load(dir: &Path) -> Result<(Index, Head, Revision), OpenError> {
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| OpenError::file(dir, e))? {
        let file = entry.map_err(|e| OpenError::file(dir, e))?.file_name();
        ids.extend(file.to_str().and_then(|f| f.strip_suffix(".log")?.parse::<SegmentId>().ok()));
    }
    ids.sort_unstable();
    if let Some(gap) = ids.windows(2).find(|w| w[1] - w[0] != 1) {
        return Err(OpenError::file(&dir.join(name(gap[1] - 1)), "is missing"));
    }
    let mut index = Index::default();
    let mut reserved = 1; // the API has no revision 0
    let mut head = None;
    for &id in &ids {
        let path = dir.join(name(id));
        let newest = ids.last() == Some(&id);
        head = replay(&path, id, newest, &mut index, &mut reserved).map_err(|e| OpenError::file(&path, e))?;
    }
    let head = match head {
        Some(head) => head,
        // There is none, or it was being made when the machine stopped.
        None => {
            let id = ids.last().copied().unwrap_or(1);
            let head = create(dir, id, reserved).map_err(|e| OpenError::file(&dir.join(name(id)), e))?;
            index.segments.insert(id, Segment { file: head.file.clone(), length: head.length, live: 0 });
            head
        }
    };
    // A clean close has written `reserved` back down to what was used.
    index.revision = index.revision.max(reserved);
    Ok((index, head, reserved))
}

/// Takes a segment's changes into the index. `None` for the `newest` if nothing was written to it yet.
fn replay(
    path: &Path,
    id: SegmentId,
    newest: bool,
    index: &mut Index,
    reserved: &mut Revision,
) -> io::Result<Option<Head>> {
    let file = Arc::new(File::options().read(true).write(true).open(path)?);
    let end = file.metadata()?.len();
    let mut header = [0; HEADER.len()];
    let there = usize::try_from(end).unwrap_or(usize::MAX).min(header.len());
    file.read_exact_at(&mut header[..there], 0)?;
    if header != HEADER {
        return match newest && (there < header.len() || header == [0; HEADER.len()]) {
            true => Ok(None),
            false => Err(io::Error::other("is not a log, or one of a newer version")),
        };
    }
    let segment = Segment { file: file.clone(), length: HEADER.len() as u64, live: 0 };
    index.segments.insert(id, segment);
    let mut scan = Scan::new(file.clone(), HEADER.len() as u64, end);
    loop {
        let at = scan.at;
        let Some(Frame { record, length, .. }) = scan.next()? else { break };
        match record {
            Record::Put { key, revision, expiry, value } => {
                let value_at = at + (length - value.len()) as u64;
                let slot =
                    Slot { revision, expiry, segment: id, at: value_at as u32, length: value.len() as u32 };
                let key = index.get_key(key).map_or_else(|| key.into(), |(key, _)| key.clone());
                index.revision = index.revision.max(revision);
                index.set(key, Some(slot));
            }
            Record::Delete { key, revision } => {
                index.revision = index.revision.max(revision);
                if let Some(key) = index.get_key(key).map(|(key, _)| key.clone()) {
                    index.set(key, None);
                }
            }
            Record::Reserve { revision } => *reserved = revision,
        }
    }
    let length = scan.at;
    if length < end {
        // A machine that stopped leaves the end of the newest segment unfinished. Anything else was lost.
        if !newest || was_synced(&file, length, end)? {
            let why = format!("is damaged at {length}: what was there is lost");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        tracing::warn!(path = %path.display(), bytes = end - length, "dropping what was being written when the store stopped");
        file.set_len(length)?;
    }
    if let Some(segment) = index.segments.get_mut(&id) {
        segment.length = length;
    }
    Ok(Some(Head { id, file, length, synced: 0 }))
}

/// Whether a frame after `at`, where there should be one and is none, knew that place to be on the disk.
fn was_synced(file: &File, at: u64, end: u64) -> io::Result<bool> {
    let mut rest = vec![0; usize::try_from(end - at).map_err(io::Error::other)?];
    file.read_exact_at(&mut rest, at)?;
    let mut place = 1;
    while place < rest.len() {
        match record::read(&rest[place..]) {
            Some(frame) if u64::from(frame.synced) > at => return Ok(true),
            Some(frame) => place += frame.length,
            None => place += 1,
        }
    }
    Ok(false)
}

/// Reads frames one after the other.
struct Scan {
    file: Arc<File>,
    /// Where the next frame stands.
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl Scan {
    fn new(file: Arc<File>, at: u64, end: u64) -> Self {
        Scan { file, at, end, buffer: Vec::new(), used: 0 }
    }

    /// The next frame; `None` at the end, and where there is none.
    fn next(&mut self) -> io::Result<Option<Frame<'_>>> {
        if !self.fill(record::FRAME)? {
            return Ok(None);
        }
        let Some(length) = record::length(&self.buffer[self.used..]) else { return Ok(None) };
        if !self.fill(length)? {
            return Ok(None);
        }
        let frame = record::read(&self.buffer[self.used..]);
        if let Some(frame) = &frame {
            self.used += frame.length;
            self.at += frame.length as u64;
        }
        Ok(frame)
    }

    /// Makes `wanted` bytes of the next frame be there; whether the file has them.
    fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        if self.buffer.len() - self.used >= wanted {
            return Ok(true);
        }
        if self.end - self.at < wanted as u64 {
            return Ok(false);
        }
        self.buffer.drain(..self.used);
        self.used = 0;
        let there = self.buffer.len();
        let left = self.end - self.at - there as u64;
        let more = (wanted.max(CHUNK) - there).min(usize::try_from(left).unwrap_or(usize::MAX));
        self.buffer.resize(there + more, 0);
        self.file.read_exact_at(&mut self.buffer[there..], self.at + there as u64)?;
        Ok(true)
    }
}
