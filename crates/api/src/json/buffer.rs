//! Bytes that are made quickly and kept for long.

use std::cell::Cell;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A larger buffer is not kept.
const KEPT: usize = 256 << 10;

/// Writes into a buffer that each thread keeps, and answers a copy that takes no more memory than it has bytes.
pub fn written<E>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<Vec<u8>, E> {
    let mut buffer = BUFFER.take();
    buffer.clear();
    let bytes = write(&mut buffer).map(|()| buffer.as_slice().to_vec());
    if buffer.capacity() <= KEPT {
        BUFFER.set(buffer);
    }
    bytes
}
