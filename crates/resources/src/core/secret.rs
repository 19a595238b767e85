//! Secret.

use crate::core::config_map::check_key;
use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::core::v1::Secret;

/// The rules of Secret.
pub static KIND: Kind<Secret> = Kind {
    default: |s| {
        s.type_.get_or_insert_with(|| "Opaque".into());
        // `stringData` is for writing alone.
        if let Some(text) = s.string_data.take() {
            let data = s.data.get_or_insert_default();
            for (key, value) in text {
                data.insert(key, k8s_openapi::ByteString(value.into_bytes()));
            }
        }
    },
    validate,
    validate_update,
    warnings: |s, _| warnings(s),
    selectable: &["type"],
    columns: &[
        Column::text("Type", "What it holds.", |s: &Secret, _| s.type_.clone().into()),
        Column::text("Data", "How many entries it has.", |s: &Secret, _| {
            s.data.as_ref().map_or(0, |d| d.len()).into()
        }),
        age_column(),
    ],
    ..Kind::namespaced("secret", "secrets")
};

/// All values together may not be larger: core validation's `MaxSecretSize`.
const MAX_BYTES: usize = 1 << 20;

fn validate(s: &Secret, errors: &mut FieldErrors) {
    let data = FieldPath::root("data");
    for key in s.data.iter().flatten().map(|(k, _)| k) {
        check_key(key, data.key(key), errors);
    }
    if s.data.iter().flatten().map(|(_, v)| v.0.len()).sum::<usize>() > MAX_BYTES {
        errors.too_long(data, MAX_BYTES);
    }
    let has = |key: &str| s.data.as_ref().is_some_and(|d| d.contains_key(key));
    let needed: &[&str] = match s.type_.as_deref().unwrap_or_default() {
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    };
    for key in needed.iter().filter(|k| !has(k)) {
        errors.required(data.key(key), "");
    }
    for key in needed.iter().filter(|k| k.starts_with(".docker")) {
        let Some(json) = s.data.as_ref().and_then(|d| d.get(*key)) else { continue };
        if let Err(e) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&json.0) {
            let why = match json.0.is_empty() {
                true => "unexpected end of JSON input".to_string(),
                false => e.to_string(),
            };
            errors.invalid(data.key(key), &"<secret contents redacted>", why);
        }
    }
    let key = "ssh-privatekey";
    let empty = s.data.as_ref().and_then(|d| d.get(key)).is_none_or(|k| k.0.is_empty());
    if s.type_.as_deref() == Some("kubernetes.io/ssh-auth") && empty {
        errors.required(data.key(key), "");
    }
    if s.type_.as_deref() == Some("kubernetes.io/basic-auth") && !has("username") && !has("password") {
        errors.required(data.key("username"), "");
        errors.required(data.key("password"), "");
    }
    if s.type_.as_deref() == Some("kubernetes.io/service-account-token") {
        let named = s.metadata.annotations.as_ref().and_then(|a| a.get("kubernetes.io/service-account.name"));
        if named.is_none_or(String::is_empty) {
            let metadata = FieldPath::root("metadata");
            let annotations = metadata.child("annotations");
            errors.required(annotations.key("kubernetes.io/service-account.name"), "");
        }
    }
}

fn validate_update(new: &Secret, old: &Secret, errors: &mut FieldErrors) {
    if new.type_ != old.type_ {
        errors.invalid(FieldPath::root("type"), &new.type_, "field is immutable");
    }
    if old.immutable == Some(true) {
        let immutable = "field is immutable when `immutable` is set";
        if new.immutable != Some(true) {
            errors.forbidden(FieldPath::root("immutable"), immutable);
        }
        if new.data != old.data {
            errors.forbidden(FieldPath::root("data"), immutable);
        }
    }
    validate(new, errors);
}

fn warnings(s: &Secret) -> Vec<String> {
    let text = |key: &str| {
        let value = s.data.as_ref().and_then(|d| d.get(key)).map(|v| v.0.as_slice()).unwrap_or_default();
        String::from_utf8_lossy(value).into_owned()
    };
    let mut out = Vec::new();
    if s.type_.as_deref() == Some("kubernetes.io/tls") {
        let (cert, key) = (text("tls.crt"), text("tls.key"));
        // Only whether there is something of the kind: the pair itself is its user's to check.
        if !cert.contains("-----BEGIN CERTIFICATE-----") {
            out.push("tls: failed to find any PEM data in certificate input".into());
        } else if !key.contains("PRIVATE KEY-----") {
            out.push("tls: failed to find any PEM data in key input".into());
        }
    }
    out
}
