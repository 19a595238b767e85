//! SubjectAccessReview: answered, never kept.

use crate::{Kind, Verbs};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;

/// The rules of SubjectAccessReview.
pub static KIND: Kind<SubjectAccessReview> =
    Kind { verbs: Verbs::CreateOnly, ..Kind::cluster("subjectaccessreview", "") };
