//! Container logs, in the format that CRI prescribes: `time stream P|F text`, a line each.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// One entry of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// When it was written, RFC 3339.
    pub time: &'a str,
    /// `stdout` or `stderr`.
    pub stream: &'a str,
    /// Whether the line ends here; otherwise the next entry goes on with it.
    pub full: bool,
    /// What was written.
    pub text: &'a [u8],
}

/// Reads one line without its end.
pub fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
    let text = parts.next().unwrap_or_default();
    let stream = std::str::from_utf8(stream).ok().filter(|s| matches!(*s, "stdout" | "stderr"))?;
    let tag = std::str::from_utf8(tag).ok()?;
    let full = match tag.split(':').next()? {
        "F" => true,
        "P" => false,
        _ => return None,
    };
    Some(Entry { time: std::str::from_utf8(time).ok()?, stream, full, text })
}

/// The last lines of a log as text, bounded in lines and bytes.
pub fn tail_text(path: &Path, lines: usize, bytes: usize) -> String {
    let Ok(mut f) = std::fs::File::open(path) else { return String::new() };
    let size = f.metadata().map_or(0, |m| m.len());
    // each line carries some forty bytes of its own
    let window = (bytes + lines * 64) as u64;
    let start = size.saturating_sub(window);
    let mut raw = Vec::new();
    if f.seek(SeekFrom::Start(start)).is_err() || f.take(window).read_to_end(&mut raw).is_err() {
        return String::new();
    }
    let mut out: Vec<Vec<u8>> = Vec::new();
    let mut open = false;
    for e in raw.split(|b| *b == b'\n').filter_map(parse) {
        if !open {
            out.push(Vec::new());
        }
        if let Some(last) = out.last_mut() {
            last.extend_from_slice(e.text);
            if e.full {
                last.push(b'\n');
            }
        }
        open = !e.full;
    }
    let kept = out[out.len().saturating_sub(lines)..].concat();
    String::from_utf8_lossy(&kept[kept.len().saturating_sub(bytes)..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries() {
        let e = parse(b"2026-01-01T00:00:00.1Z stdout F hello world").unwrap_or_else(|| panic!("an entry"));
        assert_eq!((e.stream, e.full, e.text), ("stdout", true, &b"hello world"[..]));
        assert_eq!(parse(b"t stderr P x").map(|e| e.full), Some(false));
        assert_eq!(parse(b"t stdout F").map(|e| e.text.len()), Some(0));
        for bad in [&b""[..], b"t", b"t stdin F x", b"t stdout X y"] {
            assert_eq!(parse(bad), None);
        }
    }

    #[test]
    fn tails() -> std::io::Result<()> {
        let d = tempfile::tempdir()?;
        let p = d.path().join("0.log");
        std::fs::write(&p, "t stdout F one\nt stdout P tw\nt stdout F o\nt stderr F three\n")?;
        assert_eq!(tail_text(&p, 2, 100), "two\nthree\n");
        assert_eq!(tail_text(&p, 80, 6), "three\n");
        Ok(())
    }

    proptest! {
        #[test]
        fn never_panics(b in proptest::collection::vec(any::<u8>(), 0..64)) { let _ = parse(&b); }
    }
}
