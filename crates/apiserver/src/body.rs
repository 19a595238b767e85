//! Bodies of answers: bytes that are there, lists written as they are sent, watches, and what is passed on.

use crate::cache::Entry;
use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Why a body breaks off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A stream of frames.
pub type Stream = Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send>>;

/// The body of an answer.
pub enum Body {
    /// Bytes.
    Full(Option<Bytes>),
    /// A list in JSON.
    List(ListBody),
    /// Anything else.
    Stream(Stream),
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Body::Full(None)
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Body::Full(Some(bytes.into()))
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Body::Full(Some(bytes))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Body::Full(bytes) => {
                Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b))))
            }
            Body::List(list) => Poll::Ready(list.next().map(|b| Ok(Frame::data(b)))),
            Body::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Body::List(list) => list.done,
            Body::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Body::List(_) => SizeHint::default(),
            Body::Stream(stream) => stream.size_hint(),
        }
    }
}

/// A list's bytes as they are sent: never more than a chunk of them at a time is in memory.
pub struct ListBody {
    head: Option<Vec<u8>>,
    items: std::vec::IntoIter<Arc<Entry>>,
    whole: bool,
    first: bool,
    done: bool,
}

const CHUNK: usize = 64 << 10;

impl ListBody {
    /// A list that starts with `head`, up to its `"items":[`. Only `whole` items say their version and kind, as
    /// those of upstream's custom resources do and those of typed lists do not.
    pub fn new(head: Vec<u8>, items: Vec<Arc<Entry>>, whole: bool) -> Self {
        ListBody { head: Some(head), items: items.into_iter(), whole, first: true, done: false }
    }

    fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut chunk = BytesMut::with_capacity(CHUNK + 8192);
        if let Some(head) = self.head.take() {
            chunk.extend_from_slice(&head);
        }
        while chunk.len() < CHUNK {
            let Some(entry) = self.items.next() else {
                chunk.extend_from_slice(b"]}\n");
                self.done = true;
                break;
            };
            if !std::mem::take(&mut self.first) {
                chunk.extend_from_slice(b",");
            }
            if self.whole {
                chunk.extend_from_slice(&entry.json);
            } else {
                chunk.extend_from_slice(b"{");
                chunk.extend_from_slice(entry.item());
            }
        }
        Some(chunk.freeze())
    }
}
