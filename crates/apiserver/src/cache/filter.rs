//! What of a collection a list or a watch wants.

use super::collection::{Change, ChangeKind, Index};
use super::entry::Entry;
use api::selector::LabelSelector;

/// One demand on a field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldTest {
    /// Which field.
    pub field: Field,
    /// The value it is compared with.
    pub value: String,
    /// Whether it has to be that value, or any other.
    pub equal: bool,
}

/// A field that selectors may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `metadata.name`.
    Name,
    /// `metadata.namespace`.
    Namespace,
    /// One of the kind's own, by its place.
    Selectable(usize),
}

/// What of a collection a list or a watch wants.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only this object.
    pub name: Option<String>,
    /// Only objects with such labels.
    pub labels: Option<LabelSelector>,
    /// Only objects with such fields.
    pub fields: Vec<FieldTest>,
}

impl Filter {
    /// Whether it lets every object of its namespace through.
    pub fn takes_all(&self) -> bool {
        self.name.is_none() && self.labels.is_none() && self.fields.is_empty()
    }

    /// Whether an object is wanted.
    pub fn matches(&self, entry: &Entry) -> bool {
        self.namespace.as_ref().is_none_or(|n| n == entry.namespace())
            && self.name.as_ref().is_none_or(|n| n == entry.name())
            && self.fields.iter().all(|test| {
                let value = match test.field {
                    Field::Name => entry.name(),
                    Field::Namespace => entry.namespace(),
                    Field::Selectable(i) => {
                        entry.fields.get(i).and_then(|v| v.as_deref()).unwrap_or_default()
                    }
                };
                (value == test.value) == test.equal
            })
            && self.labels.as_ref().is_none_or(|s| s.matches(|key| entry.label(key)))
    }

    /// What a change is to someone who sees only what is wanted; `None` if it is nothing.
    pub fn view(&self, change: &Change) -> Option<ChangeKind> {
        let now = change.kind != ChangeKind::Deleted && self.matches(&change.entry);
        let before = change.old.as_ref().is_some_and(|old| self.matches(old));
        match (before, now) {
            (false, true) => Some(ChangeKind::Added),
            (true, true) => Some(ChangeKind::Modified),
            (true, false) => Some(ChangeKind::Deleted),
            (false, false) => None,
        }
    }

    /// Whether a change is anything to this filter.
    pub fn concerns(&self, change: &Change) -> bool {
        self.matches(&change.entry) || change.old.as_ref().is_some_and(|old| self.matches(old))
    }

    /// Where a watcher with this filter is found.
    pub fn index(&self) -> Index {
        if let Some(name) = &self.name {
            let namespace = self.namespace.as_deref().unwrap_or_default();
            return Index::Key(if namespace.is_empty() {
                name.as_str().into()
            } else {
                format!("{namespace}/{name}").into()
            });
        }
        let field = self.fields.iter().find_map(|t| match t.field {
            Field::Selectable(i) if t.equal => Some(Index::Field(i, t.value.as_str().into())),
            _ => None,
        });
        field.unwrap_or_else(|| match &self.namespace {
            Some(namespace) => Index::Namespace(namespace.as_str().into()),
            None => Index::All,
        })
    }
}
