//! What may change of a pod.

use crate::check::{self, list, text};
use crate::core::pod_spec::{self, Lenient, MIRROR, scheduling, security};
use crate::diff;
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::core::v1::{
    Affinity, Container, NodeAffinity, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

const CHANGEABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const AT: FieldPath<'static> = FieldPath::root("spec");

/// Checks the spec of a pod that is there: what the old one has is let through.
pub(super) fn spec(new: &Pod, old: &Pod, errors: &mut FieldErrors) {
    let none = PodSpec::default();
    let (spec, before) = (new.spec.as_ref().unwrap_or(&none), errors.len());
    pod_spec::validate_pod(&new.metadata, spec, Lenient::POD, errors);
    if errors.len() > before
        && let Some(old_spec) = &old.spec
    {
        errors.truncate(before);
        let lenient = Lenient::POD.towards(old_spec, old.metadata.annotations.as_ref());
        pod_spec::validate_pod(&new.metadata, spec, lenient, errors);
    }
}

/// Annotations of which a pod's life depends stay as they are.
pub(super) fn annotations(new: &ObjectMeta, old: &ObjectMeta, errors: &mut FieldErrors) {
    let metadata = FieldPath::root("metadata");
    let at = metadata.child("annotations");
    let said = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        key if security::is_app_armor_annotation(key) => Some("AppArmor annotations"),
        _ => None,
    };
    for (key, value) in old.annotations.iter().flatten() {
        if let Some(what) = said(key)
            && new.annotations.as_ref().and_then(|a| a.get(key)) != Some(value)
        {
            errors.forbidden(at.key(key), &format!("may not remove or update {what}"));
        }
    }
    for key in new.annotations.iter().flatten().map(|(key, _)| key) {
        if let Some(what) = said(key)
            && !old.annotations.as_ref().is_some_and(|a| a.contains_key(key))
        {
            errors.forbidden(at.key(key), &format!("may not add {what}"));
        }
    }
}

pub(super) fn validate(new: &Pod, old: &Pod, errors: &mut FieldErrors) {
    spec(new, old, errors);
    annotations(&new.metadata, &old.metadata, errors);
    let none = PodSpec::default();
    let (new, old) = (new.spec.as_ref().unwrap_or(&none), old.spec.as_ref().unwrap_or(&none));
    for (name, new, old) in [
        ("containers", &new.containers[..], &old.containers[..]),
        ("initContainers", list(&new.init_containers), list(&old.init_containers)),
    ] {
        if new.len() != old.len() {
            let why = "pod updates may not add or remove containers";
            return errors.forbidden(AT.child(name), why);
        }
    }
    let deadline = AT.child("activeDeadlineSeconds");
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(n), _) if !(0..=i64::from(i32::MAX)).contains(&n) => {
            return check::in_range(n, 0, i32::MAX.into(), deadline, errors);
        }
        (Some(n), Some(o)) if n > o => {
            return errors.invalid(deadline, &n, "must be less than or equal to previous value");
        }
        (None, Some(_)) => {
            let why = "must not update from a positive integer to nil value";
            errors.invalid(deadline, &None::<i64>, why);
        }
        _ => {}
    }
    only_added(list(&new.tolerations), list(&old.tolerations), AT.child("tolerations"), errors);
    let gates = AT.child("schedulingGates");
    for (i, gate) in list(&new.scheduling_gates).iter().enumerate() {
        if !list(&old.scheduling_gates).contains(gate) {
            let gate_at = gates.index(i);
            let why = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            errors.forbidden(gate_at.child("name"), &why);
        }
    }
    if new == old {
        return;
    }
    let mut allowed = new.clone();
    let inits = allowed.init_containers.as_deref_mut().unwrap_or_default();
    keep_images(inits, list(&old.init_containers));
    keep_images(&mut allowed.containers, &old.containers);
    allowed.active_deadline_seconds = old.active_deadline_seconds;
    allowed.scheduling_gates.clone_from(&old.scheduling_gates);
    allowed.tolerations.clone_from(&old.tolerations);
    let grace = &mut allowed.termination_grace_period_seconds;
    if *grace == Some(1) && old.termination_grace_period_seconds.is_some_and(|s| s < 0) {
        *grace = old.termination_grace_period_seconds;
    }
    if !list(&old.scheduling_gates).is_empty() {
        gated(&mut allowed, old, errors);
    }
    if normal(&allowed) != normal(old) {
        errors.forbidden(AT, &format!("{CHANGEABLE}\n{}", diff::of(old, &allowed)));
    }
}

/// A spec without what is there and empty, which is the same as what is not there.
fn normal(spec: &PodSpec) -> serde_json::Value {
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    super::drop_empty(&mut value);
    value
}

fn keep_images(new: &mut [Container], old: &[Container]) {
    for (new, old) in new.iter_mut().zip(old) {
        new.image.clone_from(&old.image);
    }
}

/// Tolerations may be added; of those there are, only the seconds may change.
fn only_added(new: &[Toleration], old: &[Toleration], at: FieldPath<'_>, errors: &mut FieldErrors) {
    let same = |a: &Toleration, b: &Toleration| {
        text(&a.key) == text(&b.key)
            && text(&a.operator) == text(&b.operator)
            && text(&a.value) == text(&b.value)
            && text(&a.effect) == text(&b.effect)
    };
    if old.iter().any(|o| !new.iter().any(|n| same(n, o))) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        return errors.forbidden(at, why);
    }
    if new != old {
        let before = errors.len();
        scheduling::tolerations(new, at, errors);
        // The whole spec has been checked before.
        errors.truncate(before);
    }
}

/// Before a pod is placed, the nodes it may go to may be narrowed.
fn gated(allowed: &mut PodSpec, old: &PodSpec, errors: &mut FieldErrors) {
    if allowed.node_selector != old.node_selector {
        let has = |key: &String| allowed.node_selector.as_ref().and_then(|s| s.get(key));
        if old.node_selector.iter().flatten().any(|(k, v)| has(k) != Some(v)) {
            let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            errors.invalid(AT.child("nodeSelector"), &allowed.node_selector, why);
        }
        allowed.node_selector.clone_from(&old.node_selector);
    }
    let of = |a: Option<&Affinity>| a.and_then(|a| a.node_affinity.clone());
    let (new_affinity, old_affinity) = (of(allowed.affinity.as_ref()), of(old.affinity.as_ref()));
    if new_affinity == old_affinity {
        return;
    }
    node_affinity(new_affinity.as_ref(), old_affinity.as_ref(), errors);
    match &mut allowed.affinity {
        None => allowed.affinity = Some(Affinity { node_affinity: old_affinity, ..Affinity::default() }),
        Some(a) if old.affinity.is_none() && a.pod_affinity.is_none() && a.pod_anti_affinity.is_none() => {
            allowed.affinity = None;
        }
        Some(a) => a.node_affinity = old_affinity,
    }
}

fn node_affinity(new: Option<&NodeAffinity>, old: Option<&NodeAffinity>, errors: &mut FieldErrors) {
    let terms = |a: Option<&NodeAffinity>| -> Vec<NodeSelectorTerm> {
        let selector = a.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        selector.map(|s| s.node_selector_terms.clone()).unwrap_or_default()
    };
    let (new, old) = (terms(new), terms(old));
    let affinity = AT.child("affinity");
    let node = affinity.child("nodeAffinity");
    let required = node.child("requiredDuringSchedulingIgnoredDuringExecution");
    let at = required.child("nodeSelectorTerms");
    if !old.is_empty() && old.len() != new.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return errors.invalid(at, &new, why);
    }
    for (i, (new, old)) in new.iter().zip(&old).enumerate() {
        let (expressions, fields) = (list(&old.match_expressions), list(&old.match_fields));
        let empty = |e: &[_], f: &[_]| e.is_empty() && f.is_empty();
        let narrower = list(&new.match_expressions).starts_with(expressions)
            && list(&new.match_fields).starts_with(fields)
            && (!empty(expressions, fields) || empty(list(&new.match_expressions), list(&new.match_fields)));
        if !narrower {
            errors.invalid(at.index(i), new, "only additions are allowed (no mutations or deletions)");
        }
    }
}

pub(super) fn validate_ephemeral_containers(new: &Pod, old: &Pod, errors: &mut FieldErrors) {
    if old.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR)) {
        return errors.forbidden(FieldPath::root(""), "static pods do not support ephemeral containers");
    }
    spec(new, old, errors);
    let none = PodSpec::default();
    let (new, old) = (new.spec.as_ref().unwrap_or(&none), old.spec.as_ref().unwrap_or(&none));
    let at = AT.child("ephemeralContainers");
    for before in list(&old.ephemeral_containers) {
        match list(&new.ephemeral_containers).iter().rfind(|c| c.name == before.name) {
            None => {
                let why = format!("existing ephemeral containers {:?} may not be removed\n", before.name);
                errors.forbidden(at, &why);
            }
            Some(now) if now != before => {
                let changes = diff::of(before, now);
                let why =
                    format!("existing ephemeral containers {:?} may not be changed\n{changes}", before.name);
                errors.forbidden(at, &why);
            }
            Some(_) => {}
        }
    }
}
