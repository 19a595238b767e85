//! TokenReview: whom a token stands for.

use crate::respond;
use crate::verbs::{Answer, Request, internal};
use api::Status;
use bytes::Bytes;
use k8s_openapi::api::authentication::v1::{
    SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, TokenReviewStatus, UserInfo,
};

fn user_info(user: auth::User) -> UserInfo {
    UserInfo {
        username: Some(user.name),
        uid: Some(user.uid).filter(|u| !u.is_empty()),
        groups: Some(user.groups),
        extra: Some(user.extra).filter(|e| !e.is_empty()),
    }
}

/// Answers a TokenReview.
pub async fn create(request: &Request, body: Bytes) -> Answer {
    let value = request.decode(&body, &request.resource.schema, &request.resource.gvk)?;
    let mut review: TokenReview = serde_json::from_value(value).map_err(internal)?;
    let token = std::mem::take(&mut review.spec.token);
    let asked = review.spec.audiences.clone().unwrap_or_default();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let status = match request.server.tokens.review(&token, &asked, &*request.server) {
        Ok((user, good_for)) => TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(good_for),
            user: Some(user_info(user)),
            error: None,
        },
        Err(e) => {
            TokenReviewStatus { authenticated: Some(false), error: Some(e.0), ..TokenReviewStatus::default() }
        }
    };
    review.status = Some(status);
    respond::value(request, 201, &serde_json::to_value(review).map_err(internal)?)
}

/// Answers a SelfSubjectReview: who the caller is.
pub async fn create_self(request: &Request, body: Bytes) -> Answer {
    let value = request.decode(&body, &request.resource.schema, &request.resource.gvk)?;
    let mut review: SelfSubjectReview = serde_json::from_value(value).map_err(internal)?;
    review.metadata.creation_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(request.now));
    review.status = Some(SelfSubjectReviewStatus { user_info: Some(user_info(request.user.clone())) });
    respond::value(request, 201, &serde_json::to_value(review).map_err(internal)?)
}
