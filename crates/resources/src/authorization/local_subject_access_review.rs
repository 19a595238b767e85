//! LocalSubjectAccessReview: answered, never kept.

use crate::{Kind, Verbs};
use k8s_openapi::api::authorization::v1::LocalSubjectAccessReview;

/// The rules of LocalSubjectAccessReview.
pub static KIND: Kind<LocalSubjectAccessReview> =
    Kind { verbs: Verbs::CreateOnly, ..Kind::namespaced("localsubjectaccessreview", "") };
