//! The node itself: what it has ([`capacity`]), what is true of it ([`conditions`]), what machine it is
//! ([`facts`]), how the API learns of it ([`register`], [`lease`]), and what keeps it tidy ([`housekeeping`]).

pub mod capacity;
pub mod conditions;
pub mod facts;
pub mod health;
pub mod housekeeping;
pub mod lease;
pub mod register;
