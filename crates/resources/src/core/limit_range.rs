//! LimitRange: bounds and defaults of what pods of a namespace ask for.

use crate::Kind;
use crate::kind::age_column;
use k8s_openapi::api::core::v1::LimitRange;

/// The rules of LimitRange.
pub static KIND: Kind<LimitRange> = Kind {
    columns: &[age_column()],
    ..Kind::namespaced("limitrange", "limitranges").called(&["limits"], &[])
};
