//! Work that takes a processor for long, where it holds up nobody else.

use tokio::runtime::{Handle, RuntimeFlavor};

/// From so many bytes on it does: a millisecond or so.
const LARGE: usize = 64 << 10;

/// Does some work on so many bytes. If they are many, others' requests are moved to another thread first: a request's
/// time limit can't interrupt it.
pub fn on<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let movable = || Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
    if bytes >= LARGE && movable() { tokio::task::block_in_place(work) } else { work() }
}
