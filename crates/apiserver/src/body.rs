//! Bodies of answers: bytes that are there, lists written as they are sent, watches, and what is passed on.

use crate::compress::Compressed;
use crate::list_body::ListBody;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Why a body breaks off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A stream of frames.
pub type Stream = Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send>>;

/// The body of an answer.
pub enum Body {
    /// Bytes.
    Full(Option<Bytes>),
    /// A list.
    List(ListBody),
    /// A list as gzip.
    Compressed(Box<Compressed>),
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
            Body::List(list) => Poll::Ready(list.frame().map(|b| b.map(Frame::data))),
            Body::Compressed(list) => Poll::Ready(list.frame().map(|b| b.map(Frame::data))),
            Body::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Body::List(list) => list.is_done(),
            Body::Compressed(list) => list.is_done(),
            Body::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Body::List(_) | Body::Compressed(_) => SizeHint::default(),
            Body::Stream(stream) => stream.size_hint(),
        }
    }
}
