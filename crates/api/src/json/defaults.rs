//! Static defaults: those that need nothing but the schema.

use crate::schema::{Field, Schema, Shape};
use serde_json::Value;

/// Fills in the defaults of fields that are absent. Nothing is added below what is itself absent, unless
/// its own default brings it in.
pub fn default(value: &mut Value, schema: &Schema) {
    match (&schema.shape, value) {
        (Shape::Struct(s), Value::Object(map)) => {
            for field in &s.fields {
                if let Some(default) = &field.default
                    && wants(field, map.get(&*field.name), default)
                {
                    map.insert(field.name.to_string(), (**default).clone());
                }
            }
            for (name, v) in map.iter_mut() {
                if let (true, Some(field)) = (v.is_object() || v.is_array(), s.field(name)) {
                    self::default(v, &field.schema);
                }
            }
        }
        (Shape::Map(item), Value::Object(map)) => map.values_mut().for_each(|v| self::default(v, item)),
        (Shape::List(list), Value::Array(items)) => {
            items.iter_mut().for_each(|v| self::default(v, &list.item))
        }
        _ => {}
    }
}

/// Whether the default goes in. Upstream does not print zeros that it holds by value, so we do not set
/// them; in a custom resource null counts as absent unless it is allowed.
fn wants(field: &Field, present: Option<&Value>, default: &Value) -> bool {
    match present {
        None => field.schema.custom || field.pointer || !is_zero(default),
        Some(Value::Null) => field.schema.custom && !field.schema.nullable,
        Some(_) => false,
    }
}

pub(super) fn is_zero(v: &Value) -> bool {
    match v {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}
