//! The group.
