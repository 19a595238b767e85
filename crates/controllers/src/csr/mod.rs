//! Certificate signing requests: approves those of kubelets, signs what is approved, deletes what is old.
//! Each watches the requests alone.

mod approve;
mod clean;
mod sign;

pub use approve::run as run_approver;
pub use clean::run as run_cleaner;
pub use sign::run as run_signer;

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use pki::ca::Subject;

const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const LEGACY: &str = "kubernetes.io/legacy-unknown";

fn condition<'a>(
    csr: &'a CertificateSigningRequest,
    kind: &str,
) -> Option<&'a CertificateSigningRequestCondition> {
    csr.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

fn is(csr: &CertificateSigningRequest, kind: &str) -> bool {
    condition(csr, kind).is_some_and(|c| c.status == "True")
}

fn has_certificate(csr: &CertificateSigningRequest) -> bool {
    csr.status.as_ref().and_then(|s| s.certificate.as_ref()).is_some_and(|c| !c.0.is_empty())
}

/// What is wrong with the usages asked for: all of `required` must be there, and nothing else but `optional`.
fn usages_fault(usages: &[String], required: &[&str], optional: &[&str]) -> Option<String> {
    if let Some(missing) = required.iter().find(|r| !usages.iter().any(|u| u == *r)) {
        return Some(format!("missing required usage: {missing}"));
    }
    let known = |u: &&String| required.contains(&u.as_str()) || optional.contains(&u.as_str());
    usages.iter().find(|u| !known(u)).map(|u| format!("invalid usage: {u}"))
}

fn node_fault(subject: &Subject) -> Option<String> {
    if subject.organizations != ["system:nodes"] {
        return Some("subject organization is not system:nodes".into());
    }
    if !subject.common_name.starts_with("system:node:") {
        return Some("subject common name does not begin with system:node:".into());
    }
    None
}

/// Why a request is none that its signer signs.
fn fault(signer: &str, subject: &Subject, usages: &[String]) -> Option<String> {
    match signer {
        KUBELET_CLIENT if !subject.dns_names.is_empty() => Some("DNS subjectAltNames are not allowed".into()),
        KUBELET_CLIENT if !subject.addresses.is_empty() => Some("IP subjectAltNames are not allowed".into()),
        KUBELET_CLIENT => node_fault(subject)
            .or_else(|| usages_fault(usages, &["client auth", "digital signature"], &["key encipherment"])),
        KUBELET_SERVING if subject.dns_names.is_empty() && subject.addresses.is_empty() => {
            Some("DNS or IP subjectAltName is required".into())
        }
        KUBELET_SERVING => node_fault(subject)
            .or_else(|| usages_fault(usages, &["server auth", "digital signature"], &["key encipherment"])),
        API_CLIENT => usages_fault(usages, &["client auth"], &["digital signature", "key encipherment"]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_checked_by_their_signer() {
        let node = Subject {
            common_name: "system:node:a".into(),
            organizations: vec!["system:nodes".into()],
            ..Subject::default()
        };
        let named = Subject { dns_names: vec!["a".into()], ..node.clone() };
        let user = Subject { common_name: "joe".into(), ..Subject::default() };
        let usages = |text: &str| text.split(',').map(String::from).collect::<Vec<_>>();
        let client = usages("client auth,digital signature");
        for (signer, subject, usages, good) in [
            (KUBELET_CLIENT, &node, &client, true),
            (KUBELET_CLIENT, &node, &usages("client auth,digital signature,key encipherment"), true),
            (KUBELET_CLIENT, &node, &usages("client auth"), false),
            (KUBELET_CLIENT, &node, &usages("client auth,digital signature,server auth"), false),
            (KUBELET_CLIENT, &named, &client, false),
            (KUBELET_CLIENT, &user, &client, false),
            (KUBELET_SERVING, &named, &usages("server auth,digital signature"), true),
            (KUBELET_SERVING, &node, &usages("server auth,digital signature"), false),
            (API_CLIENT, &user, &usages("client auth"), true),
            (API_CLIENT, &user, &usages("server auth,client auth"), false),
            (LEGACY, &user, &usages("server auth"), true),
        ] {
            assert_eq!(fault(signer, subject, usages).is_none(), good, "{signer} {subject:?} {usages:?}");
        }
    }
}
