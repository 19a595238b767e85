//! The names of signers of certificates, such as `kubernetes.io/kubelet-serving`.

use api::field::{FieldErrors, FieldPath};
use api::names;

/// A domain's and a name's longest.
const MAX_DOMAIN: usize = 253;
/// A signer's longest: a domain, a namespace and a name.
const MAX: usize = MAX_DOMAIN + 1 + 253 + 63 + 1;

/// Whether the project itself has reserved the name.
pub fn is_kubernetes(name: &str) -> bool {
    let host = name.split_once('/').map_or(name, |(host, _)| host);
    host == "kubernetes.io" || host.ends_with(".kubernetes.io")
}

/// Checks the name of a signer.
pub fn validate(name: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if name.is_empty() {
        return errors.required(at, "");
    }
    let Some((domain, path)) = name.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.invalid(at, &name, why);
    };
    if domain.len() > MAX_DOMAIN {
        errors.too_long(at, MAX_DOMAIN);
    }
    first_fault(domain, names::dns1123_label, at, errors);
    if !domain.contains('.') {
        errors.invalid(at, &domain, "should be a domain with at least two segments separated by dots");
    }
    first_fault(path, names::dns1123_subdomain, at, errors);
    if name.len() > MAX {
        errors.too_long(at, MAX);
    }
}

/// Says of the first faulty label alone what is wrong.
fn first_fault(part: &str, rule: fn(&str) -> Vec<String>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let faulty = part.split('.').map(|label| (label, rule(label))).find(|(_, faults)| !faults.is_empty());
    for (label, fault) in
        faulty.into_iter().flat_map(|(label, faults)| faults.into_iter().map(move |f| (label, f)))
    {
        errors.invalid(at, &part, format!("validating label {label:?}: {fault}"));
    }
}
