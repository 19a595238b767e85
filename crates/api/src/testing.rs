//! Values of any schema, made up for tests.

use crate::schema::{ListKind, Or, Schema, SchemaRef, Shape, builtin};
use serde_json::{Map, Value, json};

/// Every kind that has a protobuf form.
pub fn valid_kinds() -> Vec<SchemaRef> {
    let has_form = |s: &SchemaRef| s.as_struct().is_some_and(|s| !s.slots.is_empty());
    builtin().kinds().map(|k| k.schema.clone()).filter(has_form).collect()
}

/// A value of this schema, such as a reader would print it; equal seeds give equal values.
pub fn value_of(schema: &Schema, seed: u64) -> Value {
    Dice(seed | 1).value(schema, 0, true)
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n.max(1)
    }

    fn word(&mut self) -> String {
        let words = ["a", "name-1", "x.y/z", "TCP", "100%", "ü\u{1F600}", "line\nline", "\"quoted\""];
        words[self.below(words.len() as u64) as usize].to_string()
    }

    fn any(&mut self, depth: usize) -> Value {
        match self.below(if depth > 3 { 4 } else { 6 }) {
            0 => json!(self.word()),
            1 => json!(self.below(1000) as i64 - 500),
            2 => json!(1.5),
            3 => json!(true),
            4 => Value::Array((0..self.below(3)).map(|_| self.any(depth + 1)).collect()),
            _ => (0..self.below(3)).map(|_| (self.word(), self.any(depth + 1))).collect::<Map<_, _>>().into(),
        }
    }

    fn value(&mut self, schema: &Schema, depth: usize, zeros: bool) -> Value {
        let small = |d: &mut Self| if zeros { d.below(3) as i64 } else { d.below(3) as i64 + 1 };
        match &schema.shape {
            Shape::String => json!(self.word()),
            Shape::Int32 => json!(small(self) * if self.below(4) == 0 { -70_000 } else { 1 }),
            Shape::Int64 => json!(small(self) * if self.below(4) == 0 { 1 << 40 } else { 1 }),
            Shape::Bool => json!(!zeros || self.below(2) == 0),
            Shape::Double => json!(small(self) as f64 + 0.25),
            Shape::Bytes => json!(["YQ==", "AAEC", "/+8="][self.below(3) as usize]),
            Shape::Quantity => json!(["1", "100m", "2Gi", "1500m"][self.below(4) as usize]),
            Shape::IntOrString => {
                if self.below(2) == 0 {
                    json!(self.below(9))
                } else {
                    json!(self.word())
                }
            }
            Shape::Time => json!(format!("2026-01-02T03:04:{:02}Z", self.below(60))),
            Shape::MicroTime => json!(format!("2026-01-02T03:04:05.{:06}Z", self.below(1_000_000))),
            Shape::Any | Shape::Raw | Shape::FieldsV1 => json!({"x": self.any(0)}),
            Shape::Or(Or::Bool, _) if self.below(2) == 0 || depth > 6 => json!(self.below(2) == 0),
            Shape::Or(Or::Strings, _) if self.below(2) == 0 || depth > 6 => json!([self.word()]),
            Shape::Or(_, props) => self.value(props, depth + 2, true),
            Shape::Map(item) => (0..1 + self.below(2))
                .map(|_| (self.word(), self.value(item, depth + 1, true)))
                .collect::<Map<_, _>>()
                .into(),
            Shape::List(list) => {
                let mut items: Vec<Value> =
                    (0..1 + self.below(2)).map(|_| self.value(&list.item, depth + 1, true)).collect();
                match &list.kind {
                    ListKind::Atomic => {}
                    ListKind::Set => items.truncate(1),
                    ListKind::Map(keys) => {
                        items.truncate(1);
                        for key in keys {
                            if let (Some(item), Some(f)) = (items.first_mut(), list.item.field(key))
                                && item.get(&**key).is_none()
                            {
                                item[&**key] = self.value(&f.schema, depth + 2, false);
                            }
                        }
                    }
                }
                Value::Array(items)
            }
            Shape::Struct(s) => {
                let mut map = Map::new();
                let placed = |at| slot_of(&s.slots, at);
                let fields = s.fields.iter().enumerate().filter(|(at, _)| placed(*at)).map(|(_, f)| f);
                for f in fields {
                    let scarce = if depth < 3 { 3 } else { 2 + depth as u64 * 2 };
                    if self.below(scarce) != 0 || depth > 10 {
                        continue;
                    }
                    let mut v = self.value(&f.schema, depth + 1, f.pointer || f.required || f.always);
                    if let (true, Value::Array(items), Shape::List(list)) =
                        (f.strategy.merge, &mut v, &f.schema.shape)
                    {
                        items.truncate(1);
                        let key = f.merge_key.as_deref().and_then(|k| Some((k, list.item.field(k)?)));
                        if let (Some((key, of)), Some(item)) = (key, items.first_mut())
                            && item.get(key).is_none()
                        {
                            item[key] = self.value(&of.schema, depth + 2, false);
                        }
                    }
                    let empty = v.as_object().is_some_and(Map::is_empty);
                    if !empty || f.pointer || f.required || f.always {
                        map.insert(f.name.to_string(), v);
                    }
                }
                map.into()
            }
        }
    }
}

fn slot_of(slots: &[crate::schema::Slot], at: usize) -> bool {
    use crate::schema::Slot;
    slots.iter().any(|s| match s {
        Slot::Field(_, i) => *i == at,
        Slot::Inline(_, inner) => slot_of(inner, at),
    })
}
