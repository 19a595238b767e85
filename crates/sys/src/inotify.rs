//! Waiting for files to change.

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use tokio::io::unix::AsyncFd;

/// Tells when something changes in the files and directories added to it. Drop it to stop.
pub struct Watcher {
    fd: AsyncFd<OwnedFd>,
}

/// What to wait for.
#[derive(Clone, Copy, Debug)]
pub enum Interest {
    /// Bytes written to a file, or its removal.
    Contents,
    /// Files that come, go or are finished writing in a directory.
    Entries,
}

impl Watcher {
    /// Makes a watcher of nothing.
    pub fn new() -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // SAFETY: the descriptor is owned by the `AsyncFd` and closed only after it is deregistered.
        #[expect(unsafe_code, reason = "registration asks for I/O safety, which ownership gives")]
        let fd = unsafe { AsyncFd::register(fd) }?;
        Ok(Watcher { fd })
    }

    /// Adds a file or directory.
    pub fn add(&self, path: &Path, interest: Interest) -> io::Result<()> {
        let flags = match interest {
            Interest::Contents => WatchFlags::MODIFY | WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF,
            Interest::Entries => {
                WatchFlags::CREATE
                    | WatchFlags::CLOSE_WRITE
                    | WatchFlags::MOVED_TO
                    | WatchFlags::MOVED_FROM
                    | WatchFlags::DELETE
            }
        };
        inotify::add_watch(self.fd.get_ref(), path, flags)?;
        Ok(())
    }

    /// Waits until something has changed, taking in all changes that are known by then.
    pub async fn changed(&self) -> io::Result<()> {
        loop {
            let mut guard = self.fd.readable().await?;
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(self.fd.get_ref(), &mut buffer);
            let mut any = false;
            loop {
                match reader.next() {
                    Ok(event) => any |= !event.events().contains(ReadFlags::IGNORED),
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(e) => return Err(e.into()),
                }
            }
            guard.clear_ready();
            if any {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_new_file_wakes_the_watcher() -> io::Result<()> {
        let dir = std::env::temp_dir().join(format!("sys-inotify-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let w = Watcher::new()?;
        w.add(&dir, Interest::Entries)?;
        std::fs::write(dir.join("a"), "x")?;
        tokio::time::timeout(Duration::from_secs(5), w.changed()).await??;
        std::fs::remove_dir_all(&dir)
    }
}
