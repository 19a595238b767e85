//! Whether a Job's spec is well formed; a CronJob's template too.

use super::indexes;
use crate::check::{self, list, not_negative, text};
use crate::core::pod_spec;
use api::field::{FieldErrors, FieldFault, FieldPath};
use api::names;
use api::selector::LabelSelector;
use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule, SuccessPolicyRule,
};
use k8s_openapi::api::core::v1::PodTemplateSpec;

const MAX_INDEXED: i32 = 100_000;
const MAX_OF_MANY: i32 = 10_000;
const MAX_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const MAX_MANAGED_BY: usize = 63;
const MAX_INDEXES: usize = 64 * 1024;
const INDEXED: &str = "requires indexed completion mode";

/// A rule of a value that is not shown.
fn invalid_whole(at: FieldPath<'_>, why: &str, errors: &mut FieldErrors) {
    errors.push(at, FieldFault::InvalidOmitted(why.into()));
}

/// Checks a Job's own spec, which has a selector.
pub(super) fn with_selector(s: &JobSpec, old: Option<&JobSpec>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    spec(s, old.map(|o| &o.template), at, errors);
    let Some(selector) = &s.selector else { return errors.required(at.child("selector"), "") };
    check::label_selector(Some(selector), false, at.child("selector"), errors);
    if let Ok(parsed) = LabelSelector::from_object(selector) {
        let labels = s.template.metadata.as_ref().and_then(|m| m.labels.as_ref());
        if !parsed.matches_labels(labels) {
            let template = at.child("template");
            let metadata = template.child("metadata");
            let why = "`selector` does not match template `labels`";
            errors.invalid(metadata.child("labels"), &labels, why);
        }
    }
}

/// Checks a spec.
pub fn spec(s: &JobSpec, old: Option<&PodTemplateSpec>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    for (name, value) in [
        ("parallelism", s.parallelism),
        ("completions", s.completions),
        ("backoffLimit", s.backoff_limit),
        ("ttlSecondsAfterFinished", s.ttl_seconds_after_finished),
        ("backoffLimitPerIndex", s.backoff_limit_per_index),
        ("maxFailedIndexes", s.max_failed_indexes),
    ] {
        not_negative(value, at.child(name), errors);
    }
    not_negative(s.active_deadline_seconds, at.child("activeDeadlineSeconds"), errors);
    if s.max_failed_indexes.is_some() && s.backoff_limit_per_index.is_none() {
        errors.required(at.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    if let Some(manager) = &s.managed_by {
        managed_by(manager, at.child("managedBy"), errors);
    }
    let mode = s.completion_mode.as_deref();
    if let Some(mode) = mode {
        check::one_of(mode, &["NonIndexed", "Indexed"], at.child("completionMode"), errors);
    }
    match mode {
        Some("Indexed") => indexed(s, at, errors),
        None | Some("NonIndexed") => {
            for (name, value) in [
                ("backoffLimitPerIndex", s.backoff_limit_per_index),
                ("maxFailedIndexes", s.max_failed_indexes),
            ] {
                if let Some(value) = value {
                    errors.invalid(at.child(name), &value, INDEXED);
                }
            }
        }
        Some(_) => {}
    }
    if let Some(policy) = &s.pod_failure_policy {
        let policy_at = at.child("podFailurePolicy");
        let path = policy_at.child("rules");
        if policy.rules.len() > MAX_RULES {
            errors.too_many(path, policy.rules.len(), MAX_RULES);
        }
        for (i, rule) in policy.rules.iter().enumerate() {
            failure_rule(s, rule, path.index(i), errors);
        }
    }
    if let Some(policy) = &s.success_policy {
        let at = at.child("successPolicy");
        if mode != Some("Indexed") {
            errors.invalid(at, policy, INDEXED);
        } else {
            let path = at.child("rules");
            if policy.rules.is_empty() {
                let why = "at least one rules must be specified when the successPolicy is specified";
                errors.required(path, why);
            }
            if policy.rules.len() > MAX_RULES {
                errors.too_many(path, policy.rules.len(), MAX_RULES);
            }
            for (i, rule) in policy.rules.iter().enumerate() {
                success_rule(rule, s.completions.unwrap_or(0), path.index(i), errors);
            }
        }
    }
    let policies: &[&str] =
        if s.pod_failure_policy.is_some() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    check::maybe_one_of(&s.pod_replacement_policy, policies, at.child("podReplacementPolicy"), errors);
    let template = at.child("template");
    pod_spec::validate_new_template(&s.template, old, template, errors);
    let pod = template.child("spec");
    let at = pod.child("restartPolicy");
    match s.template.spec.as_ref().map_or("", |s| text(&s.restart_policy)) {
        "" | "Always" => errors.required(at, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if s.pod_failure_policy.is_some() => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.invalid(at, &"OnFailure", why);
        }
        policy => check::one_of(policy, &["OnFailure", "Never"], at, errors),
    }
}

fn managed_by(value: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    match value.split_once('/') {
        _ if value.is_empty() => errors.required(at, ""),
        Some((host, path)) if !host.is_empty() && !path.is_empty() => {
            errors.all_invalid(at, host, names::dns1123_subdomain(host));
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
            if !path.bytes().all(allowed) {
                let why = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
                errors.invalid(at, &path, why);
            }
        }
        _ => errors.invalid(at, &value, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
    if value.len() > MAX_MANAGED_BY {
        errors.too_long(at, MAX_MANAGED_BY);
    }
}

fn indexed(s: &JobSpec, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if s.completions.is_none() {
        errors.required(at.child("completions"), "when completion mode is Indexed");
    }
    let (parallelism, failed) = (at.child("parallelism"), at.child("maxFailedIndexes"));
    if let Some(n) = s.parallelism.filter(|n| *n > MAX_INDEXED) {
        let why = format!("must be less than or equal to {MAX_INDEXED} when completion mode is Indexed");
        errors.invalid(parallelism, &n, why);
    }
    if let (Some(all), Some(most)) = (s.completions, s.max_failed_indexes)
        && most > all
    {
        errors.invalid(failed, &most, "must be less than or equal to completions");
    }
    if let Some(most) = s.max_failed_indexes.filter(|n| *n > MAX_INDEXED) {
        errors.invalid(failed, &most, format!("must be less than or equal to {MAX_INDEXED}"));
    }
    if s.completions.is_none_or(|n| n <= MAX_INDEXED) || s.backoff_limit_per_index.is_none() {
        return;
    }
    let why = format!(
        "must be less than or equal to {MAX_OF_MANY} when completions are above {MAX_INDEXED} and used with backoff limit per index"
    );
    match s.max_failed_indexes {
        None => {
            errors.required(failed, &format!("must be specified when completions is above {MAX_INDEXED}"))
        }
        Some(n) if n > MAX_OF_MANY => errors.invalid(failed, &n, why.clone()),
        Some(_) => {}
    }
    if let Some(n) = s.parallelism.filter(|n| *n > MAX_OF_MANY) {
        errors.invalid(parallelism, &n, why);
    }
}

fn failure_rule(s: &JobSpec, rule: &PodFailurePolicyRule, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let action = at.child("action");
    match rule.action.as_str() {
        "" => errors.required(action, "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"),
        "FailIndex" if s.backoff_limit_per_index.is_none() => {
            errors.invalid(action, &"FailIndex", "requires the backoffLimitPerIndex to be set");
        }
        other => check::one_of(other, &["Count", "FailIndex", "FailJob", "Ignore"], action, errors),
    }
    if let Some(codes) = &rule.on_exit_codes {
        exit_codes(s, codes, at.child("onExitCodes"), errors);
    }
    let conditions = list(&rule.on_pod_conditions);
    let path = at.child("onPodConditions");
    if conditions.len() > MAX_RULES {
        errors.too_many(path, conditions.len(), MAX_RULES);
    }
    for (i, pattern) in conditions.iter().enumerate() {
        let at = path.index(i);
        check::qualified(&pattern.type_, at.child("type"), errors);
        match text(&pattern.status) {
            "" => errors.required(at.child("status"), "valid values: [\"False\" \"True\" \"Unknown\"]"),
            status => check::one_of(status, &["False", "True", "Unknown"], at.child("status"), errors),
        }
    }
    match (rule.on_exit_codes.is_some(), conditions.is_empty()) {
        (true, false) => {
            invalid_whole(at, "specifying both OnExitCodes and OnPodConditions is not supported", errors);
        }
        (false, true) => {
            invalid_whole(at, "specifying one of OnExitCodes and OnPodConditions is required", errors);
        }
        _ => {}
    }
}

fn exit_codes(
    s: &JobSpec,
    codes: &PodFailurePolicyOnExitCodesRequirement,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    match codes.operator.as_str() {
        "" => errors.required(at.child("operator"), "valid values: [\"In\" \"NotIn\"]"),
        operator => check::one_of(operator, &["In", "NotIn"], at.child("operator"), errors),
    }
    if let Some(name) = &codes.container_name {
        let pod = s.template.spec.as_ref();
        let all = pod.into_iter().flat_map(|p| p.containers.iter().chain(list(&p.init_containers)));
        if !all.into_iter().any(|c| c.name == *name) {
            let why = "must be one of the container or initContainer names in the pod template";
            errors.invalid(at.child("containerName"), name, why);
        }
    }
    let (path, values) = (at.child("values"), &codes.values);
    if values.is_empty() {
        errors.invalid(path, values, "at least one value is required");
    } else if values.len() > MAX_EXIT_CODES {
        errors.too_many(path, values.len(), MAX_EXIT_CODES);
    }
    for (i, code) in values.iter().enumerate() {
        if codes.operator == "In" && *code == 0 {
            errors.invalid(path.index(i), code, "must not be 0 for the In operator");
        }
        if values[..i].contains(code) {
            errors.duplicate(path.index(i), code);
        }
    }
    if !values.is_sorted() {
        errors.invalid(path, values, "must be ordered");
    }
}

fn success_rule(rule: &SuccessPolicyRule, completions: i32, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        errors.required(at, "at least one of succeededCount or succeededIndexes must be specified");
    }
    let mut total = 0;
    if let Some(text) = &rule.succeeded_indexes {
        let at = at.child("succeededIndexes");
        if text.len() > MAX_INDEXES {
            errors.too_long(at, MAX_INDEXES);
        }
        match indexes::count(text, completions) {
            Ok(n) => total = n,
            Err(why) => errors.invalid(at, text, format!("error parsing succeededIndexes: {why}")),
        }
    }
    if let Some(count) = rule.succeeded_count {
        let at = at.child("succeededCount");
        not_negative(Some(count), at, errors);
        if count > completions {
            let why =
                format!("must be less than or equal to {completions} (the number of specified completions)");
            errors.invalid(at, &count, why);
        }
        if rule.succeeded_indexes.is_some() && i64::from(count) > total {
            let why = format!(
                "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            );
            errors.invalid(at, &count, why);
        }
    }
}
