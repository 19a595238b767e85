//! Lists, written while they are sent: however long one is, no more than a chunk of it is in memory.

use crate::cache::Entry;
use api::protobuf;
use api::schema::{Schema, SchemaRef};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

/// Bytes gathered into one frame.
const CHUNK: usize = 64 << 10;
/// In lists up to this long, an object's protobuf is kept with it for the next who asks; those of longer lists
/// are made to be sent and, once, for their length, so that memory does not grow with the list.
const KEPT: usize = 5_000;
/// Objects that are measured before others have their turn.
const MEASURED: usize = 64;

/// How the items look.
pub enum Form {
    /// JSON objects that say their version and kind, as upstream's custom resources do.
    Whole,
    /// JSON objects that leave that to the list, as in upstream's typed lists.
    Typed,
    /// PartialObjectMetadata in JSON; this text stands before the metadata.
    Metadata(String),
    /// Items of a list in protobuf.
    Protobuf {
        /// The kind's schema.
        schema: SchemaRef,
        /// Whether what is made is kept.
        kept: bool,
    },
}

/// The objects of a list, in order.
pub type Entries = Box<dyn Iterator<Item = Arc<Entry>> + Send>;

/// The bytes of a list.
pub struct ListBody {
    head: Option<Vec<u8>>,
    items: Entries,
    tail: &'static [u8],
    form: Form,
    first: bool,
    done: bool,
}

impl ListBody {
    /// A list in JSON that starts with `head`, up to its `"items":[`.
    pub fn json(head: Vec<u8>, items: Entries, form: Form) -> Self {
        ListBody { head: Some(head), items, tail: b"]}\n", form, first: true, done: false }
    }

    /// A list in protobuf. `meta` is its ListMeta.
    pub async fn protobuf(
        api_version: &str,
        kind: &str,
        meta: &[u8],
        items: Vec<Arc<Entry>>,
        schema: SchemaRef,
    ) -> Result<Self, protobuf::EncodeError> {
        let kept = items.len() <= KEPT;
        let mut length = protobuf::message_length(1, meta.len());
        for some in items.chunks(MEASURED) {
            for entry in some {
                let measure = || wire(entry, &schema, kept).map(|wire| wire.len());
                length += protobuf::message_length(2, entry.protobuf_length(measure)?);
            }
            tokio::task::yield_now().await;
        }
        let (mut head, tail) = protobuf::envelope(api_version, kind, length);
        protobuf::put_message(&mut head, 1, meta);
        let form = Form::Protobuf { schema, kept };
        Ok(ListBody {
            head: Some(head),
            items: Box::new(items.into_iter()),
            tail,
            form,
            first: true,
            done: false,
        })
    }

    /// Whether all of it is written.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The next frame. An error can't be answered any more: the body breaks off.
    pub fn frame(&mut self) -> Option<Result<Bytes, protobuf::EncodeError>> {
        if self.done {
            return None;
        }
        let mut chunk = BytesMut::with_capacity(CHUNK + 8192);
        if let Some(head) = self.head.take() {
            chunk.extend_from_slice(&head);
        }
        while chunk.len() < CHUNK {
            let Some(entry) = self.items.next() else {
                chunk.extend_from_slice(self.tail);
                self.done = true;
                break;
            };
            if !std::mem::take(&mut self.first) && !matches!(self.form, Form::Protobuf { .. }) {
                chunk.extend_from_slice(b",");
            }
            match &self.form {
                Form::Whole => chunk.extend_from_slice(&entry.json),
                Form::Typed => {
                    chunk.extend_from_slice(b"{");
                    chunk.extend_from_slice(entry.item());
                }
                Form::Metadata(before) => {
                    chunk.extend_from_slice(before.as_bytes());
                    chunk.extend_from_slice(entry.metadata().as_bytes());
                    chunk.extend_from_slice(b"}");
                }
                Form::Protobuf { schema, kept } => match wire(&entry, schema, *kept) {
                    Ok(wire) => {
                        let mut item = Vec::with_capacity(wire.len() + 8);
                        protobuf::put_message(&mut item, 2, &wire);
                        chunk.extend_from_slice(&item);
                    }
                    Err(e) => {
                        self.done = true;
                        return Some(Err(e));
                    }
                },
            }
        }
        Some(Ok(chunk.freeze()))
    }
}

/// An object's own message.
fn wire(entry: &Entry, schema: &Schema, kept: bool) -> Result<Bytes, protobuf::EncodeError> {
    if !kept {
        return Ok(protobuf::encode(&entry.value().unwrap_or_default(), schema)?.into());
    }
    let whole = entry.protobuf(|v| protobuf::to_wire(v, schema).ok());
    match whole.as_ref().and_then(|w| Some(w.slice_ref(protobuf::unwrap(w).ok()?.raw))) {
        Some(raw) => Ok(raw),
        None => Ok(protobuf::encode(&entry.value().unwrap_or_default(), schema)?.into()),
    }
}
