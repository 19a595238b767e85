//! The list of all built-in kinds.

use crate::{AnyKind, core};

static KINDS: &[&dyn AnyKind] = &[
    &core::config_map::KIND,
    &core::namespace::KIND,
];

/// Every built-in kind, in the order in which discovery shows them within a group.
pub fn kinds() -> &'static [&'static dyn AnyKind] {
    KINDS
}
