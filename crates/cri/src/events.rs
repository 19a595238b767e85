//! What happens to containers, as it happens. Runtimes with CRI's own events (containerd 1.7 and
//! later) are asked for those; containerd 1.6 for its native ones; others are listed every second.

use crate::{Error, Runtime};
use containerd_client::events::{ContainerCreate, ContainerDelete, TaskExit, TaskOom, TaskStart};
use containerd_client::services::v1::SubscribeRequest;
use containerd_client::services::v1::events_client::EventsClient;
use futures::{Stream, StreamExt};
use prost::Message;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

/// Something that happened in the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It happened to one container, or to one sandbox: in most runtimes that is a container too.
    Container {
        /// The container's (or sandbox's) id.
        id: String,
        /// What happened.
        what: What,
    },
    /// Events may have been missed: look at everything again.
    Relist,
}

/// What happened to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It was made.
    Created,
    /// It runs.
    Started,
    /// Its main process ended.
    Stopped,
    /// It ran out of memory.
    OutOfMemory,
    /// It was removed.
    Removed,
}

/// Where this runtime's events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Cri,
    Containerd,
    List,
}

/// A safety net under a source of events that may lose some.
const SLOW_RELIST: Duration = Duration::from_secs(10);
/// Where lists are all there is.
const FAST_RELIST: Duration = Duration::from_secs(1);
/// How long it is waited after events broke off, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Sends events until the receiver is gone. Every (re)connection begins with [`Event::Relist`].
/// A full channel makes it wait: the runtime buffers, and what it drops the relist brings back.
pub async fn watch(runtime: Runtime, out: mpsc::Sender<Event>) {
    let mut source = Source::Cri;
    let mut pause = PAUSE.0;
    loop {
        let started = Instant::now();
        let ended = match source {
            Source::Cri => from_cri(&runtime, &out).await,
            Source::Containerd => from_containerd(&runtime, &out).await,
            Source::List => from_lists(&out).await,
        };
        match ended {
            Ok(()) => return,
            Err(e) if e.is_unimplemented() => {
                source = if source == Source::Cri { Source::Containerd } else { Source::List };
                info!(next = ?source, "the container runtime has no such events");
                continue;
            }
            Err(e) => {
                // a runtime that comes back may be another version with other events
                source = Source::Cri;
                warn!(error = %e, "container events broke off");
            }
        }
        // events that came for a while were good ones
        if started.elapsed() > PAUSE.1 {
            pause = PAUSE.0;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE.1),
            () = out.closed() => return,
        }
        // without events lists are all there is
        if out.send(Event::Relist).await.is_err() {
            return;
        }
    }
}

async fn from_cri(runtime: &Runtime, out: &mpsc::Sender<Event>) -> Result<(), Error> {
    use crate::types::ContainerEventType as T;
    let events = runtime.container_events().await?.map(|m| {
        m.map(|m| {
            let what = match m.container_event_type() {
                T::ContainerCreatedEvent => What::Created,
                T::ContainerStartedEvent => What::Started,
                T::ContainerStoppedEvent => What::Stopped,
                T::ContainerDeletedEvent => What::Removed,
            };
            Some(Event::Container { id: m.container_id, what })
        })
    });
    forward(out, events).await
}

async fn from_containerd(runtime: &Runtime, out: &mpsc::Sender<Event>) -> Result<(), Error> {
    let filters = ["/tasks/start", "/tasks/exit", "/tasks/oom", "/containers/create", "/containers/delete"]
        .map(|topic| format!("namespace==k8s.io,topic==\"{topic}\""))
        .to_vec();
    let stream =
        EventsClient::new(runtime.channel()).subscribe(SubscribeRequest { filters }).await?.into_inner();
    let events = stream.map(|m| m.map(|m| m.event.and_then(|any| read_containerd(&m.topic, &any.value))));
    forward(out, events).await
}

/// Reads one of containerd's events; those of processes started by exec are none of ours.
fn read_containerd(topic: &str, value: &[u8]) -> Option<Event> {
    let (id, what) = match topic {
        "/tasks/start" => (TaskStart::decode(value).ok()?.container_id, What::Started),
        "/tasks/exit" => {
            let e = TaskExit::decode(value).ok()?;
            if e.id != e.container_id {
                return None;
            }
            (e.container_id, What::Stopped)
        }
        "/tasks/oom" => (TaskOom::decode(value).ok()?.container_id, What::OutOfMemory),
        "/containers/create" => (ContainerCreate::decode(value).ok()?.id, What::Created),
        "/containers/delete" => (ContainerDelete::decode(value).ok()?.id, What::Removed),
        _ => return None,
    };
    Some(Event::Container { id, what })
}

/// Passes on what comes, with a relist first and now and then.
async fn forward<S>(out: &mpsc::Sender<Event>, mut events: S) -> Result<(), Error>
where
    S: Stream<Item = Result<Option<Event>, tonic::Status>> + Unpin,
{
    let mut relist = tokio::time::interval(SLOW_RELIST);
    loop {
        let event = tokio::select! {
            _ = relist.tick() => Some(Event::Relist),
            got = events.next() => match got {
                Some(event) => event?,
                None => return Err(Error::Incomplete("events", "an end")),
            },
            () = out.closed() => return Ok(()),
        };
        let Some(event) = event else { continue };
        debug!(?event, "container event");
        if out.send(event).await.is_err() {
            return Ok(());
        }
    }
}

async fn from_lists(out: &mpsc::Sender<Event>) -> Result<(), Error> {
    let mut tick = tokio::time::interval(FAST_RELIST);
    loop {
        tick.tick().await;
        if out.send(Event::Relist).await.is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exec_that_ends_is_not_the_container_ending() {
        let exit = |id: &str| {
            TaskExit { container_id: "c".into(), id: id.into(), ..Default::default() }.encode_to_vec()
        };
        let stopped = Event::Container { id: "c".into(), what: What::Stopped };
        assert_eq!(read_containerd("/tasks/exit", &exit("c")), Some(stopped));
        assert_eq!(read_containerd("/tasks/exit", &exit("exec-1")), None);
        assert_eq!(read_containerd("/tasks/exit", b"\xff\xff"), None);
        assert_eq!(read_containerd("/images/create", b""), None);
    }
}
