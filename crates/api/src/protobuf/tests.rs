use super::*;
use crate::schema::builtin;
use crate::testing::{valid_kinds, value_of};
use proptest::prelude::*;
use serde_json::{Value, json};

fn kind(group: &str, version: &str, kind: &str) -> &'static Schema {
    builtin().kind_of(group, version, kind).expect("a built-in kind")
}

/// Kinds with numbers or text, base64, JSON schemas, embedded objects, quantities, microseconds, inline messages.
const KINDS: [(&str, &str, &str); 10] = [
    ("", "v1", "Pod"),
    ("", "v1", "ConfigMap"),
    ("", "v1", "Secret"),
    ("", "v1", "Service"),
    ("", "v1", "Event"),
    ("apps", "v1", "Deployment"),
    ("apps", "v1", "ControllerRevision"),
    ("autoscaling", "v2", "HorizontalPodAutoscaler"),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
    ("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy"),
];

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
    let wrong = json!({"spec": {"containers": [{"image": 5}]}});
    let refused = encode(&wrong, pod).unwrap_err();
    assert!(refused.to_string().starts_with("spec.containers.image:"), "{refused}");
    assert_eq!(encode(wrong.to_string().as_bytes(), pod), Err(refused));
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

/// Any JSON, as it stands in protobuf: as text that serde_json prints of a value.
fn printed(text: &[u8]) -> Option<Vec<u8>> {
    let value: Value = serde_json::from_slice(text).ok()?;
    let mut out = Vec::new();
    put_message(&mut out, 1, &serde_json::to_vec(&value).unwrap());
    Some(out)
}

#[test]
fn json_is_read_as_serde_json_reads_it() {
    let any = crate::schema::any();
    let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
    let texts = r#"null|true|false|tru|nul|truefalse||  7 |0|-0|-1|-|00|01|1.|1.5|.5|1e3|1E+2|1e|1e999|-1.5e-7|+1|0x1
123456789012345678|1234567890123456789|9223372036854775807|9223372036854775808|-9223372036854775808|-9223372036854775809
18446744073709551615|18446744073709551616|0.1|100000000000000000000000|"|""|"a|"a"b|"\"|"\a"|"\/\b\f\n\r\t\"\\"|"\u0041"|"\u00e"
"\u+041"|"\ud83d\ude00"|"\ud83d"|"\ud83dx"|"\ud83d\u0041"|"\ude00"|"\u12€"|"€\n😀"|"12345678\n12345678"|"1234567"|"1234567é"
[]|[1]|[1,]|[,1]|[1 2]|[ 1 , 2 ]|[1|]|{}|{"a":1}|{"a":1,}|{,}|{"a"}|{"a":}|{"a" : 1 , "b":[{}]}|{a:1}|{1:1}|{"a":1 "b":2}|{"a":1|{"a"
{"b":1,"a":2}|{"a":1,"a":2}|{"b":1,"a":2,"b":null}|{"a":{"z":1,"y":[true]},"a":{"y":0}}|{"\u0061":1,"a":2}|[1]]|{}x|"a\"#;
    let mut texts: Vec<Vec<u8>> = texts.split(['|', '\n']).map(|t| t.as_bytes().to_vec()).collect();
    texts.extend(
        [
            &b"\"a\nb\""[..],
            b"\"\x7f\"",
            b"\"12345678\x01\"",
            b"\"\xff\"",
            b"\"1234567\xc3\xa9\"",
            b"\x00",
            b"\"a\x00\"",
        ]
        .map(Vec::from),
    );
    texts.extend([1, 127, 128, 100_000].map(|n| nested(n).into()));
    for text in texts {
        let read = encode(&text[..], &any);
        assert_eq!(read.clone().ok(), printed(&text), "{:?}: {read:?}", String::from_utf8_lossy(&text));
        if let Ok(value) = serde_json::from_slice::<Value>(&text) {
            assert_eq!(encode(&value, &any), read);
        }
    }
    assert_eq!(encode(nested(200).as_bytes(), &any), Err(EncodeError::TooDeep));
    let mut deep = json!({});
    for _ in 0..200 {
        deep = json!([deep]);
    }
    assert_eq!(encode(&deep, &any), Err(EncodeError::TooDeep));
    let refused = encode(&b"{\"a\":"[..], &any).unwrap_err();
    assert_eq!(refused.to_string(), "unexpected end of JSON input");
}

/// JSON with the members of all objects in the wrong order, with escapes and white space, and each there twice.
fn disordered(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let escaped = |text: &str| {
                text.chars()
                    .map(|c| match c {
                        'a'..='z' => format!("\\u{:04x}", u32::from(c)),
                        '"' | '\\' => format!("\\{c}"),
                        '\n' => "\\n".into(),
                        c => c.into(),
                    })
                    .collect::<String>()
            };
            let member = |(name, v): (&String, &Value)| format!("\"{}\" :\t{}", escaped(name), disordered(v));
            let first = members.iter().map(|(name, _)| format!("{}: [null]", json!(name)));
            let all: Vec<_> = first.chain(members.iter().rev().map(member)).collect();
            format!("{{{}\n}}", all.join(","))
        }
        Value::Array(items) => {
            format!("[ {} ]", items.iter().map(disordered).collect::<Vec<_>>().join(" , "))
        }
        other => other.to_string(),
    }
}

/// The message of an object's text is that of its value, and is read as that value.
fn check(value: &Value, schema: &Schema) {
    let raw = encode(value, schema).unwrap();
    assert_eq!(&decode(&raw, schema).unwrap(), value, "{}", schema.name);
    let text = serde_json::to_vec(value).unwrap();
    assert_eq!(encode(&text[..], schema).unwrap(), raw, "{}", schema.name);
    assert_eq!(encode(disordered(value).as_bytes(), schema).unwrap(), raw, "{}", schema.name);
    let mut appended = vec![1, 2];
    encode_into(&mut appended, &text[..], schema).unwrap();
    assert_eq!(appended[2..], raw);
}

/// One object of every kind that is served.
#[test]
fn every_kind_survives() {
    let mut known = 0;
    for doc in include_str!("../../../../tests/data/kinds.yaml").split("\n---\n") {
        let mut value = crate::yaml::decode_any(doc.replace(": CSR", ": YQ==").as_bytes()).unwrap();
        let text = |name: &str| value[name].as_str().unwrap().to_string();
        let (gv, kind) = (crate::GroupVersion::parse(&text("apiVersion")), text("kind"));
        let Some(schema) = builtin().kind_of(&gv.group, &gv.version, &kind) else { continue };
        value = crate::json::check(value, schema).unwrap().value;
        let wire = to_wire(&value, schema).unwrap();
        assert_eq!(to_wire(&serde_json::to_vec(&value).unwrap()[..], schema).unwrap(), wire);
        let read = from_wire(&wire, schema).unwrap();
        assert_eq!((&read["apiVersion"], &read["kind"]), (&value["apiVersion"], &value["kind"]));
        assert_eq!(to_wire(&read, schema).unwrap(), wire);
        known += 1;
    }
    assert!(known > 50, "{known}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn text_and_value_have_one_message(kind in 0..valid_kinds().len(), seed in any::<u64>()) {
        let schema = &valid_kinds()[kind];
        check(&value_of(schema, seed), schema);
    }

    #[test]
    fn those_with_much_in_them_too(at in 0..KINDS.len(), seed in any::<u64>()) {
        let (group, version, name) = KINDS[at];
        let schema = kind(group, version, name);
        check(&value_of(schema, seed), schema);
    }

    #[test]
    fn damaged_json_is_refused_as_serde_json_refuses_it(kind in 0..valid_kinds().len(), seed in any::<u64>(), byte in any::<u8>()) {
        let schema = &valid_kinds()[kind];
        let mut text = serde_json::to_vec(&value_of(schema, seed)).unwrap();
        let at = seed as usize % text.len();
        match seed % 3 {
            0 => text.truncate(at),
            1 => text[at] = byte,
            _ => text.insert(at, byte & 0x7f),
        }
        prop_assert_eq!(encode(&text[..], &crate::schema::any()).ok(), printed(&text));
        let value = serde_json::from_slice::<Value>(&text).ok();
        prop_assert_eq!(encode(&text[..], schema).ok(), value.and_then(|v| encode(&v, schema).ok()));
    }

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
