//! What is answered by code of the server's own: subresources and review kinds, one file each.

pub mod access_review;
pub mod component_status;
pub mod escalation;
pub mod eviction;
pub mod token;
pub mod token_review;
