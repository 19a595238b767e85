//! Certificate requests: who may approve and sign for which signer, and what nobody gets a certificate for.

use crate::{Plugin, Request};
use api::object::Object;
use api::{GroupResource, Status};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";
/// The signer of client certificates for the API server.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// CertificateApproval: whoever approves must be allowed to `approve` for the signer.
pub struct Approval;

/// CertificateSigning: whoever signs must be allowed to `sign` for the signer.
pub struct Signing;

/// CertificateSubjectRestriction: nobody becomes an administrator by a certificate.
pub struct SubjectRestriction;

fn part_of(request: &Request<'_>, part: &str) -> bool {
    request.resource.group == GROUP && request.resource.resource == RESOURCE && request.subresource == part
}

/// The signer may be named, or all of a domain: `example.com/*`.
fn may(request: &Request<'_>, verb: &str, signer: &str) -> bool {
    let signers = GroupResource::new(GROUP, "signers");
    let domain = signer.split('/').next().unwrap_or_default();
    let allowed = |name: &str| request.host.authorize(verb, &signers, "", "", name).is_ok();
    allowed(signer) || allowed(&format!("{domain}/*"))
}

fn old<'a>(request: &'a Request<'_>) -> Option<&'a CertificateSigningRequest> {
    request.old.and_then(|o| o.get())
}

impl Plugin for Approval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn validate(&self, request: &Request<'_>, _object: Option<&Object>) -> Result<(), Status> {
        let Some(old) = old(request).filter(|_| part_of(request, "approval")) else { return Ok(()) };
        let signer = &old.spec.signer_name;
        if may(request, "approve", signer) {
            return Ok(());
        }
        Err(request.forbidden(format!("user not permitted to approve requests with signerName {signer:?}")))
    }
}

impl Plugin for Signing {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn validate(&self, request: &Request<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(old) = old(request).filter(|_| part_of(request, "status")) else { return Ok(()) };
        let Some(new) = object.and_then(|o| o.get::<CertificateSigningRequest>()) else { return Ok(()) };
        let signed = |r: &CertificateSigningRequest| {
            let status = r.status.clone().unwrap_or_default();
            (status.certificate, status.conditions.unwrap_or_default())
        };
        let signer = &old.spec.signer_name;
        if signed(old) == signed(new) || may(request, "sign", signer) {
            return Ok(());
        }
        Err(request.forbidden(format!("user not permitted to sign requests with signerName {signer:?}")))
    }
}

impl Plugin for SubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn validate(&self, request: &Request<'_>, object: Option<&Object>) -> Result<(), Status> {
        if !request.creates(GROUP, RESOURCE) {
            return Ok(());
        }
        let Some(csr) = object.and_then(|o| o.get::<CertificateSigningRequest>()) else { return Ok(()) };
        if csr.spec.signer_name != CLIENT_SIGNER {
            return Ok(());
        }
        let parsed = pki::ca::read_request(&csr.spec.request.0)
            .map_err(|e| request.forbidden(format!("failed to parse CSR: {e}")))?;
        if parsed.organizations.iter().any(|o| o == "system:masters") {
            return Err(request.forbidden(format!(
                "use of {CLIENT_SIGNER} signer with system:masters group is not allowed"
            )));
        }
        Ok(())
    }
}
