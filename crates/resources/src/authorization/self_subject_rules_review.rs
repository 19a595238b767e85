//! SelfSubjectRulesReview: answered, never kept.

use crate::{Kind, Verbs};
use k8s_openapi::api::authorization::v1::SelfSubjectRulesReview;

/// The rules of SelfSubjectRulesReview.
pub static KIND: Kind<SelfSubjectRulesReview> =
    Kind { verbs: Verbs::CreateOnly, ..Kind::cluster("selfsubjectrulesreview", "") };
