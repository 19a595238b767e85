//! The group `apps`, and what workloads share.

pub mod controller_revision;
pub mod daemon_set;
pub mod deployment;
pub mod replica_set;
pub mod stateful_set;

pub use crate::check::{count_or_percent, not_negative};

use crate::check::{self, text};
use crate::core::pod::warnings;
use crate::core::pod_spec;
use api::field::{FieldErrors, FieldPath};
use api::selector::LabelSelector;
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{self as meta, ObjectMeta};
use serde_json::Value;

const AT: FieldPath<'static> = FieldPath::root("spec");

/// A selector and the template it has to select, whose pods are restarted always.
pub(crate) struct Selected<'a> {
    /// The selector.
    pub selector: &'a meta::LabelSelector,
    /// The template.
    pub template: &'a PodTemplateSpec,
    /// The template in whose place it comes.
    pub old: Option<&'a PodTemplateSpec>,
    /// What messages call the kind whose selector must not be empty.
    pub kind: &'static str,
    /// What messages call the kind whose pods have no deadline.
    pub title: &'static str,
}

impl Selected<'_> {
    /// Checks both.
    pub fn validate(&self, errors: &mut FieldErrors) {
        self.validate_selector(errors);
        let at = AT.child("template");
        pod_spec::validate_new_template(self.template, self.old, at, errors);
        self.validate_life(errors);
    }

    /// Checks the selector, and that it selects the template.
    pub fn validate_selector(&self, errors: &mut FieldErrors) {
        let at = AT.child("selector");
        check::label_selector(Some(self.selector), false, at, errors);
        let empty = self.selector.match_labels.as_ref().is_none_or(|l| l.is_empty())
            && check::list(&self.selector.match_expressions).is_empty();
        if empty {
            errors.invalid(at, self.selector, format!("empty selector is invalid for {}", self.kind));
        }
        match LabelSelector::from_object(self.selector) {
            Err(_) if self.kind == "daemonset" => {}
            Err(_) if self.kind == "statefulset" => errors.invalid(at, self.selector, ""),
            Err(_) => errors.invalid(at, self.selector, "invalid label selector"),
            Ok(parsed) => {
                let labels = self.template.metadata.as_ref().and_then(|m| m.labels.as_ref());
                if !empty && !parsed.matches_labels(labels) {
                    let template = AT.child("template");
                    let metadata = template.child("metadata");
                    let why = "`selector` does not match template `labels`";
                    errors.invalid(metadata.child("labels"), &labels, why);
                }
            }
        }
    }

    /// Pods are restarted always and have no deadline.
    pub fn validate_life(&self, errors: &mut FieldErrors) {
        let Some(spec) = &self.template.spec else { return };
        let template = AT.child("template");
        let at = template.child("spec");
        if text(&spec.restart_policy) != "Always" {
            errors.not_supported(at.child("restartPolicy"), text(&spec.restart_policy), &["Always"]);
        }
        if spec.active_deadline_seconds.is_some() {
            let why = format!("activeDeadlineSeconds in {} is not Supported", self.title);
            errors.forbidden(at.child("activeDeadlineSeconds"), &why);
        }
    }
}

/// How many pods a workload's status tells of.
pub(crate) struct Counts<'a> {
    /// All, if that bounds the others.
    pub replicas: Option<i32>,
    /// Others, by field.
    pub counts: &'a [(&'a str, Option<i32>)],
    /// A count, and another that it must not exceed, with what messages call that.
    pub least: (&'a str, Option<i32>, &'a str, Option<i32>),
    /// The generation that was seen.
    pub generation: Option<i64>,
}

/// Checks a workload's status.
pub(crate) fn validate_counts(c: Counts<'_>, errors: &mut FieldErrors) {
    let at = FieldPath::root("status");
    check::not_negative(c.replicas, at.child("replicas"), errors);
    check::not_negative(c.generation, at.child("observedGeneration"), errors);
    for (name, n) in c.counts {
        check::not_negative(*n, at.child(name), errors);
    }
    for (name, n) in c.counts.iter().filter(|(name, _)| name.ends_with("Replicas")) {
        let bounded = !matches!(*name, "unavailableReplicas" | "terminatingReplicas");
        if let (Some(n), Some(all), true) = (*n, c.replicas, bounded)
            && n > all
        {
            errors.invalid(at.child(name), &n, "cannot be greater than status.replicas");
        }
    }
    let (name, n, other, most) = c.least;
    if let Some(n) = n.filter(|n| *n > most.unwrap_or(0)) {
        errors.invalid(at.child(name), &n, format!("cannot be greater than {other}"));
    }
}

/// A count of collisions only grows.
pub(crate) fn collisions_grow(new: Option<i32>, old: Option<i32>, errors: &mut FieldErrors) {
    let at = FieldPath::root("status");
    check::not_negative(new, at.child("collisionCount"), errors);
    if old.is_some_and(|old| new.is_none_or(|new| new < old)) {
        errors.invalid(at.child("collisionCount"), &new.unwrap_or(0), "cannot be decremented");
    }
}

/// Warnings of a workload that is new, or whose template has changed.
pub(crate) fn workload_warnings(
    meta: &ObjectMeta,
    template: Option<&PodTemplateSpec>,
    old: Option<Option<&PodTemplateSpec>>,
) -> Vec<String> {
    let mut out = Vec::new();
    if old.is_none() {
        let faults = api::names::dns1123_label(text(&meta.name));
        if !faults.is_empty() {
            out.push(format!(
                "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]",
                faults.join(" ")
            ));
        }
    }
    if let Some(template) = template.filter(|t| old != Some(Some(*t))) {
        out.extend(warnings::of_template(template, AT.child("template")));
    }
    out
}

/// Says that a selector may not change.
pub(crate) fn selector_kept(new: &meta::LabelSelector, old: &meta::LabelSelector, errors: &mut FieldErrors) {
    check::immutable(new, old, AT.child("selector"), errors);
}

fn containers(template: Option<&PodTemplateSpec>) -> &[Container] {
    template.and_then(|t| t.spec.as_ref()).map_or(&[], |s| &s.containers)
}

/// The cell of container names.
pub fn names(template: Option<&PodTemplateSpec>) -> Value {
    containers(template).iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(",").into()
}

/// The cell of images.
pub fn images(template: Option<&PodTemplateSpec>) -> Value {
    containers(template).iter().map(|c| text(&c.image)).collect::<Vec<_>>().join(",").into()
}

/// A selector in its string form.
pub fn selector_text(selector: Option<&meta::LabelSelector>) -> String {
    selector.and_then(|s| LabelSelector::from_object(s).ok()).map(|s| s.to_string()).unwrap_or_default()
}

/// The cell of a selector.
pub fn selector_cell(selector: Option<&meta::LabelSelector>) -> Value {
    match selector.map(LabelSelector::from_object) {
        None => "<none>".into(),
        Some(Err(_)) => "<error>".into(),
        Some(Ok(s)) if s.is_empty() => "<none>".into(),
        Some(Ok(s)) => s.to_string().into(),
    }
}
