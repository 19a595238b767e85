//! Approves requests for kubelets' client certificates, if the API server says that who asks may ask for such.

use super::{KUBELET_CLIENT, condition, fault, has_certificate};
use crate::{Context, Error, Outcome};
use api::time;
use client::{Client, ObjectExt};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};

const NAME: &str = "certificatesigningrequest-approving-controller";

/// Approves requests.
pub async fn run(ctx: Context) {
    let client = ctx.client("certificate-controller");
    let requests = ctx.informers.informer::<CertificateSigningRequest>();
    let lister = requests.lister();
    ctx.controller(NAME)
        .each(&requests)
        .run(1, ctx.shutdown, move |key| {
            let (client, csr) = (client.clone(), lister.get("", &key.name));
            async move {
                match csr {
                    Some(csr) => reconcile(&client, &csr).await,
                    None => Ok(None),
                }
            }
        })
        .await;
}

/// What asking may be allowed as: for its own name first, then for any node's.
fn permissions(csr: &CertificateSigningRequest) -> Result<Vec<(&'static str, &'static str)>, Error> {
    if csr.spec.signer_name != KUBELET_CLIENT {
        return Ok(Vec::new());
    }
    let subject = pki::ca::read_request(&csr.spec.request.0)?;
    if fault(KUBELET_CLIENT, &subject, csr.spec.usages.as_deref().unwrap_or_default()).is_some() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    if csr.spec.username.as_deref() == Some(&subject.common_name) {
        found.push((
            "selfnodeclient",
            "Auto approving self kubelet client certificate after SubjectAccessReview.",
        ));
    }
    found.push(("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."));
    Ok(found)
}

async fn reconcile(client: &Client, csr: &CertificateSigningRequest) -> Outcome {
    let decided = ["Approved", "Denied"].iter().any(|k| condition(csr, k).is_some());
    if has_certificate(csr) || decided {
        return Ok(None);
    }
    let permissions = match permissions(csr) {
        Ok(p) => p,
        Err(e) => {
            tracing::warn!("{NAME}: {}: {e}", csr.name());
            return Ok(None);
        }
    };
    for (subresource, message) in &permissions {
        if !may(client, csr, subresource).await? {
            continue;
        }
        let mut approved = csr.clone();
        approved.status.get_or_insert_default().conditions.get_or_insert_default().push(
            CertificateSigningRequestCondition {
                type_: "Approved".into(),
                status: "True".into(),
                reason: Some("AutoApproved".into()),
                message: Some((*message).into()),
                last_update_time: Some(time::now()),
                last_transition_time: Some(time::now()),
            },
        );
        client.update_subresource(&approved, "approval").await?;
        tracing::info!("{NAME}: approved {}", csr.name());
        return Ok(None);
    }
    if permissions.is_empty() {
        return Ok(None);
    }
    // It may be allowed later: tried again with back-off.
    Err(Error::Other("recognized the request, but its author may not ask for it".into()))
}

async fn may(client: &Client, csr: &CertificateSigningRequest, subresource: &str) -> Result<bool, Error> {
    let attributes = ResourceAttributes {
        group: Some("certificates.k8s.io".into()),
        resource: Some("certificatesigningrequests".into()),
        subresource: Some(subresource.into()),
        verb: Some("create".into()),
        version: Some("*".into()),
        ..ResourceAttributes::default()
    };
    let spec = SubjectAccessReviewSpec {
        user: csr.spec.username.clone(),
        uid: csr.spec.uid.clone(),
        groups: csr.spec.groups.clone(),
        extra: csr.spec.extra.clone(),
        resource_attributes: Some(attributes),
        non_resource_attributes: None,
    };
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let answer: SubjectAccessReview =
        client.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).await?;
    Ok(answer.status.is_some_and(|s| s.allowed))
}
