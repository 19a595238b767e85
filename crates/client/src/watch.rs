//! One watch request: the events of a collection as the server sends them.

use crate::body::ResponseBody;
use crate::error::Error;
use crate::verbs::mended;
use crate::verbs::{Client, ListParams, refusal, with_query};
use api::Status;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use rand::Rng;
use serde::{Deserialize, de::DeserializeOwned};
use std::borrow::Cow;
use std::marker::PhantomData;

/// An event longer than this is no event.
const LONGEST: usize = 64 << 20;

/// What happened in a collection.
#[derive(Clone, Debug)]
pub enum WatchEvent<T> {
    /// An object is new, or matches now.
    Added(T),
    /// An object changed.
    Modified(T),
    /// An object is gone, or matches no more; its last state.
    Deleted(T),
    /// Nothing happened up to this resource version.
    Bookmark {
        /// The resource version.
        resource_version: String,
        /// Whether all that was there at the start has been sent.
        initial_end: bool,
    },
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a serde_json::value::RawValue,
}

#[derive(Deserialize)]
struct MetaOnly {
    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
}

/// The events of one watch request.
pub struct WatchStream<T> {
    body: ResponseBody,
    buffer: BytesMut,
    /// How much of the buffer is known to have no line end.
    seen: usize,
    client: Client,
    what: PhantomData<fn() -> T>,
}

impl Client {
    pub(crate) async fn watch_path<T: DeserializeOwned>(
        &self,
        path: String,
        params: &ListParams,
        resource_version: &str,
        accept: &'static str,
    ) -> Result<WatchStream<T>, Error> {
        let mut query = ListParams {
            limit: 0,
            cont: String::new(),
            resource_version: resource_version.into(),
            ..params.clone()
        }
        .query();
        // Watches end after five to ten minutes, so that they spread over servers again.
        let seconds = rand::rng().random_range(300..600);
        query.extend([
            ("watch", "true".into()),
            ("allowWatchBookmarks", "true".into()),
            ("timeoutSeconds", seconds.to_string()),
        ]);
        let request = http::Request::get(with_query(path, &query))
            .header(http::header::ACCEPT, accept)
            .body(Bytes::new());
        let response = self.stream(request.map_err(|e| Error::Request(e.to_string()))?).await?;
        let (parts, body) = response.into_parts();
        if !parts.status.is_success() {
            let text = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
            return Err(refusal(parts.status, &text));
        }
        Ok(WatchStream { body, buffer: BytesMut::new(), seen: 0, client: self.clone(), what: PhantomData })
    }
}

impl<T: DeserializeOwned> WatchStream<T> {
    /// The next event; none when the server ended the watch. After an error there is nothing more.
    pub async fn next(&mut self) -> Option<Result<WatchEvent<T>, Error>> {
        loop {
            if let Some(at) = self.buffer[self.seen..].iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(self.seen + at + 1);
                self.seen = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Some(event(&line));
            }
            self.seen = self.buffer.len();
            if self.buffer.len() > LONGEST {
                return Some(Err(Error::Decode {
                    what: "watch".into(),
                    reason: "an event is too long".into(),
                }));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(e)) => return Some(Err(self.client.broken(&e))),
                // The last line need not end with a line end.
                None if self.buffer.iter().all(u8::is_ascii_whitespace) => return None,
                None => {
                    self.seen = 0;
                    let line = self.buffer.split();
                    return Some(event(&line));
                }
            }
        }
    }
}

fn event<T: DeserializeOwned>(line: &[u8]) -> Result<WatchEvent<T>, Error> {
    let fault = |e: serde_json::Error| Error::Decode { what: "watch".into(), reason: e.to_string() };
    let raw: Raw<'_> = serde_json::from_slice(line).map_err(fault)?;
    let text = raw.object.get();
    let object = || serde_json::from_str(text).or_else(|e| mended(text.as_bytes()).ok_or(e)).map_err(fault);
    match &*raw.kind {
        "ADDED" => Ok(WatchEvent::Added(object()?)),
        "MODIFIED" => Ok(WatchEvent::Modified(object()?)),
        "DELETED" => Ok(WatchEvent::Deleted(object()?)),
        "BOOKMARK" => {
            let meta = serde_json::from_str::<MetaOnly>(raw.object.get()).map_err(fault)?.metadata;
            let initial_end = meta
                .annotations
                .is_some_and(|a| a.get("k8s.io/initial-events-end").is_some_and(|v| v == "true"));
            Ok(WatchEvent::Bookmark {
                resource_version: meta.resource_version.unwrap_or_default(),
                initial_end,
            })
        }
        "ERROR" => {
            Err(Error::Api(Box::new(serde_json::from_str::<Status>(raw.object.get()).map_err(fault)?)))
        }
        other => Err(Error::Decode { what: "watch".into(), reason: format!("an event of type {other:?}") }),
    }
}
