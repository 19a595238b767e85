//! Where pods come from: files on this node ([`file`]) and the API server.

pub mod file;
