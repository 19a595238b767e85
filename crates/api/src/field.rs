//! Faults of fields, each with its path, in the words of apimachinery's `validation/field`.

use std::fmt;

/// The path of a field, such as `spec.containers[0].name`. Cheap to extend: a child borrows its parent.
#[derive(Clone, Copy)]
pub struct FieldPath<'a> {
    parent: Option<&'a FieldPath<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Name(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> FieldPath<'a> {
    /// A path of one field.
    pub const fn root(name: &'a str) -> Self {
        FieldPath { parent: None, step: Step::Name(name) }
    }

    /// The field `name` below this one; with an empty root the path starts here.
    pub const fn child(&'a self, name: &'a str) -> FieldPath<'a> {
        FieldPath { parent: Some(self), step: Step::Name(name) }
    }

    /// The list's item at `i`.
    pub const fn index(&'a self, i: usize) -> FieldPath<'a> {
        FieldPath { parent: Some(self), step: Step::Index(i) }
    }

    /// The map's value at `key`.
    pub const fn key(&'a self, key: &'a str) -> FieldPath<'a> {
        FieldPath { parent: Some(self), step: Step::Key(key) }
    }
}

impl fmt::Display for FieldPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_parent = match self.parent {
            Some(p) => {
                p.fmt(f)?;
                !matches!(p, FieldPath { parent: None, step: Step::Name("") })
            }
            None => false,
        };
        match self.step {
            Step::Name(n) if has_parent => write!(f, ".{n}"),
            Step::Name(n) => f.write_str(n),
            Step::Index(i) => write!(f, "[{i}]"),
            Step::Key(k) => write!(f, "[{k}]"),
        }
    }
}

/// What is wrong with a field's value.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldFault {
    /// It must be there.
    Required(String),
    /// It stands twice.
    Duplicate(String),
    /// It is not well formed: the value as JSON or quoted text, and why.
    Invalid(String, String),
    /// It is not well formed, and not shown: why.
    InvalidOmitted(String),
    /// It is none of the supported values: the value, the supported ones.
    NotSupported(String, Vec<String>),
    /// It must not be set so.
    Forbidden(String),
    /// It is longer than this many bytes.
    TooLong(usize),
    /// It has too many items: how many, how many may be.
    TooMany(usize, usize),
    /// What it names is not there.
    NotFound(String),
    /// Something else failed.
    Internal(String),
    /// It is not of the type that is expected: value, message.
    TypeInvalid(String, String),
}

/// A fault and the path of its field. `Display` prints `path: Fault: value: why`, as upstream does.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// The path.
    pub field: String,
    /// The fault.
    pub fault: FieldFault,
}

impl FieldError {
    /// The cause's reason in a Status.
    pub fn reason(&self) -> &'static str {
        match self.fault {
            FieldFault::Required(_) => "FieldValueRequired",
            FieldFault::Duplicate(_) => "FieldValueDuplicate",
            FieldFault::Invalid(..) | FieldFault::InvalidOmitted(_) => "FieldValueInvalid",
            FieldFault::NotSupported(..) => "FieldValueNotSupported",
            FieldFault::Forbidden(_) => "FieldValueForbidden",
            FieldFault::TooLong(..) => "FieldValueTooLong",
            FieldFault::TooMany(..) => "FieldValueTooMany",
            FieldFault::NotFound(_) => "FieldValueNotFound",
            FieldFault::Internal(_) => "InternalError",
            FieldFault::TypeInvalid(..) => "FieldValueTypeInvalid",
        }
    }

    /// The message without the path.
    pub fn body(&self) -> String {
        let with =
            |head: &str, why: &str| if why.is_empty() { head.to_string() } else { format!("{head}: {why}") };
        match &self.fault {
            FieldFault::Required(why) => with("Required value", why),
            FieldFault::Duplicate(v) => format!("Duplicate value: {v}"),
            FieldFault::Invalid(v, why) => with(&format!("Invalid value: {v}"), why),
            FieldFault::InvalidOmitted(why) => with("Invalid value", why),
            FieldFault::NotSupported(v, supported) if supported.is_empty() => {
                format!("Unsupported value: {v}")
            }
            FieldFault::NotSupported(v, supported) => {
                let list = supported.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ");
                format!("Unsupported value: {v}: supported values: {list}")
            }
            FieldFault::Forbidden(why) => with("Forbidden", why),
            FieldFault::TooLong(max) => format!("Too long: may not be more than {max} bytes"),
            FieldFault::TooMany(n, max) => format!("Too many: {n}: must have at most {max} items"),
            FieldFault::NotFound(v) => format!("Not found: {v}"),
            FieldFault::Internal(why) => with("Internal error", why),
            FieldFault::TypeInvalid(v, why) => with(&format!("Invalid value: {v}"), why),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// Every fault found in one object: validation collects, it does not stop at the first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldErrors(Vec<FieldError>);

/// A value as messages print it: text quoted, the rest as JSON with HTML's characters escaped.
pub fn quoted(v: &impl serde::Serialize) -> String {
    let text = serde_json::to_string(v).unwrap_or_default();
    if text.starts_with('"') || !text.contains(['<', '>', '&']) {
        return text;
    }
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

impl FieldErrors {
    /// The faults in the order they were found.
    pub fn as_slice(&self) -> &[FieldError] {
        &self.0
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a fault.
    pub fn push(&mut self, at: impl fmt::Display, fault: FieldFault) {
        self.0.push(FieldError { field: at.to_string(), fault });
    }

    /// A value must be there.
    pub fn required(&mut self, at: FieldPath<'_>, why: &str) {
        self.push(at, FieldFault::Required(why.into()));
    }

    /// A value is not well formed.
    pub fn invalid(&mut self, at: FieldPath<'_>, value: &impl serde::Serialize, why: impl Into<String>) {
        self.push(at, FieldFault::Invalid(quoted(value), why.into()));
    }

    /// A value is none of the supported ones.
    pub fn not_supported(&mut self, at: FieldPath<'_>, value: &str, supported: &[&str]) {
        self.push(
            at,
            FieldFault::NotSupported(quoted(&value), supported.iter().map(|s| s.to_string()).collect()),
        );
    }

    /// A value must not be set so.
    pub fn forbidden(&mut self, at: FieldPath<'_>, why: &str) {
        self.push(at, FieldFault::Forbidden(why.into()));
    }

    /// A value stands twice.
    pub fn duplicate(&mut self, at: FieldPath<'_>, value: &impl serde::Serialize) {
        self.push(at, FieldFault::Duplicate(quoted(value)));
    }

    /// What a value names is not there.
    pub fn not_found(&mut self, at: FieldPath<'_>, value: &impl serde::Serialize) {
        self.push(at, FieldFault::NotFound(quoted(value)));
    }

    /// A list has too many items.
    pub fn too_many(&mut self, at: FieldPath<'_>, items: usize, max: usize) {
        self.push(at, FieldFault::TooMany(items, max));
    }

    /// Each of these is wrong with a value.
    pub fn all_invalid(&mut self, at: FieldPath<'_>, value: &str, faults: Vec<String>) {
        for fault in faults {
            self.invalid(at, &value, fault);
        }
    }

    /// Forgets all faults but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// How many faults there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// A value is longer than `max` bytes.
    pub fn too_long(&mut self, at: FieldPath<'_>, max: usize) {
        self.push(at, FieldFault::TooLong(max));
    }
}
