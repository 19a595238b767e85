//! Where pods come from: files on this node ([`file`]) and the API server ([`apiserver`]); and how static pods
//! are shown to the API ([`mirror`]).

pub mod apiserver;
pub mod file;
pub mod mirror;
