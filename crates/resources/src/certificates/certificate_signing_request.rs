//! CertificateSigningRequest.

use super::signer_name;
use crate::check::list;
use crate::kind::{Part, age_column};
use crate::table::human_duration;
use crate::{Column, Context, Kind, diff};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::error::X509Error;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The rules of CertificateSigningRequest.
pub static KIND: Kind<CertificateSigningRequest> = Kind {
    has_status: true,
    name_rule: |_, _| Vec::new(),
    prepare_create: |c, context| {
        // Who asks is the server's word, not the client's.
        c.spec.username = Some(context.user.into());
        c.spec.uid = Some(context.uid.to_string()).filter(|u| !u.is_empty());
        c.spec.groups = Some(context.groups.to_vec());
        c.spec.extra = Some(context.extra.clone()).filter(|e| !e.is_empty());
    },
    prepare_update: |new, old, _| new.spec = old.spec.clone(),
    prepare_status,
    validate: |new, errors| validate(new, None, errors),
    validate_update: |new, old, errors| validate_update(new, old, Change::Rest, errors),
    validate_status: |new, old, errors| validate_update(new, old, Change::Status, errors),
    parts: &[Part {
        name: "approval",
        prepare: prepare_approval,
        validate: |new, old, errors| validate_update(new, old, Change::Approval, errors),
    }],
    selectable: &["spec.signerName"],
    columns: &[
        age_column(),
        Column::text("SignerName", "Who should sign it.", |c: &CertificateSigningRequest, _| {
            if c.spec.signer_name.is_empty() { "<none>".into() } else { c.spec.signer_name.clone().into() }
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

/// Sets the times that conditions leave out.
fn stamp(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest, context: &Context<'_>) {
    let old = conditions(old);
    for c in new.status.iter_mut().flat_map(|s| s.conditions.iter_mut().flatten()) {
        c.last_update_time.get_or_insert(Time(context.now));
        if c.last_transition_time.is_none() {
            let before = old.iter().find(|o| o.type_ == c.type_ && o.status == c.status);
            let since = before.and_then(|o| o.last_transition_time.clone());
            c.last_transition_time = Some(since.unwrap_or(Time(context.now)));
        }
    }
}

/// `approval` adds conditions; the certificate is for `status` to write.
fn prepare_approval(
    new: &mut CertificateSigningRequest,
    old: &CertificateSigningRequest,
    context: &Context<'_>,
) {
    stamp(new, old, context);
    let conditions = new.status.take().and_then(|s| s.conditions);
    new.spec = old.spec.clone();
    new.status = old.status.clone();
    if conditions.is_some() || new.status.is_some() {
        new.status.get_or_insert_default().conditions = conditions;
    }
}

/// `status` leaves approval and denial as they are, unless it adds or removes them, which is a fault.
fn prepare_status(
    new: &mut CertificateSigningRequest,
    old: &CertificateSigningRequest,
    context: &Context<'_>,
) {
    for kind in ["Approved", "Denied"] {
        let before = of_type(old, kind);
        if of_type(new, kind).len() != before.len() {
            continue;
        }
        let status = new.status.iter_mut().flat_map(|s| s.conditions.iter_mut().flatten());
        for (new, old) in status.filter(|c| c.type_ == kind).zip(before) {
            *new = old.clone();
        }
    }
    stamp(new, old, context);
}

fn conditions(c: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    c.status.as_ref().map_or(&[], |s| list(&s.conditions))
}

fn of_type<'a>(c: &'a CertificateSigningRequest, kind: &str) -> Vec<&'a CertificateSigningRequestCondition> {
    conditions(c).iter().filter(|c| c.type_ == kind).collect()
}

fn certificate(c: &CertificateSigningRequest) -> &[u8] {
    c.status.as_ref().and_then(|s| s.certificate.as_ref()).map_or(&[], |c| &c.0)
}

/// What may change, by the way it is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Neither approval nor certificate.
    Rest,
    /// The certificate.
    Status,
    /// Approval and denial.
    Approval,
}

fn validate_update(
    new: &CertificateSigningRequest,
    old: &CertificateSigningRequest,
    change: Change,
    errors: &mut FieldErrors,
) {
    validate(new, Some(old), errors);
    let root = FieldPath::root("status");
    let at = root.child("conditions");
    for kind in ["Approved", "Denied", "Failed"] {
        if of_type(new, kind).len() < of_type(old, kind).len() {
            errors.forbidden(at, &format!("updates may not remove a condition of type {kind:?}"));
        }
    }
    if change != Change::Approval {
        for kind in ["Approved", "Denied"] {
            let (new, old) = (of_type(new, kind), of_type(old, kind));
            if new.len() > old.len() {
                errors.forbidden(at, &format!("updates may not add a condition of type {kind:?}"));
            } else if new.len() == old.len() && new != old {
                let diff = diff::of(&old, &new);
                errors.forbidden(at, &format!("updates may not modify a condition of type {kind:?}\n{diff}"));
            }
        }
    }
    if certificate(new) != certificate(old) {
        if change != Change::Status {
            errors.forbidden(root.child("certificate"), "updates may not set certificate content");
        } else if !certificate(old).is_empty() {
            errors
                .forbidden(root.child("certificate"), "updates may not modify existing certificate content");
        }
    }
}

/// What a certificate may be for, sorted as messages list it.
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// The signer that requests of former versions had without naming one.
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";

/// Checks a request; what was wrong with `old` already may stay wrong.
fn validate(
    c: &CertificateSigningRequest,
    old: Option<&CertificateSigningRequest>,
    errors: &mut FieldErrors,
) {
    let root = FieldPath::root("spec");
    let spec = &c.spec;
    if old.is_none_or(|old| old.spec.request != spec.request)
        && let Err(why) = check_request(&spec.request.0)
    {
        errors.invalid(root.child("request"), &spec.request, why);
    }
    let usages = list(&spec.usages);
    let at = root.child("usages");
    if usages.is_empty() {
        errors.required(at, "");
    }
    let unknown = |u: &String| !USAGES.contains(&u.as_str());
    let old_usages = old.map_or(&[][..], |old| list(&old.spec.usages));
    if !old_usages.iter().any(unknown) {
        for (i, usage) in usages.iter().enumerate().filter(|(_, u)| unknown(u)) {
            errors.not_supported(at.index(i), usage, USAGES);
        }
    }
    if repeated(old_usages).next().is_none() {
        for (i, usage) in repeated(usages) {
            errors.duplicate(at.index(i), usage);
        }
    }
    let at = root.child("signerName");
    if spec.signer_name != LEGACY_SIGNER {
        signer_name::validate(&spec.signer_name, at, errors);
    } else if old.is_none_or(|old| old.spec.signer_name != LEGACY_SIGNER) {
        errors.invalid(at, &spec.signer_name, "the legacy signerName is not allowed via this API version");
    }
    if let Some(seconds) = spec.expiration_seconds.filter(|s| *s < 600) {
        errors.invalid(
            root.child("expirationSeconds"),
            &seconds,
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
    validate_conditions(conditions(c), old.map_or(&[], conditions), errors);
    if old.is_none_or(|old| certificate(old) != certificate(c))
        && let Err(why) = check_certificates(certificate(c))
    {
        let root = FieldPath::root("status");
        errors.invalid(root.child("certificate"), &"<certificate data>", why);
    }
}

/// The items that were there before, with their places.
fn repeated<T: PartialEq>(items: &[T]) -> impl Iterator<Item = (usize, &T)> {
    items.iter().enumerate().filter(|(i, item)| items[..*i].contains(item))
}

fn validate_conditions(
    new: &[CertificateSigningRequestCondition],
    old: &[CertificateSigningRequestCondition],
    errors: &mut FieldErrors,
) {
    let root = FieldPath::root("status");
    let at = root.child("conditions");
    let has = |list: &[CertificateSigningRequestCondition], kind: &str| list.iter().any(|c| c.type_ == kind);
    let empty_before = has(old, "");
    let both_before = has(old, "Approved") && has(old, "Denied");
    let old_types: Vec<&str> = old.iter().map(|c| c.type_.as_str()).collect();
    let twice_before = repeated(&old_types).next().is_some();
    for (i, c) in new.iter().enumerate() {
        let item = at.index(i);
        if c.type_.is_empty() && !empty_before {
            errors.required(item.child("type"), "");
        }
        let supported: &[&str] = match c.type_.as_str() {
            "Approved" | "Denied" | "Failed" => &["True"],
            _ => &["False", "True", "Unknown"],
        };
        if c.status.is_empty() {
            errors.required(item.child("status"), "");
        } else if !supported.contains(&c.status.as_str()) {
            errors.not_supported(item.child("status"), &c.status, supported);
        }
        let opposite = match c.type_.as_str() {
            "Approved" => Some("Denied"),
            "Denied" => Some("Approved"),
            _ => None,
        };
        if !both_before && opposite.is_some_and(|o| has(&new[..i], o)) {
            errors.invalid(at, &c.type_, "Approved and Denied conditions are mutually exclusive");
        }
        if !twice_before && has(&new[..i], &c.type_) {
            errors.duplicate(item.child("type"), &c.type_);
        }
    }
}

/// That it is a signing request in PEM, signed by the key that it is for. Kinds of signature that nothing
/// here can check pass.
fn check_request(pem: &[u8]) -> Result<(), String> {
    let block = Pem::iter_from_buffer(pem).next().and_then(Result::ok);
    let Some(block) = block.filter(|b| b.label == "CERTIFICATE REQUEST") else {
        return Err("PEM block type must be CERTIFICATE REQUEST".into());
    };
    let (_, request) = X509CertificationRequest::from_der(&block.contents)
        .map_err(|e| format!("asn1: structure error: {e}"))?;
    match request.verify_signature() {
        Err(X509Error::SignatureVerificationError) => Err("x509: signature verification failed".into()),
        _ => Ok(()),
    }
}

/// That all of it is certificates in PEM.
fn check_certificates(pem: &[u8]) -> Result<(), String> {
    if pem.is_empty() {
        return Ok(());
    }
    let mut blocks = 0;
    for block in Pem::iter_from_buffer(pem).map_while(Result::ok) {
        if block.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        X509Certificate::from_der(&block.contents)
            .map_err(|e| format!("x509: malformed certificate: {e}"))?;
        blocks += 1;
    }
    if blocks == 0 {
        return Err("must contain at least one CERTIFICATE PEM block".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn who_asks_is_the_servers_word() {
        let known = BTreeMap::from([("k".to_string(), vec!["v".to_string()])]);
        for (uid, extra) in [("u", known.clone()), ("", BTreeMap::new())] {
            let groups = ["g".to_string()];
            let context =
                Context { now: jiff::Timestamp::UNIX_EPOCH, user: "me", uid, groups: &groups, extra: &extra };
            let mut c = CertificateSigningRequest::default();
            c.spec.username = Some("root".into());
            c.spec.uid = Some("0".into());
            c.spec.groups = Some(vec!["system:masters".into()]);
            c.spec.extra = Some(BTreeMap::from([("forged".into(), vec![])]));
            (KIND.prepare_create)(&mut c, &context);
            assert_eq!(c.spec.username.as_deref(), Some("me"));
            assert_eq!(c.spec.uid.unwrap_or_default(), uid);
            assert_eq!(c.spec.groups.as_deref(), Some(&groups[..]));
            assert_eq!(c.spec.extra.unwrap_or_default(), extra);
        }
    }
}
