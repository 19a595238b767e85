//! SelfSubjectAccessReview: answered, never kept.

use crate::{Kind, Verbs};
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;

/// The rules of SelfSubjectAccessReview.
pub static KIND: Kind<SelfSubjectAccessReview> =
    Kind { verbs: Verbs::CreateOnly, ..Kind::cluster("selfsubjectaccessreview", "") };
