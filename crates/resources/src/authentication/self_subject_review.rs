//! SelfSubjectReview: answered, never kept.

use crate::{Kind, Verbs};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;

/// The rules of SelfSubjectReview.
pub static KIND: Kind<SelfSubjectReview> =
    Kind { verbs: Verbs::CreateOnly, ..Kind::cluster("selfsubjectreview", "") };
