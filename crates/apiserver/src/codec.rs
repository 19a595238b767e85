//! How objects are written to the store: JSON in the embedded one; in etcd upstream's encoding, protobuf in
//! its envelope, so that an upstream API server reads and writes the same data.

use crate::cache::entry::canonical;
use api::schema::{Schema, builtin};
use bytes::Bytes;
use resources::AnyKind;
use serde_json::Value;
use store::Store;

/// Values in upstream's encoding begin with this.
const MAGIC: &[u8] = b"k8s\0";

/// The bytes to store. `json` is `value` in canonical form.
pub fn encode(
    store: &dyn Store,
    value: &Value,
    json: &Bytes,
    schema: &Schema,
    kind: &dyn AnyKind,
) -> Result<Bytes, api::protobuf::EncodeError> {
    // Custom resources are JSON in etcd too.
    if !store.shared_with_upstream() || schema.custom {
        return Ok(json.clone());
    }
    let mut value = value.clone();
    if let Some(Value::Object(meta)) = value.get_mut("metadata") {
        meta.remove("resourceVersion");
    }
    let (names, version) = (kind.names(), kind.stored_version());
    if let Some(schema) = builtin().kind_of(names.group, version, names.kind).filter(|_| !version.is_empty())
    {
        value["apiVersion"] = format!("{}/{version}", names.group).into();
        return api::protobuf::to_wire(&value, schema).map(Bytes::from);
    }
    api::protobuf::to_wire(&value, schema).map(Bytes::from)
}

/// The canonical JSON of stored bytes, whichever encoding they are in.
pub fn decode(stored: &Bytes, schema: &Schema, kind: &dyn AnyKind) -> Result<Bytes, String> {
    if stored.starts_with(MAGIC) {
        let mut value = api::protobuf::from_wire(stored, schema).map_err(|e| e.to_string())?;
        value["apiVersion"] = kind.names().gvk().api_version().into();
        api::json::omit_zeros(&mut value, schema);
        return canonical(&value).map(Bytes::from).map_err(|e| e.to_string());
    }
    // JSON that we wrote is canonical; others may write members in another order.
    if stored.starts_with(b"{\"apiVersion\":") && stored.windows(12).take(300).any(|w| w == b"\"metadata\":{")
    {
        return Ok(stored.clone());
    }
    let value: Value = serde_json::from_slice(stored).map_err(|e| e.to_string())?;
    canonical(&value).map(Bytes::from).map_err(|e| e.to_string())
}
