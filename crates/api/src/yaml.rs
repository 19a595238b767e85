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
    let mut cx = Context::of_yaml(Plain::of(bytes));
    let value = Node::root(schema, &mut cx).deserialize(serde_norway::Deserializer::from_slice(bytes));
    cx.finish(value.map_err(|e| DecodeError::Syntax(format!("error converting YAML to JSON: yaml: {e}"))))
}

/// What a plain scalar is.
#[derive(Debug, PartialEq)]
pub(crate) enum Scalar {
    Bool(bool),
    Int(i64),
    Float(f64),
}

/// The text that is read. Clients and upstream speak YAML 1.1, of which the parser does not know all that a scalar
/// without quotes may be: `yes` is a truth there, and `0400` octal.
pub(crate) struct Plain {
    start: usize,
    text: Vec<u8>,
}

impl Plain {
    /// Of a text. Where a tag says what a scalar is, its form does not.
    fn of(bytes: &[u8]) -> Option<Self> {
        let tagged = bytes.windows(2).any(|w| w == b"!!");
        (!tagged).then(|| Plain { start: bytes.as_ptr() as usize, text: bytes.to_vec() })
    }

    /// What a scalar is, which is a piece of the text, if it is neither quoted nor text.
    pub(crate) fn scalar(&self, piece: &str) -> Option<Scalar> {
        let at = (piece.as_ptr() as usize).checked_sub(self.start).filter(|at| *at < self.text.len())?;
        let before = at.checked_sub(1).and_then(|i| self.text.get(i));
        if matches!(before, Some(b'"' | b'\'')) { None } else { scalar(piece) }
    }
}

fn scalar(text: &str) -> Option<Scalar> {
    match text {
        "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Some(Scalar::Bool(true)),
        "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Some(Scalar::Bool(false)),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    let plain = text.replace('_', "");
    let (negative, digits) = match plain.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let radix = |prefix: &str, radix| digits.strip_prefix(prefix).map(|d| (d, radix));
    let (number, base) = radix("0x", 16)
        .or_else(|| radix("0o", 8))
        .or_else(|| radix("0b", 2))
        .or_else(|| radix("0", 8).filter(|(d, _)| !d.is_empty()))
        .unwrap_or((digits, 10));
    if number.starts_with(|c: char| c.is_ascii_alphanumeric())
        && let Ok(number) = i64::from_str_radix(number, base)
    {
        return Some(Scalar::Int(if negative { -number } else { number }));
    }
    let of_float = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    let float: f64 = plain.parse().ok().filter(|_| plain.chars().all(of_float))?;
    let whole = float.fract() == 0.0 && float.abs() < 9e15;
    Some(if whole { Scalar::Int(float as i64) } else { Scalar::Float(float) })
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

    /// As Go's YAML, which kubectl has, reads them.
    #[test]
    fn plain_scalars_are_those_of_yaml_1_1() {
        let read = |text: &str| decode_any(text.as_bytes()).unwrap();
        assert_eq!(
            read(
                "a: yes\nb: \"yes\"\nc: 'no'\nd: off\ne: 0400\nf: 1_000\ng: 010\nh: \"010\"\ni: 08\nj: -0x1F\nk: 1_0.5\n"
            ),
            json!({"a": true, "b": "yes", "c": "no", "d": false, "e": 256, "f": 1000, "g": 8, "h": "010", "i": 8, "j": -31, "k": 10.5})
        );
    }

    #[test]
    fn what_is_no_number_stays_text() {
        let read = |text: &str| decode_any(text.as_bytes()).unwrap();
        assert_eq!(
            read(
                "- yess\n- 1.2.3\n- 2026-01-01\n- 1e3x\n- |\n  yes\n- 10.0.0.1\n- '0400'\n- 1_2_x\n- ._\n- '-'\n"
            ),
            json!(["yess", "1.2.3", "2026-01-01", "1e3x", "yes\n", "10.0.0.1", "0400", "1_2_x", "._", "-"])
        );
        assert_eq!(read("a: !!str yes"), json!({"a": "yes"}));
        assert_eq!(read("a: &x yes\nb: *x\n"), json!({"a": true, "b": true}));
        let cm = builtin().kind_of("", "v1", "ConfigMap").unwrap();
        for text in ["data: {a: yes}", "data: {a: 0400}", "data: {a: on}"] {
            assert!(decode(text.as_bytes(), cm).is_err(), "{text}");
        }
        let merged = decode(b"data:\n  <<: {a: \"1\", b: \"2\"}\n  b: \"3\"\n", cm).unwrap();
        assert_eq!((merged.value, merged.faults.len()), (json!({"data": {"a": "1", "b": "3"}}), 0));
        let pod = builtin().kind_of("", "v1", "Pod").unwrap();
        let merged =
            decode(b"x-base: &b {hostNetwork: true}\nspec:\n  <<: *b\n  nodeName: n\n", pod).unwrap();
        assert_eq!(merged.value["spec"], json!({"hostNetwork": true, "nodeName": "n"}));
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
