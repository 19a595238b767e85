//! `/containerLogs/`: what a container wrote, from where the caller wants it, and on as it comes.

use super::Server;
use super::logs::{self, Entry};
use super::routes::{Target, flag, query};
use crate::pod::PodExt;
use crate::runtime::observed::{Observed, State};
use crate::streaming::{Body, text};
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use sys::inotify::{Interest, Watcher};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::{mpsc, watch};

/// How much is read at a time.
const BLOCK: usize = 32 << 10;

/// What a caller wants of a log.
#[derive(Clone, Debug, Default, PartialEq)]
struct Options {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail: Option<u64>,
    since: Option<jiff::Timestamp>,
    limit: Option<u64>,
    stream: Option<String>,
}

fn options(req: &Request<Incoming>) -> Result<Options, String> {
    let number = |name: &str| match query(req, name) {
        None => Ok(None),
        Some(v) => v.parse::<u64>().map(Some).map_err(|_| format!("invalid {name}: {v:?}")),
    };
    let mut since = match query(req, "sinceTime") {
        Some(t) => Some(t.parse::<jiff::Timestamp>().map_err(|_| format!("invalid sinceTime: {t:?}"))?),
        None => None,
    };
    if let Some(s) = number("sinceSeconds")? {
        let ago = jiff::SignedDuration::from_secs(i64::try_from(s).unwrap_or(i64::MAX));
        since = jiff::Timestamp::now().checked_sub(ago).ok();
    }
    Ok(Options {
        follow: flag(req, "follow"),
        previous: flag(req, "previous"),
        timestamps: flag(req, "timestamps"),
        tail: number("tailLines")?,
        limit: number("limitBytes")?,
        stream: query(req, "stream").filter(|s| s != "All").map(|s| s.to_ascii_lowercase()),
        since,
    })
}

/// Finds the log and streams it.
pub(super) async fn serve(server: &Server, req: &Request<Incoming>, t: &Target) -> Response<Body> {
    let o = match options(req) {
        Ok(o) => o,
        Err(e) => return text(StatusCode::BAD_REQUEST, e),
    };
    let (pod, seen) = match server.pods.find(&t.namespace, &t.pod) {
        Some(found) => found,
        None => return text(StatusCode::NOT_FOUND, format!("pod \"{}\" does not exist\n", t.pod)),
    };
    if pod.container(&t.container).is_none() {
        return text(
            StatusCode::NOT_FOUND,
            format!("container \"{}\" not found in pod \"{}\"\n", t.container, t.pod),
        );
    }
    let (path, id) = match find(server, pod.uid(), &seen, t, o.previous) {
        Ok(found) => found,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    let watching = server.pods.watch(pod.uid());
    let (send, receive) = mpsc::channel::<Result<Frame<Bytes>, io::Error>>(4);
    tokio::spawn(async move {
        let reader = Reader {
            path,
            id,
            o,
            out: send.clone(),
            watching,
            left: None,
            buffer: BytesMut::new(),
            fresh: true,
        };
        if let Err(e) = reader.run().await {
            let _ = send.send(Err(e)).await;
        }
    });
    let stream = futures::stream::unfold(receive, |mut r| async move { r.recv().await.map(|f| (f, r)) });
    let mut r = Response::new(BodyExt::boxed(StreamBody::new(stream)));
    r.headers_mut().insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
    r
}

/// The log of the run that the caller means, and the id of its container.
fn find(
    server: &Server,
    uid: &str,
    seen: &Observed,
    t: &Target,
    previous: bool,
) -> Result<(PathBuf, String), String> {
    let mut runs = seen.containers.iter().filter(|c| c.name == t.container);
    let newest = runs.next();
    if previous {
        // a container that waits to be restarted has only ended runs
        let ended = newest
            .filter(|c| c.state == State::Exited && waits(server, uid, &t.container))
            .or_else(|| runs.find(|c| c.state == State::Exited));
        return ended.map(|c| (PathBuf::from(&c.log_path), c.id.clone())).ok_or_else(|| {
            format!("previous terminated container \"{}\" in pod \"{}\" not found", t.container, t.pod)
        });
    }
    match newest {
        Some(c) if c.state != State::Created => Ok((PathBuf::from(&c.log_path), c.id.clone())),
        _ => {
            let status = server.cx.status.get(uid).unwrap_or_default();
            let lists = [
                status.container_statuses,
                status.init_container_statuses,
                status.ephemeral_container_statuses,
            ];
            let own = lists.into_iter().flatten().flatten().find(|s| s.name == t.container);
            let reason = own.and_then(|s| s.state?.waiting?.reason).unwrap_or_else(|| "no logs yet".into());
            let shown = match reason.as_str() {
                "ErrImagePull" | "ImagePullBackOff" => "trying and failing to pull image".to_owned(),
                "no logs yet" => {
                    return Err(format!(
                        "container \"{}\" in pod \"{}\" is waiting to start - no logs yet",
                        t.container, t.pod
                    ));
                }
                other => other.to_owned(),
            };
            Err(format!("container \"{}\" in pod \"{}\" is waiting to start: {shown}", t.container, t.pod))
        }
    }
}

fn waits(server: &Server, uid: &str, name: &str) -> bool {
    let status = server.cx.status.get(uid).unwrap_or_default();
    let mut lists =
        [status.container_statuses, status.init_container_statuses].into_iter().flatten().flatten();
    lists.any(|s| s.name == name && s.state.is_some_and(|s| s.waiting.is_some()))
}

struct Reader {
    path: PathBuf,
    id: String,
    o: Options,
    out: mpsc::Sender<Result<Frame<Bytes>, io::Error>>,
    watching: Option<watch::Receiver<Observed>>,
    left: Option<u64>,
    buffer: BytesMut,
    /// The last entry ended its line.
    fresh: bool,
}

impl Reader {
    async fn run(mut self) -> io::Result<()> {
        self.left = self.o.limit;
        let watcher = if self.o.follow { Some(Watcher::new()?) } else { None };
        if let Some(w) = &watcher {
            w.add(&self.path, Interest::Contents)?;
            if let Some(folder) = self.path.parent() {
                w.add(folder, Interest::Entries)?;
            }
        }
        let mut file = File::open(&self.path).await?;
        if let Some(n) = self.o.tail {
            let start = tail_offset(&mut file, n).await?;
            file.seek(SeekFrom::Start(start)).await?;
        }
        loop {
            // whether it runs is asked before reading: what it wrote before it ended is then all there
            let running = self.running();
            if !self.drain(&mut file).await? {
                return Ok(());
            }
            let Some(w) = &watcher else { return Ok(()) };
            if let Some(next) = reopened(&self.path, &file).await? {
                w.add(&self.path, Interest::Contents)?;
                // the rest of the old one first
                if !self.drain(&mut file).await? {
                    return Ok(());
                }
                file = next;
                continue;
            }
            if !running {
                return Ok(());
            }
            tokio::select! {
                changed = w.changed() => changed?,
                () = ended(&mut self.watching) => {}
                () = self.out.closed() => return Ok(()),
            }
        }
    }

    fn running(&self) -> bool {
        self.watching.as_ref().is_some_and(|w| {
            w.borrow().containers.iter().any(|c| c.id == self.id && c.state == State::Running)
        })
    }

    /// Sends what is in the file from here to its end; `false` when the caller has enough.
    async fn drain(&mut self, file: &mut File) -> io::Result<bool> {
        let mut block = vec![0; BLOCK];
        let mut out = BytesMut::new();
        loop {
            let n = file.read(&mut block).await?;
            if n == 0 {
                break;
            }
            self.buffer.extend_from_slice(block.get(..n).unwrap_or_default());
            while let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(end + 1);
                if let Some(e) = logs::parse(line.get(..end).unwrap_or_default()) {
                    self.write(&e, &mut out);
                }
            }
            if !self.send(&mut out).await {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn write(&mut self, e: &Entry<'_>, out: &mut BytesMut) {
        if self.o.stream.as_deref().is_some_and(|s| s != e.stream) {
            return;
        }
        if let Some(since) = self.o.since
            && e.time.parse::<jiff::Timestamp>().is_ok_and(|t| t < since)
        {
            return;
        }
        // a line that the runtime split is one line again, with one time
        let begins = std::mem::replace(&mut self.fresh, e.full);
        if self.o.timestamps && begins {
            out.extend_from_slice(e.time.as_bytes());
            out.extend_from_slice(b" ");
        }
        out.extend_from_slice(e.text);
        if e.full {
            out.extend_from_slice(b"\n");
        }
    }

    async fn send(&mut self, out: &mut BytesMut) -> bool {
        if let Some(left) = &mut self.left {
            let most = usize::try_from(*left).unwrap_or(usize::MAX);
            out.truncate(most);
            *left -= out.len() as u64;
        }
        if !out.is_empty() && self.out.send(Ok(Frame::data(out.split().freeze()))).await.is_err() {
            return false;
        }
        self.left != Some(0)
    }
}

/// The new file at the path, when the one that is open was moved away.
async fn reopened(path: &Path, file: &File) -> io::Result<Option<File>> {
    let Ok(now) = tokio::fs::metadata(path).await else { return Ok(None) };
    let open = file.metadata().await?;
    if (now.dev(), now.ino()) == (open.dev(), open.ino()) {
        Ok(None)
    } else {
        File::open(path).await.map(Some)
    }
}

async fn ended(watching: &mut Option<watch::Receiver<Observed>>) {
    match watching {
        Some(w) => {
            // a worker that is gone says nothing more
            if w.changed().await.is_err() {
                *watching = None;
            }
        }
        None => std::future::pending().await,
    }
}

/// Where the last `lines` lines begin.
async fn tail_offset(file: &mut File, lines: u64) -> io::Result<u64> {
    let size = file.metadata().await?.len();
    if lines == 0 {
        return Ok(size);
    }
    let mut block = vec![0; BLOCK];
    let (mut at, mut found) = (size, 0);
    while at > 0 {
        let take = usize::try_from(at.min(BLOCK as u64)).unwrap_or(BLOCK);
        at -= take as u64;
        file.seek(SeekFrom::Start(at)).await?;
        let part = block.get_mut(..take).unwrap_or_default();
        file.read_exact(part).await?;
        for (i, b) in part.iter().enumerate().rev() {
            // the end of the last line is not the beginning of another
            if *b == b'\n' && at + i as u64 + 1 != size {
                found += 1;
                if found == lines {
                    return Ok(at + i as u64 + 1);
                }
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_that_was_split_has_one_time() -> io::Result<()> {
        let d = tempfile::tempdir()?;
        let p = d.path().join("l");
        tokio::fs::write(
            &p,
            "t1 stdout F first\nt2 stdout P aa\nt3 stdout P bb\nt4 stdout F cc\nt5 stderr F err\n",
        )
        .await?;
        let (out, mut receive) = mpsc::channel(4);
        let o = Options { timestamps: true, ..Default::default() };
        let reader = Reader {
            path: p,
            id: String::new(),
            o,
            out,
            watching: None,
            left: None,
            buffer: BytesMut::new(),
            fresh: true,
        };
        reader.run().await?;
        let mut text = Vec::new();
        while let Some(frame) = receive.recv().await {
            text.extend(frame?.into_data().unwrap_or_default());
        }
        assert_eq!(String::from_utf8_lossy(&text), "t1 first\nt2 aabbcc\nt5 err\n");
        Ok(())
    }

    #[tokio::test]
    async fn tails() -> io::Result<()> {
        let d = tempfile::tempdir()?;
        let p = d.path().join("l");
        tokio::fs::write(&p, "a\nbb\nccc\n").await?;
        let mut f = File::open(&p).await?;
        for (lines, want) in [(0, 9), (1, 5), (2, 2), (3, 0), (9, 0)] {
            assert_eq!(tail_offset(&mut f, lines).await?, want, "{lines}");
        }
        Ok(())
    }
}
