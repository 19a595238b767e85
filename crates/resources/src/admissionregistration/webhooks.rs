//! What both kinds of webhook configuration have in common.

use super::rules::{self, FAILURE_POLICIES, MATCH_POLICIES, word};
use crate::check;
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, RuleWithOperations, ServiceReference, ValidatingWebhook,
    WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

const QUIET: [&str; 2] = ["None", "NoneOnDryRun"];
const SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

/// A webhook of either kind.
pub(super) struct Hook<'a> {
    name: &'a str,
    reviews: &'a [String],
    client: &'a WebhookClientConfig,
    failure_policy: Option<&'a str>,
    match_policy: Option<&'a str>,
    side_effects: &'a str,
    timeout: Option<i32>,
    namespaces: Option<&'a LabelSelector>,
    objects: Option<&'a LabelSelector>,
    rules: Option<&'a Vec<RuleWithOperations>>,
    conditions: Option<&'a Vec<MatchCondition>>,
    reinvocation: Option<&'a str>,
}

macro_rules! hook {
    ($type:ty, $reinvocation:expr) => {
        impl<'a> From<&'a $type> for Hook<'a> {
            fn from(h: &'a $type) -> Self {
                Hook {
                    name: &h.name,
                    reviews: &h.admission_review_versions,
                    client: &h.client_config,
                    failure_policy: h.failure_policy.as_deref(),
                    match_policy: h.match_policy.as_deref(),
                    side_effects: &h.side_effects,
                    timeout: h.timeout_seconds,
                    namespaces: h.namespace_selector.as_ref(),
                    objects: h.object_selector.as_ref(),
                    rules: h.rules.as_ref(),
                    conditions: h.match_conditions.as_ref(),
                    reinvocation: $reinvocation(h),
                }
            }
        }
    };
}
hook!(ValidatingWebhook, |_: &ValidatingWebhook| None);
hook!(MutatingWebhook, reinvocation);

fn reinvocation(hook: &MutatingWebhook) -> Option<&str> {
    hook.reinvocation_policy.as_deref()
}

/// Sets what is not said, for both kinds.
pub(super) fn default(
    failure_policy: &mut Option<String>,
    match_policy: &mut Option<String>,
    selectors: [&mut Option<LabelSelector>; 2],
    timeout: &mut Option<i32>,
    rules: &mut Option<Vec<RuleWithOperations>>,
    client: &mut WebhookClientConfig,
) {
    failure_policy.get_or_insert_with(|| "Fail".into());
    match_policy.get_or_insert_with(|| "Equivalent".into());
    for selector in selectors {
        selector.get_or_insert_default();
    }
    timeout.get_or_insert(10);
    for rule in rules.iter_mut().flatten() {
        rule.scope.get_or_insert_with(|| "*".into());
    }
    if let Some(service) = &mut client.service {
        service.port.get_or_insert(443);
    }
}

/// Checks all webhooks of a configuration. What is wrong with the old ones in these ways may stay wrong.
pub(super) fn validate<'a, T: 'a>(new: &'a [T], old: Option<&'a [T]>, errors: &mut FieldErrors)
where
    Hook<'a>: From<&'a T>,
{
    let old: Option<Vec<Hook>> = old.map(|o| o.iter().map(Hook::from).collect());
    let new: Vec<Hook> = new.iter().map(Hook::from).collect();
    let held = |rule: &dyn Fn(&Hook) -> bool| old.as_ref().is_none_or(|o| o.iter().all(rule));
    let quiet = held(&|h| QUIET.contains(&h.side_effects));
    let known = held(&|h| h.reviews.is_empty() || h.reviews.iter().any(|v| REVIEWS.contains(&v.as_str())));
    let unique = old.as_ref().is_none_or(|o| !(0..o.len()).any(|i| repeated(o, i)));
    let same_conditions = old.as_ref().is_some_and(|o| {
        o.len() == new.len() && o.iter().zip(&new).all(|(o, n)| o.conditions == n.conditions)
    });
    let root = FieldPath::root("webhooks");
    for (i, hook) in new.iter().enumerate() {
        let at = root.index(i);
        one(hook, quiet, at, errors);
        if !same_conditions {
            rules::conditions(hook.conditions, at.child("matchConditions"), errors);
        }
        reviews(hook.reviews, known, at.child("admissionReviewVersions"), errors);
        if unique && !hook.name.is_empty() && repeated(&new, i) {
            errors.duplicate(at.child("name"), &hook.name);
        }
    }
}

fn repeated(hooks: &[Hook<'_>], i: usize) -> bool {
    hooks.get(i).is_some_and(|hook| hooks.iter().take(i).any(|h| h.name == hook.name))
}

fn one(hook: &Hook<'_>, quiet: bool, at: FieldPath<'_>, errors: &mut FieldErrors) {
    full_name(hook.name, at.child("name"), errors);
    for (i, rule) in hook.rules.into_iter().flatten().enumerate() {
        rules::validate(rule, at.child("rules").index(i), errors);
    }
    word(hook.failure_policy, &FAILURE_POLICIES, at.child("failurePolicy"), errors);
    word(hook.match_policy, &MATCH_POLICIES, at.child("matchPolicy"), errors);
    let allowed = if quiet { &QUIET[..] } else { &SIDE_EFFECTS };
    match hook.side_effects {
        "" => {
            errors.required(at.child("sideEffects"), &format!("must specify one of {}", allowed.join(", ")));
        }
        said => word(Some(said), allowed, at.child("sideEffects"), errors),
    }
    if let Some(timeout) = hook.timeout.filter(|t| !(1..=30).contains(t)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        errors.invalid(at.child("timeoutSeconds"), &timeout, why);
    }
    check::label_selector(hook.namespaces, false, at.child("namespaceSelector"), errors);
    check::label_selector(hook.objects, false, at.child("objectSelector"), errors);
    word(hook.reinvocation, &["IfNeeded", "Never"], at.child("reinvocationPolicy"), errors);
    let client = at.child("clientConfig");
    match (&hook.client.url, &hook.client.service) {
        (Some(url), None) => web_address(url, client.child("url"), errors),
        (None, Some(service)) => service_reference(service, client.child("service"), errors),
        _ => errors.required(client, "exactly one of url or service is required"),
    }
}

fn full_name(name: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let faults = names::dns1123_subdomain(name);
    if name.is_empty() {
        errors.required(at, "");
    } else if !faults.is_empty() {
        errors.invalid(at, &name, faults.join(","));
    } else if name.split('.').count() < 3 {
        errors.invalid(at, &name, "should be a domain with at least three segments separated by dots");
    }
}

fn reviews(versions: &[String], known: bool, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if versions.is_empty() {
        return errors.required(at, &format!("must specify one of {}", REVIEWS.join(", ")));
    }
    for (i, version) in versions.iter().enumerate() {
        if versions.iter().take(i).any(|v| v == version) {
            errors.invalid(at.index(i), version, "duplicate version");
        } else {
            errors.all_invalid(at.index(i), version, names::dns1035_label(version));
        }
    }
    if known && !versions.iter().any(|v| REVIEWS.contains(&v.as_str())) {
        errors.invalid(at, &versions, format!("must include at least one of {}", REVIEWS.join(", ")));
    }
}

/// Checks the address of a webhook outside the cluster.
fn web_address(text: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (rest, fragment) = text.split_once('#').map_or((text, ""), |(a, b)| (a, b));
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(a, b)| (a, b));
    let (scheme, rest) = rest.split_once("://").map_or(("", rest), |(a, b)| (a, b));
    let authority = if scheme.is_empty() { "" } else { rest.split('/').next().unwrap_or_default() };
    let (user, host) = authority.rsplit_once('@').map_or(("", authority), |(a, b)| (a, b));
    if scheme != "https" {
        errors.invalid(at, &scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if host.is_empty() {
        errors.invalid(at, &host, format!("host must be specified{FORM}"));
    }
    if !user.is_empty() {
        errors.invalid(at, &user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        errors.invalid(at, &fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        errors.invalid(at, &query, "query parameters are not permitted in the URL");
    }
}

fn service_reference(service: &ServiceReference, at: FieldPath<'_>, errors: &mut FieldErrors) {
    for (name, value) in [("name", &service.name), ("namespace", &service.namespace)] {
        if value.is_empty() {
            errors.required(at.child(name), "");
        }
    }
    let port = service.port.unwrap_or(0);
    let faults = names::port_number(port);
    if !faults.is_empty() {
        errors.invalid(at.child("port"), &port, format!("port is not valid: {}", faults.join(", ")));
    }
    let at = at.child("path");
    let path = service.path.as_deref().unwrap_or_default();
    match path {
        "" | "/" => return,
        "//" => return errors.invalid(at, &path, "segment[0] may not be empty"),
        _ => {}
    }
    if !path.starts_with('/') {
        errors.invalid(at, &path, "must start with a '/'");
    }
    let mut chars = path.chars();
    chars.next();
    let inner = chars.as_str();
    for (i, step) in inner.strip_suffix('/').unwrap_or(inner).split('/').enumerate() {
        if step.is_empty() {
            errors.invalid(at, &path, format!("segment[{i}] may not be empty"));
            continue;
        }
        for fault in names::dns1123_subdomain(step) {
            errors.invalid(at, &path, format!("segment[{i}]: {fault}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(hook: Value) -> Vec<String> {
        let hooks: Vec<ValidatingWebhook> = vec![serde_json::from_value(hook).unwrap()];
        let mut errors = FieldErrors::default();
        validate(&hooks, None, &mut errors);
        errors.as_slice().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn faults_of_webhooks() {
        let good = json!({
            "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://x/y"},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods", "pods/*"]}],
        });
        assert_eq!(check(good.clone()), [""; 0]);
        let mut bad = good.clone();
        bad["name"] = "a".into();
        bad["sideEffects"] = "Some".into();
        bad["clientConfig"] = json!({"service": {"name": "s", "namespace": "n", "port": 0, "path": "x//y"}});
        bad["rules"][0]["resources"] = json!(["*", "pods"]);
        bad["admissionReviewVersions"] = json!(["v9"]);
        assert_eq!(
            check(bad),
            [
                "webhooks[0].name: Invalid value: \"a\": should be a domain with at least three segments separated by dots",
                "webhooks[0].rules[0].resources: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other resources without subresources",
                "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
                "webhooks[0].clientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
                "webhooks[0].clientConfig.service.path: Invalid value: \"x//y\": must start with a '/'",
                "webhooks[0].clientConfig.service.path: Invalid value: \"x//y\": segment[0] may not be empty",
                "webhooks[0].clientConfig.service.path: Invalid value: \"x//y\": segment[1] may not be empty",
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v9\"]: must include at least one of v1, v1beta1",
            ]
        );
        for (url, count) in [("http://x", 1), ("https:///y", 1), ("https://u:p@h/p?q#f", 3), ("x", 2)] {
            let mut hook = good.clone();
            hook["clientConfig"]["url"] = url.into();
            assert_eq!(check(hook).len(), count, "{url}");
        }
    }
}
