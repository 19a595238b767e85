//! How changes are written down: the frames of a log file.
//!
//! A file is [`HEADER`] and then frames, one after the other. A frame is, all numbers little-endian: the length
//! of its payload (4 bytes), the CRC-32 of all that follows (4), how much of the file was known to be on the disk
//! when the frame was written (4), and the payload: what it is (1), a revision (8), an expiry in Unix seconds or 0
//! (8), the length of the key (4), the key, the value.

/// What a file starts with: what it is, and in which version of the format.
pub const HEADER: [u8; 16] = *b"ferrokube log 1\n";

/// Bytes of a frame before its payload.
pub const FRAME: usize = 12;
/// Bytes of a payload before its key.
const FIXED: usize = 21;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const RESERVE: u8 = 3;

/// What one frame says.
#[derive(Debug, PartialEq)]
pub enum Record<'a> {
    /// A key has this value.
    Put {
        /// The key.
        key: &'a str,
        /// The revision that wrote it.
        revision: u64,
        /// When it goes away by itself, in Unix seconds; 0 for never.
        expiry: u64,
        /// The value.
        value: &'a [u8],
    },
    /// A key is not there.
    Delete {
        /// The key.
        key: &'a str,
        /// The revision that removed it.
        revision: u64,
    },
    /// Revisions up to this one may have been handed out.
    Reserve {
        /// The revision.
        revision: u64,
    },
}

/// Bytes of the frame of a key and its value.
pub fn frame_length(key: usize, value: usize) -> u64 {
    (FRAME + FIXED + key + value) as u64
}

/// Appends a frame. Answers where in `out` its value starts.
pub fn write(out: &mut Vec<u8>, record: &Record<'_>, synced: u32) -> usize {
    let (kind, revision, expiry, key, value): (u8, u64, u64, &str, &[u8]) = match *record {
        Record::Put { key, revision, expiry, value } => (PUT, revision, expiry, key, value),
        Record::Delete { key, revision } => (DELETE, revision, 0, key, &[]),
        Record::Reserve { revision } => (RESERVE, revision, 0, "", &[]),
    };
    let start = out.len();
    out.extend_from_slice(&((FIXED + key.len() + value.len()) as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&synced.to_le_bytes());
    out.push(kind);
    out.extend_from_slice(&revision.to_le_bytes());
    out.extend_from_slice(&expiry.to_le_bytes());
    out.extend_from_slice(&(key.len() as u32).to_le_bytes());
    out.extend_from_slice(key.as_bytes());
    let value_at = out.len();
    out.extend_from_slice(value);
    let sum = crc32fast::hash(&out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
    value_at
}

/// A frame that was read.
#[derive(Debug, PartialEq)]
pub struct Frame<'a> {
    /// What it says.
    pub record: Record<'a>,
    /// What it knew to be on the disk.
    pub synced: u32,
    /// Its bytes.
    pub length: usize,
}

/// The bytes of the frame that starts with these, if it is one: it takes [`FRAME`] of them to know.
pub fn length(bytes: &[u8]) -> Option<usize> {
    let payload = u32_at(bytes.get(..FRAME)?, 0) as usize;
    (payload >= FIXED).then_some(FRAME + payload)
}

/// Reads the frame that `bytes` start with; `None` if it is not as it was written, or not all of it.
pub fn read(bytes: &[u8]) -> Option<Frame<'_>> {
    let frame = bytes.get(..length(bytes)?)?;
    let payload = &frame[FRAME..];
    let (kind, key) = (payload[0], u32_at(payload, 17) as usize);
    // What can be wrong is looked at before what takes long.
    if !(PUT..=RESERVE).contains(&kind)
        || key > payload.len() - FIXED
        || crc32fast::hash(&frame[8..]) != u32_at(frame, 4)
    {
        return None;
    }
    let (revision, expiry) = (u64_at(payload, 1), u64_at(payload, 9));
    let (key, value) = payload[FIXED..].split_at(key);
    let key = std::str::from_utf8(key).ok()?;
    let record = match kind {
        PUT => Record::Put { key, revision, expiry, value },
        DELETE => Record::Delete { key, revision },
        _ => Record::Reserve { revision },
    };
    Some(Frame { record, synced: u32_at(frame, 8), length: frame.len() })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_frame_counts() {
        let records = [
            Record::Put { key: "/registry/pods/a/b", revision: 7, expiry: 9, value: b"{}" },
            Record::Put { key: "k", revision: u64::MAX, expiry: 0, value: b"" },
            Record::Delete { key: "/registry/pods/a/b", revision: 8 },
            Record::Reserve { revision: 100 },
        ];
        for record in records {
            let mut bytes = Vec::new();
            write(&mut bytes, &record, 5);
            let length = bytes.len();
            bytes.extend_from_slice(b"next");
            assert_eq!(read(&bytes), Some(Frame { record, synced: 5, length }));
            for short in 0..length {
                assert_eq!(read(&bytes[..short]), None, "{short} bytes");
            }
            for (at, bit) in (0..length).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                bytes[at] ^= 1 << bit;
                assert_eq!(read(&bytes), None, "bit {bit} of byte {at}");
                bytes[at] ^= 1 << bit;
            }
        }
    }
}
