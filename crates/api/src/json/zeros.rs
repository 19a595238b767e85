//! Zeros that upstream holds by value and does not print: `taints: []`, `hostNetwork: false`. They go, so that an
//! object reads the same whichever store it came from.

use super::defaults::is_zero;
use crate::schema::{Schema, Shape};
use serde_json::Value;

/// Takes out the fields that say nothing. What a custom resource holds is its author's business.
pub fn omit_zeros(value: &mut Value, schema: &Schema) {
    if schema.custom {
        return;
    }
    match (&schema.shape, value) {
        (Shape::Struct(s), Value::Object(map)) => map.retain(|name, v| {
            let Some(field) = s.field(name) else { return true };
            if v.is_object() || v.is_array() {
                omit_zeros(v, &field.schema);
            }
            // A struct held by value is printed even if it is empty.
            let optional = !field.pointer && !field.always && !field.required;
            !(optional && is_zero(v) && field.schema.as_struct().is_none())
        }),
        (Shape::Map(item), Value::Object(map)) => map.values_mut().for_each(|v| omit_zeros(v, item)),
        (Shape::List(list), Value::Array(items)) => {
            items.iter_mut().for_each(|v| omit_zeros(v, &list.item));
        }
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
    fn what_says_nothing_goes() {
        let node = builtin().kind(&GroupVersionKind::new("", "v1", "Node")).unwrap();
        let mut value = json!({"spec": {"taints": [], "unschedulable": false, "podCIDR": ""}, "metadata": {"labels": {}}});
        omit_zeros(&mut value, node);
        assert_eq!(value, json!({"spec": {}, "metadata": {}}));
        let claim = builtin().kind(&GroupVersionKind::new("", "v1", "PersistentVolumeClaim")).unwrap();
        let mut value =
            json!({"spec": {"storageClassName": "", "selector": {"matchLabels": {}}, "resources": {}}});
        omit_zeros(&mut value, claim);
        assert_eq!(value, json!({"spec": {"storageClassName": "", "selector": {}, "resources": {}}}));
    }
}
