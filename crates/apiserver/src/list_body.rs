//! Lists, written while they are sent: however long one is, no more than a chunk of it is in memory.

use crate::cache::Entry;
use api::schema::SchemaRef;
use api::{Status, protobuf};
use bytes::Bytes;
use std::sync::Arc;

/// Bytes gathered into one frame.
const CHUNK: usize = 64 << 10;
/// In lists up to this long, which many ask for, an object's protobuf is kept with it for the next; those of longer
/// lists are made to be sent and, once, for their length, so that memory does not grow with the list.
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
    /// Items of a list in protobuf, of this schema.
    Protobuf(SchemaRef),
    /// What is made of each: rows of a table, or indented objects.
    Made(Box<dyn FnMut(&Entry) -> Result<Vec<u8>, Status> + Send>),
}

/// Why a list breaks off.
pub type Broken = Box<dyn std::error::Error + Send + Sync>;

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

    /// What begins with `head` and ends with `tail`.
    pub fn between(head: Vec<u8>, items: Entries, form: Form, tail: &'static [u8]) -> Self {
        ListBody { head: Some(head), items, tail, form, first: true, done: false }
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
                if kept {
                    entry.protobuf(&schema);
                }
                length += protobuf::message_length(2, entry.protobuf_length(&schema)?);
            }
            tokio::task::yield_now().await;
        }
        let (mut head, tail) = protobuf::envelope(api_version, kind, length);
        protobuf::put_message(&mut head, 1, meta);
        let form = Form::Protobuf(schema);
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
    pub fn frame(&mut self) -> Option<Result<Bytes, Broken>> {
        if self.done {
            return None;
        }
        let mut chunk = Vec::with_capacity(CHUNK + 8192);
        if let Some(head) = self.head.take() {
            chunk.extend_from_slice(&head);
        }
        while chunk.len() < CHUNK {
            let Some(entry) = self.items.next() else {
                chunk.extend_from_slice(self.tail);
                self.done = true;
                break;
            };
            if !std::mem::take(&mut self.first) && !matches!(self.form, Form::Protobuf(_)) {
                chunk.extend_from_slice(b",");
            }
            match &mut self.form {
                Form::Made(make) => match make(&entry) {
                    Ok(item) => chunk.extend_from_slice(&item),
                    Err(e) => {
                        self.done = true;
                        return Some(Err(e.message.into()));
                    }
                },
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
                Form::Protobuf(schema) => {
                    let put = entry.protobuf_length(schema).and_then(|length| {
                        protobuf::put_head(&mut chunk, 2, length);
                        entry.put_protobuf(&mut chunk, schema)
                    });
                    if let Err(e) = put {
                        self.done = true;
                        return Some(Err(e.into()));
                    }
                }
            }
        }
        Some(Ok(chunk.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::entry::canonical;
    use serde_json::json;

    /// What stands before a list says how long it is, also where its objects' messages are made twice.
    #[tokio::test]
    async fn a_list_in_protobuf_is_read_as_it_was_written() {
        let kind = |kind| api::schema::builtin().kind_of("", "v1", kind).unwrap();
        for count in [0, 3, KEPT + 1] {
            let object = |i: usize| {
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("a{i}"), "resourceVersion": "7"},
                    "data": {"text": "\n".repeat(i % 300)}})
            };
            let entry = |i| Entry::answer("a".into(), 7, &canonical(&object(i)).unwrap());
            let entries: Vec<_> = (0..count).map(|i| Arc::new(entry(i))).collect();
            let schema = kind("ConfigMap").clone();
            let mut list =
                ListBody::protobuf("v1", "ConfigMapList", b"", entries.clone(), schema).await.unwrap();
            let mut wire = Vec::new();
            while let Some(frame) = list.frame() {
                wire.extend_from_slice(&frame.unwrap());
            }
            let read = protobuf::from_wire(&wire, kind("ConfigMapList")).unwrap();
            let items = read.get("items").and_then(|i| i.as_array()).cloned().unwrap_or_default();
            assert_eq!(items.len(), count);
            for (i, mut item) in items.into_iter().enumerate() {
                (item["apiVersion"], item["kind"]) = ("v1".into(), "ConfigMap".into());
                assert_eq!(item, object(i));
            }
            for entry in entries {
                let wire = entry.protobuf(kind("ConfigMap")).unwrap();
                assert_eq!(protobuf::from_wire(&wire, kind("ConfigMap")).unwrap(), entry.value().unwrap());
            }
        }
    }
}
