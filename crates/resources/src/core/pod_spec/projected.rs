//! Projected volumes, and the fields and resources of a pod that its files and variables may name.

use super::Scope;
use super::volumes::key_to_path;
use crate::certificates::signer_name::{self, is_kubernetes};
use crate::check::{self, is_set, list, local_path, required, text};
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, DownwardAPIVolumeFile, ObjectFieldSelector, PodCertificateProjection,
    ProjectedVolumeSource, ResourceFieldSelector,
};

/// What files may show of a pod.
const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// What files and variables may show of a container.
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const CONFLICT: &str = "conflicting duplicate paths";

/// Paths of a volume, each of which one source alone may fill.
#[derive(Default)]
struct Paths<'a>(Vec<&'a str>);

impl<'a> Paths<'a> {
    fn take(&mut self, path: &'a str, said: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
        if self.0.contains(&path) {
            errors.invalid(at, &said, CONFLICT);
        } else {
            self.0.push(path);
        }
    }
}

pub(super) fn validate(
    scope: &Scope<'_>,
    v: &ProjectedVolumeSource,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    check::file_mode(v.default_mode, at.child("defaultMode"), errors);
    let mut paths = Paths::default();
    let sources = at.child("sources");
    for (i, source) in list(&v.sources).iter().enumerate() {
        let source_at = sources.index(i);
        let mut count = 0;
        let maps = [
            ("secret", source.secret.as_ref().map(|s| (&s.name, list(&s.items)))),
            ("configMap", source.config_map.as_ref().map(|c| (&c.name, list(&c.items)))),
        ];
        for (kind, map) in maps {
            let Some((name, items)) = map else { continue };
            count += 1;
            let here = source_at.child(kind);
            required(name, here.child("name"), errors);
            let items_at = here.child("items");
            for (i, item) in items.iter().enumerate() {
                key_to_path(item, items_at.index(i), errors);
                if !item.path.is_empty() {
                    paths.take(&item.path, name, at, errors);
                }
            }
        }
        if let Some(downward) = &source.downward_api {
            count += 1;
            for file in list(&downward.items) {
                downward_file(file, source_at.child("downwardAPI"), errors);
                if !file.path.is_empty() {
                    paths.take(&file.path, &file.path, at, errors);
                }
            }
        }
        if let Some(token) = &source.service_account_token {
            count += 1;
            let here = source_at.child("serviceAccountToken");
            let seconds = token.expiration_seconds.unwrap_or(0);
            if seconds < 600 {
                let why = "may not specify a duration less than 10 minutes";
                errors.invalid(here.child("expirationSeconds"), &seconds, why);
            }
            if seconds > 1 << 32 {
                let why = "may not specify a duration larger than 2^32 seconds";
                errors.invalid(here.child("expirationSeconds"), &seconds, why);
            }
            if !required(&token.path, at.child("path"), errors) && !scope.lenient.token_paths {
                local_path(&token.path, at.child("path"), errors);
            }
        }
        if let Some(bundle) = &source.cluster_trust_bundle {
            count += 1;
            trust_bundle(bundle, source_at.child("clusterTrustBundle"), errors);
            paths.take(&bundle.path, &bundle.path, at, errors);
        }
        if let Some(certificate) = &source.pod_certificate {
            count += 1;
            pod_certificate(certificate, source_at.child("podCertificate"), at, &mut paths, errors);
        }
        if count > 1 {
            errors.forbidden(source_at, "may not specify more than 1 volume type per source");
        }
    }
}

fn trust_bundle(b: &ClusterTrustBundleProjection, at: FieldPath<'_>, errors: &mut FieldErrors) {
    match (&b.name, &b.signer_name) {
        (Some(_), Some(_)) => errors.invalid(at, b, "only one of name and signerName may be used"),
        (Some(name), None) => {
            if name.is_empty() {
                errors.required(at.child("name"), "must be a valid object name");
            }
            for fault in trust_bundle_name(name) {
                let why = format!("not a valid clustertrustbundlename: {fault}");
                errors.invalid(at.child("name"), name, why);
            }
            if let Some(selector) = &b.label_selector {
                let why = "labelSelector must be unset if name is specified";
                errors.invalid(at.child("labelSelector"), selector, why);
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                errors.required(at.child("signerName"), "must be a valid signer name");
            }
            signer_name::validate(signer, at.child("signerName"), errors);
            check::label_selector(b.label_selector.as_ref(), false, at.child("labelSelector"), errors);
        }
        (None, None) => errors.required(at, "either name or signerName must be specified"),
    }
    required(&b.path, at.child("path"), errors);
    local_path(&b.path, at.child("path"), errors);
}

/// The name of a bundle of a signer starts with the signer's, whose `/` is written `:`.
fn trust_bundle_name(name: &str) -> Vec<String> {
    names::dns1123_subdomain(name.rsplit_once(':').map_or(name, |(_, rest)| rest))
}

fn pod_certificate<'a>(
    c: &'a PodCertificateProjection,
    at: FieldPath<'_>,
    volume: FieldPath<'_>,
    paths: &mut Paths<'a>,
    errors: &mut FieldErrors,
) {
    signer_name::validate(&c.signer_name, at.child("signerName"), errors);
    if let Some(annotations) = &c.user_annotations {
        let at = at.child("userAnnotations");
        for key in annotations.keys() {
            errors.all_invalid(at, key, names::domain_prefixed_key(&key.to_lowercase()));
        }
        crate::meta::annotations_size(Some(annotations), at, errors);
    }
    let kinds = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
    check::one_of(&c.key_type, &kinds, at.child("keyType"), errors);
    if let Some(seconds) = c.max_expiration_seconds {
        let most = if is_kubernetes(&c.signer_name) { 24 * 60 * 60 } else { 91 * 24 * 60 * 60 };
        if seconds < 3600 {
            let why = "if provided, maxExpirationSeconds must be >= 3600";
            errors.invalid(at.child("maxExpirationSeconds"), &seconds, why);
        }
        if seconds > most {
            let why = format!("if provided, maxExpirationSeconds must be <= {most}");
            errors.invalid(at.child("maxExpirationSeconds"), &seconds, why);
        }
    }
    let files = [
        ("credentialBundlePath", &c.credential_bundle_path),
        ("keyPath", &c.key_path),
        ("certificateChainPath", &c.certificate_chain_path),
    ];
    for (name, path) in files.into_iter().filter(|(_, path)| is_set(path)) {
        local_path(text(path), at.child(name), errors);
        paths.take(text(path), text(path), volume, errors);
    }
    if !files.iter().any(|(_, path)| is_set(path)) {
        let why = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.required(at, why);
    }
}

pub(super) fn downward_file(file: &DownwardAPIVolumeFile, at: FieldPath<'_>, errors: &mut FieldErrors) {
    required(&file.path, at.child("path"), errors);
    local_path(&file.path, at.child("path"), errors);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), resource) => {
            object_field(field, FILE_FIELDS, at.child("fieldRef"), errors);
            if resource.is_some() {
                let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(at, &"resource", why);
            }
        }
        (None, Some(resource)) => resource_field(resource, true, at.child("resourceFieldRef"), errors),
        (None, None) => errors.required(at, "one of fieldRef and resourceFieldRef is required"),
    }
    check::file_mode(file.mode, at.child("mode"), errors);
}

/// A field of the pod, such as `metadata.labels['x']`.
pub(super) fn object_field(
    f: &ObjectFieldSelector,
    supported: &[&str],
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    if required(text(&f.api_version), at.child("apiVersion"), errors)
        || required(&f.field_path, at.child("fieldPath"), errors)
    {
        return;
    }
    let fail = |errors: &mut FieldErrors, why: String| {
        let why = format!("error converting fieldPath: {why}");
        errors.invalid(at.child("fieldPath"), &f.field_path, why);
    };
    if text(&f.api_version) != "v1" {
        return fail(errors, format!("unsupported pod version: {}", text(&f.api_version)));
    }
    let subscripted = f.field_path.strip_suffix("']").and_then(|p| p.split_once("['"));
    match subscripted.filter(|(path, _)| !path.is_empty()) {
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            check::qualified(&key, at, errors);
        }
        Some(("metadata.labels", key)) => check::qualified(key, at, errors),
        Some(_) => fail(errors, format!("field label does not support subscript: {}", f.field_path)),
        None => match f.field_path.as_str() {
            "metadata.annotations"
            | "metadata.labels"
            | "metadata.name"
            | "metadata.namespace"
            | "metadata.uid"
            | "spec.nodeName"
            | "spec.restartPolicy"
            | "spec.serviceAccountName"
            | "spec.schedulerName"
            | "status.phase"
            | "status.hostIP"
            | "status.hostIPs"
            | "status.podIP"
            | "status.podIPs" => {
                check::one_of(&f.field_path, supported, at.child("fieldPath"), errors);
            }
            "spec.host" => check::one_of("spec.nodeName", supported, at.child("fieldPath"), errors),
            other => fail(errors, format!("field label not supported: {other}")),
        },
    }
}

/// A resource of a container, such as `limits.cpu`.
pub(super) fn resource_field(
    f: &ResourceFieldSelector,
    volume: bool,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    let name = f.resource.as_str();
    let huge = name.starts_with("requests.hugepages-") || name.starts_with("limits.hugepages-");
    if volume && !is_set(&f.container_name) {
        errors.required(at.child("containerName"), "");
    } else if !required(name, at.child("resource"), errors) && !huge {
        check::one_of(name, RESOURCES, at.child("resource"), errors);
    }
    let Some(divisor) = f.divisor.as_ref().map(check::amount).filter(|d| !d.is_zero()) else { return };
    let divisor = divisor.to_string();
    let bytes = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let of = match name.split_once('.') {
        Some((_, "cpu")) if matches!(divisor.as_str(), "1m" | "1") => return,
        Some((_, "cpu")) => {
            let why = "only divisor's values 1m and 1 are supported with the cpu resource";
            return errors.invalid(at.child("divisor"), &name, why);
        }
        _ if bytes.contains(&divisor.as_str()) => return,
        Some((_, "memory")) => "memory",
        Some((_, "ephemeral-storage")) => "local ephemeral storage",
        _ if huge => "hugepages",
        _ => return,
    };
    let why = format!("only divisor's values {} are supported with the {of} resource", bytes.join(", "));
    errors.invalid(at.child("divisor"), &name, why);
}
