//! How objects are written to the store: JSON in the embedded one; in etcd upstream's encoding, protobuf in
//! its envelope, so that an upstream API server reads and writes the same data.

use crate::cache::entry::canonical;
use api::protobuf;
use api::schema::{Schema, builtin};
use bytes::Bytes;
use resources::AnyKind;
use serde_json::Value;
use store::Store;

/// Values in upstream's encoding begin with this.
const MAGIC: &[u8] = b"k8s\0";

/// The bytes to store of an object in canonical form.
pub fn encode(
    store: &dyn Store,
    json: &Bytes,
    schema: &Schema,
    kind: &dyn AnyKind,
) -> Result<Bytes, protobuf::EncodeError> {
    // Custom resources are JSON in etcd too.
    if !store.shared_with_upstream() || schema.custom {
        return Ok(json.clone());
    }
    upstream(json, schema, kind).map(Bytes::from)
}

/// An object as upstream stores it, which for some kinds is in another version.
fn upstream(json: &[u8], schema: &Schema, kind: &dyn AnyKind) -> Result<Vec<u8>, protobuf::EncodeError> {
    let (names, version) = (kind.names(), kind.stored_version());
    let other = builtin().kind_of(names.group, version, names.kind).filter(|_| !version.is_empty());
    match other {
        Some(schema) => {
            let raw = protobuf::encode(json, schema)?;
            Ok(protobuf::wrap(&format!("{}/{version}", names.group), names.kind, &raw))
        }
        None => protobuf::to_wire(json, schema),
    }
}

/// The canonical JSON of stored bytes, whichever encoding they are in.
pub fn decode(stored: &Bytes, schema: &Schema, kind: &dyn AnyKind) -> Result<Bytes, String> {
    if stored.starts_with(MAGIC) {
        let mut value = protobuf::from_wire(stored, schema).map_err(|e| e.to_string())?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_stored_is_read_again_and_says_its_version() {
        for (kind, expected) in [
            ("ConfigMap", "v1"),
            ("Deployment", "apps/v1"),
            ("MutatingAdmissionPolicy", "admissionregistration.k8s.io/v1beta1"),
        ] {
            let kind = *resources::registry::kinds().iter().find(|k| k.names().kind == kind).unwrap();
            let (names, gvk) = (kind.names(), kind.names().gvk());
            let schema = builtin().kind_of(names.group, &gvk.version, names.kind).unwrap();
            let mut object =
                json!({"apiVersion": gvk.api_version(), "kind": names.kind, "metadata": {"name": "a"}});
            api::json::omit_zeros(&mut object, schema);
            let json = canonical(&object).unwrap();
            let stored = Bytes::from(upstream(&json, schema, kind).unwrap());
            let envelope = protobuf::unwrap(&stored).unwrap();
            assert_eq!((envelope.api_version, envelope.kind), (expected, names.kind));
            assert_eq!(decode(&stored, schema, kind).unwrap(), json);
        }
    }
}
