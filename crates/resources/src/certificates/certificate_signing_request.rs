//! CertificateSigningRequest.

use crate::kind::{Part, age_column, path_segment_name};
use crate::table::human_duration;
use crate::{Column, Context, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The rules of CertificateSigningRequest.
pub static KIND: Kind<CertificateSigningRequest> = Kind {
    has_status: true,
    name_rule: path_segment_name,
    prepare_create: |c, context| {
        // Who asks is the server's word, not the client's.
        c.spec.username = Some(context.user.into());
        c.spec.groups = Some(context.groups.to_vec());
    },
    prepare_update: |new, old, _| new.spec = old.spec.clone(),
    validate,
    parts: &[Part {
        name: "approval",
        prepare: prepare_approval,
        validate: |new, _, errors| validate_conditions(new, errors),
    }],
    selectable: &["spec.signerName"],
    columns: &[
        age_column(),
        Column::text("SignerName", "Who should sign it.", |c: &CertificateSigningRequest, _| {
            c.spec.signer_name.clone().into()
        }),
        Column::text("Requestor", "Who asks for it.", |c: &CertificateSigningRequest, _| {
            c.spec.username.clone().into()
        }),
        Column::text("RequestedDuration", "For how long.", |c: &CertificateSigningRequest, _| {
            c.spec.expiration_seconds.map_or("<none>".into(), |s| human_duration(s.into()).into())
        }),
        Column::text("Condition", "What has come of it.", |c: &CertificateSigningRequest, _| {
            condition(c).into()
        }),
    ],
    ..Kind::cluster("certificatesigningrequest", "certificatesigningrequests").called(&["csr"], &[])
};

fn condition(c: &CertificateSigningRequest) -> String {
    let status = c.status.clone().unwrap_or_default();
    let is = |kind: &str| status.conditions.iter().flatten().any(|c| c.type_ == kind);
    let mut words = vec![match () {
        () if is("Denied") => "Denied",
        () if is("Approved") => "Approved",
        () => "Pending",
    }];
    if is("Failed") {
        words.push("Failed");
    }
    if status.certificate.is_some_and(|c| !c.0.is_empty()) {
        words.push("Issued");
    }
    words.join(",")
}

/// `approval` adds conditions; the certificate is for `status` to write.
fn prepare_approval(
    new: &mut CertificateSigningRequest,
    old: &CertificateSigningRequest,
    context: &Context<'_>,
) {
    let mut conditions = new.status.take().and_then(|s| s.conditions);
    for condition in conditions.iter_mut().flatten() {
        condition.last_update_time.get_or_insert(Time(context.now));
        condition.last_transition_time.get_or_insert(Time(context.now));
    }
    new.spec = old.spec.clone();
    new.status = old.status.clone();
    if conditions.is_some() || new.status.is_some() {
        new.status.get_or_insert_default().conditions = conditions;
    }
}

fn validate_conditions(c: &CertificateSigningRequest, errors: &mut FieldErrors) {
    let status = c.status.clone().unwrap_or_default();
    let is = |kind: &str| status.conditions.iter().flatten().any(|c| c.type_ == kind);
    if is("Approved") && is("Denied") {
        let at = FieldPath::root("status");
        errors.invalid(at.child("conditions"), &"", "Approved and Denied conditions are mutually exclusive");
    }
}

fn validate(c: &CertificateSigningRequest, errors: &mut FieldErrors) {
    let CertificateSigningRequestSpec { request, signer_name, usages, expiration_seconds, .. } = &c.spec;
    let root = FieldPath::root("spec");
    let text = String::from_utf8_lossy(&request.0);
    if !text.contains("-----BEGIN CERTIFICATE REQUEST-----") {
        errors.invalid(root.child("request"), &"", "PEM block type must be CERTIFICATE REQUEST");
    }
    if usages.as_ref().is_none_or(Vec::is_empty) {
        errors.required(root.child("usages"), "");
    }
    if signer_name.is_empty() {
        errors.required(root.child("signerName"), "");
    } else if signer_name.split('/').count() != 2 {
        errors.invalid(
            root.child("signerName"),
            signer_name,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
    }
    if let Some(seconds) = expiration_seconds.filter(|s| *s < 600) {
        errors.invalid(
            root.child("expirationSeconds"),
            &seconds,
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
}
