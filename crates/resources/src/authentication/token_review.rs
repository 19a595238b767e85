//! TokenReview: answered, never kept.

use crate::{Kind, Verbs};
use k8s_openapi::api::authentication::v1::TokenReview;

/// The rules of TokenReview.
pub static KIND: Kind<TokenReview> = Kind { verbs: Verbs::CreateOnly, ..Kind::cluster("tokenreview", "") };
