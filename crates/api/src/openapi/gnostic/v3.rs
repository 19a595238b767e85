//! The messages of `openapi.v3`, as far as our documents need them.

use super::Type::{Any, Bool, Choice, Integer, Many, Message as Inner, Number, Text, Texts};
use super::{Message, Type, is_reference};
use serde_json::Value;

pub(in crate::openapi) static DOCUMENT: Message = Message::of(
    &[
        ("openapi", 1, Text),
        ("info", 2, Inner(&INFO)),
        ("paths", 4, Inner(&PATHS)),
        ("components", 5, Inner(&COMPONENTS)),
        ("security", 6, Many(&Inner(&SECURITY))),
    ],
    9,
);

static INFO: Message = Message::of(&[("title", 1, Text), ("description", 2, Text), ("version", 6, Text)], 7);

static SECURITY: Message = Message::map(Texts);

static COMPONENTS: Message =
    Message::of(&[("schemas", 1, Inner(&SCHEMAS)), ("securitySchemes", 7, Inner(&SCHEMES))], 10);

static SCHEMES: Message = Message::map(Choice(|v| Some(either(v, &SCHEME))));

static SCHEME: Message =
    Message::of(&[("type", 1, Text), ("description", 2, Text), ("name", 3, Text), ("in", 4, Text)], 9);

static REFERENCE: Message =
    Message::of(&[("$ref", 1, Text), ("summary", 2, Text), ("description", 3, Text)], 0);

/// The thing itself or a reference to it.
fn either(v: &Value, itself: &'static Message) -> (u32, Type) {
    if is_reference(v) { (2, Inner(&REFERENCE)) } else { (1, Inner(itself)) }
}

static PATHS: Message = Message { fields: &[], extensions: 2, others: Some((1, Inner(&PATH))) };

static PATH: Message = Message::of(
    &[
        ("$ref", 1, Text),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("get", 4, Inner(&OPERATION)),
        ("put", 5, Inner(&OPERATION)),
        ("post", 6, Inner(&OPERATION)),
        ("delete", 7, Inner(&OPERATION)),
        ("options", 8, Inner(&OPERATION)),
        ("head", 9, Inner(&OPERATION)),
        ("patch", 10, Inner(&OPERATION)),
        ("parameters", 13, Many(&PARAMETER)),
    ],
    14,
);

static OPERATION: Message = Message::of(
    &[
        ("tags", 1, Many(&Text)),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("operationId", 5, Text),
        ("parameters", 6, Many(&PARAMETER)),
        ("requestBody", 7, Choice(|v| Some(either(v, &REQUEST)))),
        ("responses", 8, Inner(&RESPONSES)),
        ("deprecated", 10, Bool),
        ("security", 11, Many(&Inner(&SECURITY))),
    ],
    13,
);

const PARAMETER: Type = Choice(|v| Some(either(v, &PARAMETER_ITSELF)));

static PARAMETER_ITSELF: Message = Message::of(
    &[
        ("name", 1, Text),
        ("in", 2, Text),
        ("description", 3, Text),
        ("required", 4, Bool),
        ("deprecated", 5, Bool),
        ("allowEmptyValue", 6, Bool),
        ("schema", 10, SCHEMA),
    ],
    14,
);

static REQUEST: Message =
    Message::of(&[("description", 1, Text), ("content", 2, Inner(&CONTENT)), ("required", 3, Bool)], 4);

static CONTENT: Message = Message::map(Inner(&MEDIA));

static MEDIA: Message = Message::of(&[("schema", 1, SCHEMA), ("example", 2, Any)], 5);

static RESPONSES: Message =
    Message { fields: &[("default", 1, RESPONSE)], extensions: 3, others: Some((2, RESPONSE)) };

const RESPONSE: Type = Choice(|v| Some(either(v, &RESPONSE_ITSELF)));

static RESPONSE_ITSELF: Message =
    Message::of(&[("description", 1, Text), ("content", 3, Inner(&CONTENT))], 5);

const SCHEMA: Type = Choice(|v| Some(either(v, &SCHEMA_ITSELF)));

static SCHEMAS: Message = Message::map(SCHEMA);

static SCHEMA_ITSELF: Message = Message::of(
    &[
        ("nullable", 1, Bool),
        ("readOnly", 3, Bool),
        ("writeOnly", 4, Bool),
        ("externalDocs", 6, Inner(&EXTERNAL)),
        ("example", 7, Any),
        ("deprecated", 8, Bool),
        ("title", 9, Text),
        ("multipleOf", 10, Number),
        ("maximum", 11, Number),
        ("exclusiveMaximum", 12, Bool),
        ("minimum", 13, Number),
        ("exclusiveMinimum", 14, Bool),
        ("maxLength", 15, Integer),
        ("minLength", 16, Integer),
        ("pattern", 17, Text),
        ("maxItems", 18, Integer),
        ("minItems", 19, Integer),
        ("uniqueItems", 20, Bool),
        ("maxProperties", 21, Integer),
        ("minProperties", 22, Integer),
        ("required", 23, Many(&Text)),
        ("enum", 24, Many(&Any)),
        ("type", 25, Text),
        ("allOf", 26, Many(&SCHEMA)),
        ("oneOf", 27, Many(&SCHEMA)),
        ("anyOf", 28, Many(&SCHEMA)),
        ("not", 29, Inner(&SCHEMA_ITSELF)),
        ("items", 30, Choice(|_| Some((1, SCHEMA)))),
        ("properties", 31, Inner(&SCHEMAS)),
        ("additionalProperties", 32, Choice(more_properties)),
        ("default", 33, Choice(plain_default)),
        ("description", 34, Text),
        ("format", 35, Text),
    ],
    36,
);

fn more_properties(v: &Value) -> Option<(u32, Type)> {
    Some(if v.is_boolean() { (2, Bool) } else { (1, SCHEMA) })
}

/// The message has no place for lists and objects.
fn plain_default(v: &Value) -> Option<(u32, Type)> {
    match v {
        Value::Number(_) => Some((1, Number)),
        Value::Bool(_) => Some((2, Bool)),
        Value::String(_) => Some((3, Text)),
        _ => None,
    }
}

static EXTERNAL: Message = Message::of(&[("description", 1, Text), ("url", 2, Text)], 3);
