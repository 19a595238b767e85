//! YAML in: one document, held to the same rules as JSON.

use crate::json::{self, Context, DecodeError, Decoded, Node};
use crate::schema::{Schema, any};
use serde::de::DeserializeSeed;
use serde_json::Value;

/// More flow collections than this are refused: the parser takes time in the square of their depth.
const MAX_FLOWS: usize = 10_000;

/// Reads an object of this schema. More than one document, and aliases that multiply, are refused.
pub fn decode(bytes: &[u8], schema: &Schema) -> Result<Decoded, DecodeError> {
    if bytes.trim_ascii_start().first() == Some(&b'{') {
        match json::decode(bytes, schema) {
            Err(DecodeError::Syntax(_)) => {} // not JSON, then
            read => return read,
        }
    }
    check_depth(bytes)?;
    let mut cx = Context::default();
    let value = Node::root(schema, &mut cx).deserialize(serde_norway::Deserializer::from_slice(bytes));
    cx.finish(value.map_err(|e| DecodeError::Syntax(format!("error converting YAML to JSON: yaml: {e}"))))
}

/// Counts what may be the beginnings of flow collections, and of block collections within each other on one line,
/// before the parser takes memory for each; quotes and block text count too, so it is an estimate, but one that
/// cannot be talked down below what is there.
fn check_depth(bytes: &[u8]) -> Result<(), DecodeError> {
    let (mut open, mut total, mut before) = (0usize, 0, b' ');
    // Indicators at the beginning of this line, with nothing but blanks between them.
    let mut leading = Some(0usize);
    for &b in bytes {
        leading = match (b, leading) {
            (b'\n' | b'\r', _) => Some(0),
            (b'-' | b'?', Some(n)) if n > json::MAX_DEPTH && before.is_ascii_whitespace() => {
                return Err(DecodeError::TooDeep);
            }
            (b'-' | b'?', Some(n)) if before.is_ascii_whitespace() => Some(n + 1),
            (b' ' | b'\t', n) => n,
            _ => None,
        };
        match b {
            b'[' | b'{' if before.is_ascii_whitespace() || b"[{,:?\"'".contains(&before) => {
                (open, total) = (open + 1, total + 1);
                if open > json::MAX_DEPTH || total > MAX_FLOWS {
                    return Err(DecodeError::TooDeep);
                }
            }
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        before = b;
    }
    Ok(())
}

/// Reads any YAML that JSON could say.
pub fn decode_any(bytes: &[u8]) -> Result<Value, DecodeError> {
    decode(bytes, &any()).map(|d| d.value)
}

/// Writes YAML.
pub fn encode(value: &Value) -> Result<String, serde_norway::Error> {
    serde_norway::to_string(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::builtin;
    use serde_json::json;

    #[test]
    fn reads_by_the_schema() {
        let cm = builtin().kind_of("", "v1", "ConfigMap").unwrap();
        let d = decode(b"apiVersion: v1\nkind: ConfigMap\nfoo: 1\ndata:\n  1: x\n  b: \"2\"\n", cm).unwrap();
        assert_eq!(d.value, json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"1": "x", "b": "2"}}));
        assert_eq!(d.faults, ["unknown field \"foo\""]);
        let e = decode(b"data: {a: 1}", cm).unwrap_err();
        assert_eq!(
            e.to_string(),
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string"
        );
    }

    #[test]
    fn refuses_what_it_should() {
        for text in ["a: 1\n---\nb: 2\n", "a: [1", "a: &x [1,2]\nb: *y\n"] {
            assert!(decode_any(text.as_bytes()).is_err(), "{text}");
        }
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            let refs = vec![format!("*a{}", i - 1); 9].join(",");
            bomb += &format!("a{i}: &a{i} [{refs}]\n");
        }
        assert!(decode_any(bomb.as_bytes()).is_err());
        for deep in ["[", "{a: ", "- ", "? ", "{'}': "] {
            assert!(decode_any(deep.repeat(50_000).as_bytes()).is_err(), "{deep}");
        }
    }
}
