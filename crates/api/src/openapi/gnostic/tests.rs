use super::*;
use crate::protobuf::Reader;
use serde_json::json;

/// The first field of each number on the way down.
fn walk<'a>(mut bytes: &'a [u8], way: &[u32]) -> Option<&'a [u8]> {
    for want in way {
        bytes = all(bytes, *want).first()?;
    }
    Some(bytes)
}

/// All fields of one number that have a length.
fn all(bytes: &[u8], want: u32) -> Vec<&[u8]> {
    let mut reader = Reader(bytes);
    let mut found = Vec::new();
    while let Some((number, wire)) = reader.key().unwrap() {
        match wire {
            2 if number == want => found.push(reader.bytes().unwrap()),
            _ => reader.skip(wire).unwrap(),
        }
    }
    found
}

/// The value of the pair with this name.
fn named<'a>(pairs: &[&'a [u8]], name: &str) -> Option<&'a [u8]> {
    walk(pairs.iter().find(|p| walk(p, &[1]) == Some(name.as_bytes()))?, &[2])
}

fn text<'a>(bytes: &'a [u8], way: &[u32]) -> &'a str {
    walk(bytes, way).map_or("", |b| std::str::from_utf8(b).unwrap())
}

#[test]
fn version_2() {
    let document = json!({
        "swagger": "2.0",
        "paths": {"/a": {"get": {
            "operationId": "get",
            "parameters": [{"name": "body", "in": "body", "schema": {"$ref": "#/d"}}, {"name": "q", "in": "query"}],
            "responses": {"200": {"description": "OK", "schema": {"type": "string"}}},
            "x-kubernetes-action": "list",
        }}},
        "definitions": {
            "A": {"type": "object", "required": ["n"], "properties": {
                "n": {"type": "integer", "minimum": 1.5, "maxItems": 300},
                "m": {"type": "object", "additionalProperties": {"$ref": "#/d"}},
                "l": {"type": "array", "items": {"type": "string"}},
            }, "x-kubernetes-group-version-kind": [{"kind": "A"}], "notKnown": 1},
            "B": {},
        },
        "security": [{"BearerToken": []}],
    });
    let bytes = write(&document, &v2::DOCUMENT);
    assert_eq!(text(&bytes, &[1]), "2.0");
    let get = named(&all(walk(&bytes, &[8]).unwrap(), 2), "/a").and_then(|p| walk(p, &[2])).unwrap();
    assert_eq!(text(get, &[5]), "get");
    let parameters = all(get, 8);
    assert_eq!(text(parameters[0], &[1, 1, 5, 1]), "#/d");
    assert_eq!(text(parameters[1], &[1, 2, 3, 4]), "q");
    let ok = named(&all(walk(get, &[9]).unwrap(), 1), "200").unwrap();
    assert_eq!(text(ok, &[1, 2, 1, 22, 1]), "string");
    assert_eq!(text(named(&all(get, 13), "x-kubernetes-action").unwrap(), &[2]), "\"list\"");
    let definitions = all(walk(&bytes, &[9]).unwrap(), 1);
    assert_eq!(named(&definitions, "B"), Some(&[][..]));
    let a = named(&definitions, "A").unwrap();
    assert_eq!((text(a, &[22, 1]), text(a, &[19])), ("object", "n"));
    assert_eq!(
        text(named(&all(a, 31), "x-kubernetes-group-version-kind").unwrap(), &[2]),
        r#"[{"kind":"A"}]"#
    );
    let properties = all(walk(a, &[25]).unwrap(), 1);
    let mut n = Vec::new();
    put_message(&mut n, 22, b"\x0a\x07integer");
    n.extend_from_slice(&[9 << 3 | 1, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f, 14 << 3, 0xac, 2]);
    let mut got = named(&properties, "n").unwrap().to_vec();
    // Fields come in the order of the object's names.
    got.sort_unstable();
    n.sort_unstable();
    assert_eq!(got, n);
    assert_eq!(text(named(&properties, "m").unwrap(), &[21, 1, 1]), "#/d");
    assert_eq!(text(named(&properties, "l").unwrap(), &[23, 1, 22, 1]), "string");
    assert_eq!(named(&all(walk(&bytes, &[12]).unwrap(), 1), "BearerToken"), Some(&[][..]));
}

#[test]
fn version_3() {
    let document = json!({
        "paths": {"/a": {"post": {
            "requestBody": {"content": {"*/*": {"schema": {"$ref": "#/c"}}}},
            "responses": {"201": {"description": "Created"}},
        }}},
        "components": {"schemas": {"A": {"properties": {
            "off": {"type": "boolean", "default": false},
            "none": {"default": {}},
            "any": {"additionalProperties": false, "not": {"type": "string"}},
            "two": {"oneOf": [{"type": "string"}, {"type": "number"}], "items": {"$ref": "#/c"}},
        }}}},
    });
    let bytes = write(&document, &v3::DOCUMENT);
    let post = named(&all(walk(&bytes, &[4]).unwrap(), 1), "/a").and_then(|p| walk(p, &[6])).unwrap();
    assert_eq!(text(named(&all(walk(post, &[7, 1, 2]).unwrap(), 1), "*/*").unwrap(), &[1, 2, 1]), "#/c");
    assert_eq!(text(named(&all(walk(post, &[8]).unwrap(), 2), "201").unwrap(), &[1, 1]), "Created");
    let a = named(&all(walk(&bytes, &[5, 1]).unwrap(), 1), "A").unwrap();
    let properties = all(walk(a, &[1, 31]).unwrap(), 1);
    let of = |name: &str| named(&properties, name).and_then(|p| walk(p, &[1])).unwrap();
    assert_eq!(walk(of("off"), &[33]), Some(&[2 << 3, 0][..]));
    assert_eq!(walk(of("none"), &[33]), Some(&[][..]));
    assert_eq!((walk(of("any"), &[32]), text(of("any"), &[29, 25])), (Some(&[2 << 3, 0][..]), "string"));
    assert_eq!(text(all(of("two"), 27)[1], &[1, 25]), "number");
    assert_eq!(text(of("two"), &[30, 1, 2, 1]), "#/c");
}
