//! The entries of `managedFields`.

use super::set::FieldSet;
use serde_json::{Map, Value};

/// More updaters than this are merged into one entry.
const MAX_UPDATERS: usize = 10;

/// What one manager owns.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub manager: String,
    pub operation: String,
    pub api_version: String,
    pub subresource: String,
    pub time: Option<String>,
    pub fields: FieldSet,
}

#[derive(Default, Debug)]
pub(super) struct Entries(pub Vec<Entry>);

/// An object's `managedFields`.
pub(super) fn of(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields")
}

/// Takes them out.
pub(super) fn take(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

/// Whether the sender wants them cleared.
pub(super) fn is_reset(sent: &Value) -> bool {
    match sent.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

impl Entry {
    /// Reads an entry all but its fields, which it hands over.
    fn read(v: Value) -> Option<(Entry, Value)> {
        let Value::Object(mut map) = v else { return None };
        let mut text = |name: &str| match map.remove(name) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let entry = Entry {
            manager: text("manager"),
            operation: text("operation"),
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: Some(text("time")).filter(|t| !t.is_empty()),
            fields: FieldSet::default(),
        };
        let known = matches!(&*entry.operation, "Apply" | "Update") && text("fieldsType") == "FieldsV1";
        let fields = map.remove("fieldsV1").unwrap_or_default();
        (known && !entry.api_version.is_empty()).then_some((entry, fields))
    }

    fn write(self) -> Value {
        let mut map = Map::new();
        let mut put = |name: &str, value: String| {
            if !value.is_empty() {
                map.insert(name.into(), Value::String(value));
            }
        };
        put("manager", self.manager);
        put("operation", self.operation);
        put("apiVersion", self.api_version);
        put("subresource", self.subresource);
        put("time", self.time.unwrap_or_default());
        put("fieldsType", "FieldsV1".into());
        map.insert("fieldsV1".into(), Value::Object(self.fields.0));
        Value::Object(map)
    }

    /// The owner, as messages name it.
    pub(super) fn owner(&self) -> String {
        let mut out = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            out += &format!(" with subresource {:?}", self.subresource);
        }
        if self.operation == "Update" {
            out += &format!(" using {}", self.api_version);
        }
        out
    }
}

impl Entries {
    /// Reads what a client sent; `None` if any of it is not well formed.
    pub(super) fn read(list: &Value) -> Option<Entries> {
        let read = |v: &Value| {
            let (mut entry, fields) = Entry::read(v.clone())?;
            entry.fields = FieldSet::from_json(&fields).ok()?;
            Some(entry)
        };
        list.as_array()?.iter().map(read).collect::<Option<_>>().map(Entries)
    }

    /// Reads what is in the store, which is spelled as we spell it.
    pub(super) fn ours(list: Value) -> Option<Entries> {
        let Value::Array(list) = list else { return None };
        let read = |v| {
            let (mut entry, fields) = Entry::read(v)?;
            if let Value::Object(fields) = fields {
                entry.fields = FieldSet(fields);
            }
            Some(entry)
        };
        list.into_iter().map(read).collect::<Option<_>>().map(Entries)
    }

    /// Puts them into an object, in upstream's order.
    pub(super) fn put(mut self, object: &mut Value) {
        let Some(metadata) = object.as_object_mut() else { return };
        let metadata = metadata.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(metadata) = metadata else { return };
        metadata.remove("managedFields");
        if self.0.is_empty() {
            return;
        }
        self.0.sort_by(|a, b| {
            let key = |e: &Entry| [e.operation.clone(), e.time.clone().unwrap_or_default()];
            let rest = |e: &Entry| [e.manager.clone(), e.api_version.clone(), e.subresource.clone()];
            key(a).cmp(&key(b)).then_with(|| rest(a).cmp(&rest(b)))
        });
        metadata.insert("managedFields".into(), Value::Array(self.0.into_iter().map(Entry::write).collect()));
    }

    /// Merges the oldest updaters, by version, so that no more than [`MAX_UPDATERS`] are left.
    pub(super) fn cap(&mut self) {
        let updaters = |e: &Entries| e.0.iter().filter(|e| e.operation == "Update").count();
        let mut length = updaters(self);
        if length <= MAX_UPDATERS {
            return;
        }
        self.0.sort_by(|a, b| (&a.time, &a.manager).cmp(&(&b.time, &b.manager)));
        let mut at = 0;
        while length > MAX_UPDATERS && at < self.0.len() {
            let Some(version) =
                self.0.get(at).filter(|e| e.operation == "Update").map(|e| e.api_version.clone())
            else {
                at += 1;
                continue;
            };
            let bucket =
                self.0[..at].iter().position(|e| e.operation == "Update" && e.api_version == version);
            let Some(bucket) = bucket else {
                at += 1;
                continue;
            };
            let merged = self.0.remove(at);
            if let Some(b) = self.0.get_mut(bucket) {
                (b.manager, b.subresource, b.time) = ("ancient-changes".into(), String::new(), merged.time);
                b.fields.add(&merged.fields);
            }
            length -= 1;
        }
    }
}
