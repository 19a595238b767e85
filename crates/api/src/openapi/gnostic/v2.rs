//! The messages of `openapi.v2`, as far as our documents need them.

use super::Type::{Any, Bool, Choice, Integer, Many, Message as Inner, Number, Text, Texts};
use super::{Message, Type, is_reference};
use serde_json::Value;

pub(in crate::openapi) static DOCUMENT: Message = Message::of(
    &[
        ("swagger", 1, Text),
        ("info", 2, Inner(&INFO)),
        ("paths", 8, Inner(&PATHS)),
        ("definitions", 9, Inner(&SCHEMAS)),
        ("security", 12, Many(&Inner(&SECURITY))),
        ("securityDefinitions", 13, Inner(&SCHEMES)),
    ],
    16,
);

static INFO: Message = Message::of(&[("title", 1, Text), ("version", 2, Text), ("description", 3, Text)], 7);

static SECURITY: Message = Message::map(Texts);

static SCHEMES: Message = Message::map(Choice(|_| Some((2, Inner(&API_KEY)))));

static API_KEY: Message =
    Message::of(&[("type", 1, Text), ("name", 2, Text), ("in", 3, Text), ("description", 4, Text)], 5);

static PATHS: Message = Message { fields: &[], extensions: 1, others: Some((2, Inner(&PATH))) };

static PATH: Message = Message::of(
    &[
        ("$ref", 1, Text),
        ("get", 2, Inner(&OPERATION)),
        ("put", 3, Inner(&OPERATION)),
        ("post", 4, Inner(&OPERATION)),
        ("delete", 5, Inner(&OPERATION)),
        ("options", 6, Inner(&OPERATION)),
        ("head", 7, Inner(&OPERATION)),
        ("patch", 8, Inner(&OPERATION)),
        ("parameters", 9, Many(&PARAMETER)),
    ],
    10,
);

static OPERATION: Message = Message::of(
    &[
        ("tags", 1, Many(&Text)),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("operationId", 5, Text),
        ("produces", 6, Many(&Text)),
        ("consumes", 7, Many(&Text)),
        ("parameters", 8, Many(&PARAMETER)),
        ("responses", 9, Inner(&RESPONSES)),
        ("schemes", 10, Many(&Text)),
        ("deprecated", 11, Bool),
        ("security", 12, Many(&Inner(&SECURITY))),
    ],
    13,
);

const PARAMETER: Type =
    Choice(|v| Some(if is_reference(v) { (2, Inner(&REFERENCE)) } else { (1, Choice(place)) }));

static REFERENCE: Message = Message::of(&[("$ref", 1, Text), ("description", 2, Text)], 0);

fn place(parameter: &Value) -> Option<(u32, Type)> {
    let plain = |v: &Value| {
        Some(match v.get("in")?.as_str()? {
            "header" => (1, Inner(&OTHER_PARAMETER)),
            "formData" => (2, Inner(&QUERY_PARAMETER)),
            "query" => (3, Inner(&QUERY_PARAMETER)),
            _ => (4, Inner(&OTHER_PARAMETER)),
        })
    };
    match parameter.get("in").and_then(Value::as_str) {
        Some("body") => Some((1, Inner(&BODY))),
        _ => Some((2, Choice(plain))),
    }
}

static BODY: Message = Message::of(
    &[
        ("description", 1, Text),
        ("name", 2, Text),
        ("in", 3, Text),
        ("required", 4, Bool),
        ("schema", 5, Inner(&SCHEMA)),
    ],
    6,
);

static OTHER_PARAMETER: Message = Message::of(
    &[
        ("required", 1, Bool),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 5, Text),
        ("format", 6, Text),
        ("default", 9, Any),
        ("uniqueItems", 19, Bool),
        ("enum", 20, Many(&Any)),
    ],
    22,
);

static QUERY_PARAMETER: Message = Message::of(
    &[
        ("required", 1, Bool),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("allowEmptyValue", 5, Bool),
        ("type", 6, Text),
        ("format", 7, Text),
        ("default", 10, Any),
        ("uniqueItems", 20, Bool),
        ("enum", 21, Many(&Any)),
    ],
    23,
);

static RESPONSES: Message = Message {
    fields: &[],
    extensions: 2,
    others: Some((
        1,
        Choice(|v| Some(if is_reference(v) { (2, Inner(&REFERENCE)) } else { (1, Inner(&RESPONSE)) })),
    )),
};

static RESPONSE: Message =
    Message::of(&[("description", 1, Text), ("schema", 2, Choice(|_| Some((1, Inner(&SCHEMA)))))], 5);

static SCHEMAS: Message = Message::map(Inner(&SCHEMA));

static SCHEMA: Message = Message::of(
    &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Any),
        ("multipleOf", 6, Number),
        ("maximum", 7, Number),
        ("exclusiveMaximum", 8, Bool),
        ("minimum", 9, Number),
        ("exclusiveMinimum", 10, Bool),
        ("maxLength", 11, Integer),
        ("minLength", 12, Integer),
        ("pattern", 13, Text),
        ("maxItems", 14, Integer),
        ("minItems", 15, Integer),
        ("uniqueItems", 16, Bool),
        ("maxProperties", 17, Integer),
        ("minProperties", 18, Integer),
        ("required", 19, Many(&Text)),
        ("enum", 20, Many(&Any)),
        ("additionalProperties", 21, Choice(more_properties)),
        ("type", 22, Texts),
        ("items", 23, Choice(|_| Some((1, Inner(&SCHEMA))))),
        ("allOf", 24, Many(&Inner(&SCHEMA))),
        ("properties", 25, Inner(&SCHEMAS)),
        ("discriminator", 26, Text),
        ("readOnly", 27, Bool),
        ("externalDocs", 29, Inner(&EXTERNAL)),
        ("example", 30, Any),
    ],
    31,
);

fn more_properties(v: &Value) -> Option<(u32, Type)> {
    Some(if v.is_boolean() { (2, Bool) } else { (1, Inner(&SCHEMA)) })
}

static EXTERNAL: Message = Message::of(&[("description", 1, Text), ("url", 2, Text)], 3);
