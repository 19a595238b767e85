//! What the kubelet serves.

pub mod logs;
