//! Zeros as Go prints them, so that an object reads the same whichever store and server it came from: what upstream
//! holds by value is left out (`taints: []`, `hostNetwork: false`), but for structs, which are there even if they
//! are empty (`status: {}`), and for numbers, truths and text that it always prints (`currentHealthy: 0`).

use super::defaults::is_zero;
use crate::schema::{Field, Schema, Shape};
use serde_json::{Map, Value};

/// What is always printed, and as what.
fn zero(field: &Field) -> Value {
    match field.schema.shape {
        Shape::Struct(_) => Value::Object(Map::new()),
        Shape::Bool => false.into(),
        Shape::String => "".into(),
        _ => 0.into(),
    }
}

/// Takes out the fields that say nothing, and puts in those that are always there. What a custom resource holds is its author's
/// business.
pub fn omit_zeros(value: &mut Value, schema: &Schema) {
    if schema.custom {
        return;
    }
    match (&schema.shape, value) {
        (Shape::Struct(s), Value::Object(map)) => {
            let missing =
                s.printed().filter(|f| !map.contains_key(&*f.name)).map(|f| (f.name.to_string(), zero(f)));
            for (name, zero) in missing.collect::<Vec<_>>() {
                map.insert(name, zero);
            }
            // Few objects have any: looking is much cheaper than taking a map apart.
            let mut silent = Vec::new();
            for (name, v) in map.iter_mut() {
                let Some(field) = s.field(name) else { continue };
                if v.is_object() || v.is_array() {
                    omit_zeros(v, &field.schema);
                }
                let optional = !field.pointer && !field.always && !field.required;
                if optional && is_zero(v) && field.schema.as_struct().is_none() {
                    silent.push(name.clone());
                }
            }
            for name in silent {
                map.remove(&name);
            }
        }
        (Shape::Map(item), Value::Object(map)) => map.values_mut().for_each(|v| omit_zeros(v, item)),
        (Shape::List(list), Value::Array(items)) => {
            items.iter_mut().for_each(|v| omit_zeros(v, &list.item));
        }
        _ => {}
    }
}

/// Go's zero time, which it takes where a time is absent, and prints as null.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Sets the times that must be there and are not, as Go does; whether there were any.
pub fn fill_times(value: &mut Value, schema: &Schema) -> bool {
    let mut filled = false;
    match (&schema.shape, value) {
        (Shape::Struct(s), Value::Object(map)) => {
            for field in s.fields.iter().filter(|f| f.required) {
                if matches!(field.schema.shape, Shape::Time | Shape::MicroTime)
                    && map.get(&*field.name).is_none_or(Value::is_null)
                {
                    map.insert(field.name.to_string(), ZERO_TIME.into());
                    filled = true;
                }
            }
            for (name, v) in map.iter_mut().filter(|(_, v)| v.is_object() || v.is_array()) {
                filled |= s.field(name).is_some_and(|f| fill_times(v, &f.schema));
            }
        }
        (Shape::Map(item), Value::Object(map)) => {
            map.values_mut().for_each(|v| filled |= fill_times(v, item));
        }
        (Shape::List(list), Value::Array(items)) => {
            items.iter_mut().for_each(|v| filled |= fill_times(v, &list.item));
        }
        _ => {}
    }
    filled
}

/// The same for JSON whose schema is not at hand: only conditions have such a time.
pub fn fill_condition_times(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, v) in map.iter_mut() {
                if let ("conditions", Value::Array(items)) = (name.as_str(), &mut *v) {
                    for condition in items.iter_mut().filter_map(Value::as_object_mut) {
                        if condition.get("lastTransitionTime").is_none_or(Value::is_null) {
                            condition.insert("lastTransitionTime".into(), ZERO_TIME.into());
                        }
                    }
                }
                fill_condition_times(v);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(fill_condition_times),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GroupVersionKind;
    use crate::schema::builtin;
    use serde_json::json;

    #[test]
    fn zeros_are_as_go_prints_them() {
        let table = [
            (
                "Pod",
                json!({"spec": {"hostNetwork": false, "nodeSelector": {}, "nodeName": "", "containers": [{"name": "c", "command": []}]}}),
                json!({"metadata": {}, "spec": {"containers": [{"name": "c", "resources": {}}]}, "status": {}}),
            ),
            (
                "PersistentVolumeClaim",
                json!({"spec": {"storageClassName": "", "selector": {"matchLabels": {}}}}),
                json!({"metadata": {}, "spec": {"storageClassName": "", "selector": {}, "resources": {}}, "status": {}}),
            ),
            (
                "Pod",
                json!({"status": {"containerStatuses": [{"name": "c", "ready": true}]}}),
                json!({"metadata": {}, "spec": {}, "status": {"containerStatuses": [{"image": "", "imageID": "", "lastState": {}, "name": "c", "ready": true, "restartCount": 0, "state": {}}]}}),
            ),
            (
                "Service",
                json!({"metadata": {"name": "s"}}),
                json!({"metadata": {"name": "s"}, "spec": {}, "status": {"loadBalancer": {}}}),
            ),
        ];
        for (kind, mut value, want) in table {
            let schema = builtin().kind(&GroupVersionKind::new("", "v1", kind)).unwrap();
            omit_zeros(&mut value, schema);
            assert_eq!(value, want);
        }
    }
}
