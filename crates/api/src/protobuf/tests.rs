use super::*;
use crate::schema::builtin;
use crate::testing::{valid_kinds, value_of};
use proptest::prelude::*;
use serde_json::json;

fn kind(group: &str, version: &str, kind: &str) -> &'static Schema {
    builtin().kind_of(group, version, kind).expect("a built-in kind")
}

/// Bytes as gogo writes them.
#[test]
fn writes_what_upstream_writes() {
    let cm = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    let wire = to_wire(&cm, kind("", "v1", "ConfigMap")).unwrap();
    let raw = b"\x0a\x03\x0a\x01a\x12\x06\x0a\x01k\x12\x01v";
    let mut expect = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12".to_vec();
    expect.push(raw.len() as u8);
    expect.extend_from_slice(raw);
    expect.extend_from_slice(b"\x1a\0\x22\0");
    assert_eq!(wire, expect);
    assert_eq!(from_wire(&wire, kind("", "v1", "ConfigMap")).unwrap(), cm);
}

#[test]
fn drops_the_zeros_of_values_and_keeps_those_of_pointers() {
    let pod = kind("", "v1", "Pod");
    // spec { hostNetwork: false (value), enableServiceLinks: false (pointer), dnsPolicy: "" } status {}
    let spec = b"\x58\0\xf0\x01\0\x32\0";
    let mut raw = Vec::new();
    put_message(&mut raw, 2, spec);
    put_message(&mut raw, 3, b"");
    assert_eq!(decode(&raw, pod).unwrap(), json!({"spec": {"enableServiceLinks": false}}));
}

#[test]
fn special_shapes_survive() {
    let pod = json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}},
            "livenessProbe": {"httpGet": {"port": "web"}, "periodSeconds": 5}}, {"name": "d", "livenessProbe": {"tcpSocket": {"port": 0}}}],
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "s", "projected": {"sources": [{"secret": {"name": "x", "optional": false}}]}}],
        "securityContext": {}, "ephemeralContainers": [{"name": "e", "image": "i", "targetContainerName": "c"}]},
        "metadata": {"creationTimestamp": "2026-01-02T03:04:05Z", "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {".": {}}}}]}});
    let crd = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"a": {"items": {"type": "string"}, "default": {"x": [1, null]}, "enum": ["a", 1]}, "b": {"additionalProperties": true},
        "c": {"additionalProperties": {"type": "string"}}}}}}]}});
    let review = json!({"spec": {"user": "u", "extra": {"scopes": ["a", "b"], "none": []}}});
    let lease = json!({"spec": {"acquireTime": "2026-01-02T03:04:05.000006Z", "leaseDurationSeconds": 0}});
    let revision = json!({"data": {"spec": {"a": null}}, "revision": 0});
    let policy = json!({"spec": {"matchConstraints": {"resourceRules": [{"apiGroups": ["*"], "operations": ["CREATE"], "resourceNames": ["r"]}]}}});
    for (value, schema) in [
        (pod, kind("", "v1", "Pod")),
        (crd, kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition")),
        (review, kind("authorization.k8s.io", "v1", "SubjectAccessReview")),
        (lease, kind("coordination.k8s.io", "v1", "Lease")),
        (revision, kind("apps", "v1", "ControllerRevision")),
        (policy, kind("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy")),
    ] {
        let raw = encode(&value, schema).unwrap();
        assert_eq!(decode(&raw, schema).unwrap(), value);
    }
}

#[test]
fn what_is_broken_is_refused() {
    let pod = kind("", "v1", "Pod");
    assert!(from_wire(b"{}", pod).is_err());
    for bytes in [
        &b"\x0a\x05a"[..],
        b"\x08",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0f",
        b"\x00",
        b"\x0a\x02\x0a\x05",
    ] {
        assert!(decode(bytes, pod).is_err(), "{bytes:?}");
    }
    assert_eq!(
        decode(b"\xa2\x1f\x03abc\xf8\x20\x01", pod).unwrap(),
        json!({}),
        "unknown fields are passed over"
    );
    assert!(
        encode(&json!({"spec": {"containers": [{"image": 5}]}}), pod)
            .unwrap_err()
            .to_string()
            .starts_with("spec.containers.image:")
    );
    let table = kind("meta.k8s.io", "v1", "Table");
    assert!(encode(&json!({}), table).is_err());
    // JSON schemas within JSON schemas
    let props = builtin()
        .definition("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
        .unwrap();
    let mut bytes = Vec::new();
    for _ in 0..1000 {
        let mut outer = Vec::new();
        put_message(&mut outer, 28, &bytes);
        bytes = outer;
    }
    assert_eq!(decode(&bytes, props).unwrap_err(), DecodeError::TooDeep);
}

#[test]
fn packed_numbers_are_read() {
    let schema = kind("", "v1", "Pod").at(&["spec", "securityContext"]).unwrap();
    assert_eq!(decode(b"\x22\x03\x01\xac\x02", schema).unwrap(), json!({"supplementalGroups": [1, 300]}));
    assert_eq!(decode(b"\x20\x01\x20\xac\x02", schema).unwrap(), json!({"supplementalGroups": [1, 300]}));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn json_to_protobuf_and_back(kind in 0..valid_kinds().len(), seed in any::<u64>()) {
        let schema = &valid_kinds()[kind];
        let value = value_of(schema, seed);
        let raw = encode(&value, schema).unwrap();
        prop_assert_eq!(&decode(&raw, schema).unwrap(), &value, "{}", schema.name);
        // and a cut or damaged message never does worse than fail
        let cut = raw.len().min(seed as usize % (raw.len() + 1));
        let _ = decode(&raw[..cut], schema);
        let mut broken = raw;
        if let Some(b) = broken.get_mut(cut) { *b ^= (seed >> 32) as u8; }
        let _ = decode(&broken, schema);
    }

    #[test]
    fn json_text_and_back(kind in 0..valid_kinds().len(), seed in any::<u64>()) {
        let schema = &valid_kinds()[kind];
        let value = value_of(schema, seed);
        let decoded = crate::json::decode(&serde_json::to_vec(&value).unwrap(), schema).unwrap();
        prop_assert_eq!(&decoded.value, &value);
        prop_assert!(decoded.faults.is_empty());
    }
}
