//! The three ways to patch an object: JSON patch, JSON merge patch, strategic merge patch. What comes out
//! is not yet an object of its schema: run [`crate::json::check`] over it.

mod strategic;

pub use strategic::strategic;

use crate::json::{MAX_DEPTH, depth};
use json_patch::{PatchErrorKind, PatchOperation};
use serde_json::Value;

/// Upstream allows no more operations in one JSON patch.
pub const MAX_OPERATIONS: usize = 10_000;

/// How much the `copy` operations of one patch may add.
const MAX_COPIED: usize = 3 << 20;

/// Why a patch was not carried out. The target is then in no particular state.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PatchError {
    /// It is not a patch: 400.
    #[error("{0}")]
    Invalid(String),
    /// It has too many operations: 413.
    #[error("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}")]
    TooMany(usize),
    /// It does not fit the object: 422.
    #[error("{0}")]
    NotApplicable(String),
}

impl PatchError {
    /// The HTTP status that says so.
    pub fn http_code(&self) -> u16 {
        match self {
            PatchError::Invalid(_) => 400,
            PatchError::TooMany(_) => 413,
            PatchError::NotApplicable(_) => 422,
        }
    }
}

/// RFC 6902.
pub fn json_patch(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let Value::Array(operations) = patch else {
        return Err(PatchError::Invalid(
            "json: cannot unmarshal object into Go value of type jsonpatch.Patch".into(),
        ));
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooMany(operations.len()));
    }
    let mut copied = 0;
    let mut deepest = depth(target); // at most
    for operation in operations {
        let name = operation["op"].as_str().unwrap_or("unknown").to_string();
        let path = operation["path"].as_str().unwrap_or_default().to_string();
        let parsed: PatchOperation = serde_json::from_value(operation.clone())
            .map_err(|e| PatchError::Invalid(format!("error decoding patch: {name} operation: {e}")))?;
        if let PatchOperation::Copy(copy) = &parsed {
            copied += target.pointer(copy.from.as_str()).map_or(0, size);
            if copied > MAX_COPIED {
                let what = "the accumulated size increase of copy operations exceeds the limit of";
                return Err(PatchError::NotApplicable(format!(
                    "Unable to complete the copy, {what} {MAX_COPIED}"
                )));
            }
        }
        let steps = |pointer: &str| pointer.matches('/').count();
        deepest = deepest.max(match &parsed {
            PatchOperation::Add(add) => steps(&path) + depth(&add.value),
            PatchOperation::Replace(replace) => steps(&path) + depth(&replace.value),
            PatchOperation::Copy(copy) => steps(&path) + deepest.saturating_sub(steps(copy.from.as_str())),
            PatchOperation::Move(r#move) => {
                steps(&path) + deepest.saturating_sub(steps(r#move.from.as_str()))
            }
            _ => 0,
        });
        json_patch::patch(target, std::slice::from_ref(&parsed)).map_err(|e| {
            PatchError::NotApplicable(match e.kind {
                PatchErrorKind::TestFailed => format!("testing value {path} failed: test failed"),
                PatchErrorKind::InvalidFromPointer => {
                    format!(
                        "{name} operation does not apply: doc is missing from path: {}: missing value",
                        operation["from"]
                    )
                }
                PatchErrorKind::InvalidPointer => {
                    format!("{name} operation does not apply: doc is missing path: {path:?}: missing value")
                }
                PatchErrorKind::CannotMoveInsideItself => {
                    format!("{name} operation does not apply: {}", e.kind)
                }
                _ => e.to_string(),
            })
        })?;
        if deepest > MAX_DEPTH {
            deepest = depth(target);
            if deepest > MAX_DEPTH {
                return Err(PatchError::NotApplicable("exceeded max depth".into()));
            }
        }
    }
    Ok(())
}

/// About how many bytes a value prints as.
fn size(value: &Value) -> usize {
    match value {
        Value::String(s) => s.len() + 2,
        Value::Array(items) => items.iter().map(|v| size(v) + 1).sum::<usize>() + 2,
        Value::Object(map) => map.iter().map(|(k, v)| k.len() + size(v) + 4).sum::<usize>() + 2,
        _ => 8,
    }
}

/// RFC 7386.
pub fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Default::default());
    }
    let Value::Object(map) = target else { return };
    for (key, value) in patch {
        match value {
            Value::Null => {
                map.remove(&key);
            }
            Value::Object(_) => merge(map.entry(key).or_insert(Value::Null), value),
            value => {
                map.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
