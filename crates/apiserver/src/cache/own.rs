//! What this server writes, until the store tells of it: it need not be decoded then.

use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;

/// Own writes remembered at a time: so many, and so many bytes.
const OWN: usize = 1024;
const OWN_BYTES: usize = 8 << 20;

/// One write.
pub struct Own {
    /// As the store gets it.
    pub stored: Bytes,
    /// As the cache will have it.
    pub json: Bytes,
}

impl Own {
    fn size(&self) -> usize {
        self.stored.len() + self.json.len()
    }
}

/// Writes under way, by key.
#[derive(Default)]
pub struct OwnWrites {
    by_key: HashMap<Arc<str>, Own>,
    bytes: usize,
}

impl OwnWrites {
    /// Remembers one. Where there are too many, those before are forgotten: they are decoded as others' are.
    pub fn put(&mut self, key: &Arc<str>, stored: &Bytes, json: &Bytes) {
        let write = Own { stored: stored.clone(), json: json.clone() };
        self.take(key);
        if self.by_key.len() == OWN || self.bytes + write.size() > OWN_BYTES {
            *self = OwnWrites::default();
        }
        self.bytes += write.size();
        self.by_key.insert(key.clone(), write);
    }

    /// Takes one out.
    pub fn take(&mut self, key: &str) -> Option<Own> {
        let own = self.by_key.remove(key)?;
        self.bytes -= own.size();
        Some(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_bounded_in_number_and_in_bytes() {
        let mut own = OwnWrites::default();
        let large = Bytes::from(vec![0; 1 << 20]);
        for i in 0..5000 {
            own.put(&format!("small{i}").into(), &Bytes::from_static(b"a"), &Bytes::from_static(b"b"));
            assert!(own.by_key.len() <= OWN);
        }
        for i in 0..50 {
            own.put(&format!("large{i}").into(), &large, &large);
            let bytes: usize = own.by_key.values().map(Own::size).sum();
            assert!(own.bytes == bytes && bytes <= OWN_BYTES, "{bytes}");
        }
        assert!(own.take("large49").is_some() && own.take("large49").is_none());
    }
}
