//! What a pod says of Windows.

use super::containers;
use crate::check;
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::core::v1::{PodSpec, WindowsSecurityContextOptions};

const MAX_CREDENTIAL_SPEC: usize = 64 << 10;
const MAX_DOMAIN: usize = 256;
const MAX_USER: usize = 104;

pub(super) fn options(
    options: Option<&WindowsSecurityContextOptions>,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    let Some(o) = options else { return };
    if let Some(name) = &o.gmsa_credential_spec_name {
        check::subdomain(name, at.child("gmsaCredentialSpecName"), errors);
    }
    let spec_at = at.child("gmsaCredentialSpec");
    match o.gmsa_credential_spec.as_ref() {
        Some(spec) if spec.is_empty() => {
            errors.invalid(spec_at, spec, "gmsaCredentialSpec cannot be an empty string");
        }
        Some(spec) if spec.len() > MAX_CREDENTIAL_SPEC => {
            errors.invalid(spec_at, spec, "gmsaCredentialSpec size must be under 64 KiB");
        }
        _ => {}
    }
    if let Some(name) = &o.run_as_user_name {
        user_name(name, at.child("runAsUserName"), errors);
    }
}

fn user_name(name: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let mut fault = |why: &str| errors.invalid(at, &name, format!("runAsUserName{why}"));
    if name.is_empty() {
        return fault(" cannot be an empty string");
    }
    if name.bytes().any(|b| b.is_ascii_control()) {
        return fault(" cannot contain control characters");
    }
    let (domain, user) = match name.split_once('\\') {
        Some((_, user)) if user.contains('\\') => return fault(" cannot contain more than one backslash"),
        Some((domain, user)) => (Some(domain), user),
        None => (None, name),
    };
    if domain.is_some_and(|d| d.len() >= MAX_DOMAIN) {
        fault("'s Domain length must be under 256 characters");
    }
    if domain.is_some_and(|d| !is_net_bios(d) && !is_dns(d)) {
        fault("'s Domain doesn't match the NetBios nor the DNS format");
    }
    if user.is_empty() {
        fault("'s User cannot be empty");
    } else if user.len() > MAX_USER {
        fault("'s User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        fault("'s User cannot contain only periods or spaces");
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        fault("'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
}

fn is_net_bios(domain: &str) -> bool {
    (1..=15).contains(&domain.chars().count())
        && !domain.starts_with('.')
        && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|'])
}

fn is_dns(domain: &str) -> bool {
    domain.split('.').all(|label| {
        let b = label.as_bytes();
        b.len() <= 63
            && b.first().is_some_and(u8::is_ascii_alphanumeric)
            && b.last().is_some_and(u8::is_ascii_alphanumeric)
            && b.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'-')
    })
}

/// Containers that are processes of the host are all such, and on its network.
pub(super) fn host_process(spec: &PodSpec, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let pod = spec.security_context.as_ref().and_then(|s| s.windows_options.as_ref()?.host_process);
    let (mut all, mut on_host) = (0, 0);
    containers::each(spec, at, |c, at| {
        all += 1;
        let own = c.security.and_then(|s| s.windows_options.as_ref()?.host_process);
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            let context = at.child("securityContext");
            let options = context.child("windowsOptions");
            let why = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            errors.invalid(options.child("hostProcess"), &own, why);
        }
        on_host += usize::from(own.or(pod) == Some(true));
    });
    if on_host == 0 {
        return;
    }
    if on_host != all {
        let why =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.invalid(at, &"", why);
    }
    if spec.host_network != Some(true) {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid(at.child("hostNetwork"), &false, why);
    }
}
