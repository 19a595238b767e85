//! Work that may wait for a disk, a file server or the kernel: it runs on threads made for waiting, so that pods,
//! probes and the lease go on, and whoever asked is told after a while that it is not done. What is stuck keeps its
//! thread until the kernel lets go of it, and everything else that is to happen to the same thing waits for it.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::Semaphore;

/// How much runs at a time. Each may be stuck for good, and a thread costs memory.
const PARALLEL: usize = 64;
/// How long work on volumes and directories may take before who asked is told.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);
/// How long a look at something small may take.
pub(crate) const QUICK: Duration = Duration::from_secs(5);

/// Runs what may block.
#[derive(Debug)]
pub(crate) struct Blocking {
    slots: Arc<Semaphore>,
    /// What is worked on, so that two never work on the same.
    keys: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Default for Blocking {
    fn default() -> Self {
        Blocking { slots: Arc::new(Semaphore::new(PARALLEL)), keys: Mutex::default() }
    }
}

fn late(limit: Duration) -> io::Error {
    let secs = limit.as_secs();
    io::Error::new(io::ErrorKind::TimedOut, format!("not done within {secs}s; it goes on where it can"))
}

impl Blocking {
    /// Runs `work`, alone on what `key` names, and waits for it for at most `limit`.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        key: &str,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let one = {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            keys.retain(|_, m| Arc::strong_count(m) > 1);
            keys.entry(key.to_owned()).or_default().clone()
        };
        let slots = self.slots.clone();
        let running = async move {
            let alone = one.lock_owned().await;
            let slot = slots.acquire_owned().await.map_err(io::Error::other)?;
            let done = tokio::task::spawn_blocking(move || {
                // both are held for as long as it really takes
                let _held = (alone, slot);
                work()
            });
            done.await.map_err(io::Error::other)
        };
        tokio::time::timeout(limit, running).await.unwrap_or_else(|_| Err(late(limit)))
    }
}

/// Looks at something small without holding up others.
pub(crate) async fn quick<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let done = tokio::time::timeout(QUICK, tokio::task::spawn_blocking(work)).await;
    done.map_err(|_| late(QUICK))?.map_err(io::Error::other)
}

/// Runs a program and what it starts; after `limit` all of them are ended.
pub(crate) async fn command(program: &str, args: &[&str], limit: Duration) -> io::Result<Output> {
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let leader = Leader(child.id());
    let done = tokio::time::timeout(limit, child.wait_with_output()).await;
    match done {
        Ok(output) => {
            std::mem::forget(leader);
            output
        }
        Err(_) => Err(late(limit)),
    }
}

/// Ends a program's helpers with it.
struct Leader(Option<u32>);

impl Drop for Leader {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            let _ = sys::node::kill_group(id);
        }
    }
}

/// The last words of a program.
pub(crate) fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.trim();
    let start = text.char_indices().rev().nth(1000).map_or(0, |(at, _)| at);
    text[start..].to_owned()
}

/// The contents of a small text file, empty if there is none.
pub(crate) fn text_of(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    type Result = std::result::Result<(), Box<dyn std::error::Error>>;

    /// What blocks, and what it is not to be called from.
    const WORDS: [&str; 14] = [
        "std::fs::",
        " fs::",
        "(fs::",
        "std::process::",
        ".exists()",
        ".is_dir()",
        ".is_file()",
        ".canonicalize()",
        "sys::dir::",
        "sys::mount::",
        "tear_down(",
        "remove_logs(",
        "capacity::measure(",
        "text_of(",
    ];
    /// Begins before anything else runs.
    const AT_START: [&str; 2] = ["kubelet.rs", "bootstrap.rs"];

    /// The end of what begins at `from`, an opening brace or the beginning of an expression.
    fn end_of(text: &[u8], from: usize) -> usize {
        let mut depth = 0i32;
        for (at, b) in text.iter().enumerate().skip(from) {
            match b {
                b'{' | b'(' | b'[' => depth += 1,
                b'}' | b')' | b']' => {
                    depth -= 1;
                    if depth < 0 || depth == 0 && text[from] == b'{' {
                        return at;
                    }
                }
                b';' | b',' if depth == 0 => return at,
                _ => {}
            }
        }
        text.len()
    }

    /// Closures are handed over to where they may block; what is left of an async function must not.
    #[test]
    fn no_async_function_blocks() -> Result {
        let mut files = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
        let mut wrong = Vec::new();
        while let Some(path) = files.pop() {
            if path.is_dir() {
                files.extend(std::fs::read_dir(&path)?.flatten().map(|e| e.path()));
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if AT_START.contains(&name.as_str()) || ["fake.rs", "tests.rs"].contains(&name.as_str()) {
                continue;
            }
            let text = std::fs::read_to_string(&path)?;
            let code: String = text
                .split("#[cfg(test)]\nmod tests {")
                .next()
                .unwrap_or("")
                .lines()
                .map(|l| l.split("//").next().unwrap_or("").to_owned() + "\n")
                .collect();
            let mut rest = code.as_str();
            while let Some(at) = rest.find("async ") {
                rest = &rest[at + 6..];
                let Some(open) = rest.find('{') else { break };
                let body = &rest[open..end_of(rest.as_bytes(), open)];
                let mut left = body.replace("tokio::fs::", "");
                while let Some(closure) = left.find("move |") {
                    let bars = left[closure + 6..].find('|').map_or(left.len(), |n| closure + 7 + n);
                    let end = end_of(left.as_bytes(), bars).min(left.len());
                    left.replace_range(closure..end, "");
                }
                for w in WORDS.iter().filter(|w| left.contains(**w)) {
                    let head = rest[..open].lines().next().unwrap_or("").trim();
                    wrong.push(format!("{name}: async {head}: {w}"));
                }
            }
        }
        assert!(wrong.is_empty(), "these block a thread of the runtime:\n{}", wrong.join("\n"));
        Ok(())
    }

    #[tokio::test]
    async fn what_is_stuck_holds_up_only_its_own() -> Result {
        let b = Arc::new(Blocking::default());
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let short = Duration::from_millis(50);
        let stuck = b.run("a", short, move || wait.recv()).await;
        assert_eq!(stuck.map(|_| ()).map_err(|e| e.kind()), Err(io::ErrorKind::TimedOut));
        assert_eq!(b.run("b", LIMIT, || 1).await?, 1);
        let again = b.run("a", short, || 2).await;
        assert!(again.is_err(), "the first is still at it");
        release.send(())?;
        assert_eq!(b.run("a", LIMIT, || 3).await?, 3);
        assert!(
            b.run("a", LIMIT, || panic!("on purpose"))
                .await
                .is_err_and(|e: io::Error| e.kind() == io::ErrorKind::Other)
        );
        assert_eq!(b.run("a", LIMIT, || 4).await?, 4);
        Ok(())
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_ended_with_its_helpers() -> Result {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! >{}; wait", file.display());
        let limit = Duration::from_millis(500);
        let started = Instant::now();
        let got = command("sh", &["-c", &script], limit).await;
        assert_eq!(got.map(|_| ()).map_err(|e| e.kind()), Err(io::ErrorKind::TimedOut));
        assert!(started.elapsed() < Duration::from_secs(60));
        let helper = text_of(&file).trim().to_owned();
        let state = move || text_of(format!("/proc/{helper}/stat").as_ref());
        while !state().is_empty() && !state().contains(") Z ") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let out = command("sh", &["-c", "echo oh >&2; exit 3"], LIMIT).await?;
        assert_eq!((out.status.code(), said(&out)), (Some(3), "oh".to_owned()));
        Ok(())
    }
}
