//! Who is asking ([`authn`]), and whether they may ([`authz`]).
//!
//! Each authenticator and each authorizer is one file. They see objects through the
//! [`api::read::ObjectReader`] that the server hands them; they know no request beyond [`Attributes`].

pub mod authn;
pub mod authz;
pub mod policy;
pub mod tokens;

use api::selector::{FieldRequirement, Requirement};
use std::collections::BTreeMap;

/// Who is asking.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct User {
    /// Such as `system:node:a`.
    pub name: String,
    /// Empty unless the authenticator knows one.
    pub uid: String,
    /// Such as `system:masters`.
    pub groups: Vec<String>,
    /// What else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Everyone who was authenticated is in this group.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Everyone who was not is in this one.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Members may do everything.
pub const MASTERS: &str = "system:masters";

impl User {
    /// Someone with a name and groups.
    pub fn new(name: &str, groups: &[&str]) -> Self {
        User { name: name.into(), groups: groups.iter().map(|g| g.to_string()).collect(), ..User::default() }
    }

    /// Who is not known.
    pub fn anonymous() -> Self {
        User::new("system:anonymous", &[UNAUTHENTICATED])
    }

    /// A service account.
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let mut user = User::new(
            &format!("system:serviceaccount:{namespace}:{name}"),
            &["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), AUTHENTICATED],
        );
        user.uid = uid.into();
        user
    }

    /// Whether they are in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// What is asked, as authorizers see it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    /// Such as `get`.
    pub verb: &'a str,
    /// Whether the rest names a resource; otherwise only `path` counts.
    pub is_resource: bool,
    /// API group.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// The plural.
    pub resource: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// Empty for cluster-scoped resources and for all namespaces.
    pub namespace: &'a str,
    /// Empty for all.
    pub name: &'a str,
    /// The URL's path.
    pub path: &'a str,
    /// What a list, a watch or a deletion of a collection demands of fields; empty if it can't be read.
    pub fields: &'a [FieldRequirement],
    /// What it demands of labels.
    pub labels: &'a [Requirement],
}

impl Attributes<'_> {
    /// Whether only objects with this value of a field are asked for.
    pub fn requires(&self, field: &str, value: &str) -> bool {
        self.fields.iter().any(|f| f.equal && f.field == field && f.value == value)
    }
}

/// An authorizer's word.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// They may.
    Allow,
    /// They may not, whatever others say; with the reason.
    Deny(String),
    /// Nothing to say; with a reason, perhaps.
    NoOpinion(String),
}
