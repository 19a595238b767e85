//! Where a pod may go: affinities, tolerations, spreading.

use super::Scope;
use crate::check::{self, list, required, text};
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::api::core::v1::{
    Affinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodSchedulingGate,
    Toleration, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn affinity(scope: &Scope<'_>, a: &Affinity, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if let Some(node) = &a.node_affinity {
        let at = at.child("nodeAffinity");
        if let Some(selector) = &node.required_during_scheduling_ignored_during_execution {
            node_selector(selector, scope.lenient.node_values, at.child(REQUIRED), errors);
        }
        let preferred = at.child(PREFERRED);
        let terms = list(&node.preferred_during_scheduling_ignored_during_execution);
        for (i, term) in terms.iter().enumerate() {
            let at = preferred.index(i);
            weight(term.weight, at.child("weight"), errors);
            node_term(&term.preference, true, at.child("preference"), errors);
        }
    }
    let (near, far) = (a.pod_affinity.as_ref(), a.pod_anti_affinity.as_ref());
    let sides = [
        (
            "podAffinity",
            near.map(|a| &a.required_during_scheduling_ignored_during_execution),
            near.map(|a| &a.preferred_during_scheduling_ignored_during_execution),
        ),
        (
            "podAntiAffinity",
            far.map(|a| &a.required_during_scheduling_ignored_during_execution),
            far.map(|a| &a.preferred_during_scheduling_ignored_during_execution),
        ),
    ];
    for (name, must, may) in sides {
        let at = at.child(name);
        let path = at.child(REQUIRED);
        for (i, term) in must.map_or(&[][..], list).iter().enumerate() {
            pod_term(scope, term, path.index(i), errors);
        }
        let path = at.child(PREFERRED);
        let may: &[WeightedPodAffinityTerm] = may.map_or(&[][..], list);
        for (i, term) in may.iter().enumerate() {
            let at = path.index(i);
            weight(term.weight, at.child("weight"), errors);
            pod_term(scope, &term.pod_affinity_term, at.child("podAffinityTerm"), errors);
        }
    }
}

fn weight(weight: i32, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if !(1..=100).contains(&weight) {
        errors.invalid(at, &weight, "must be in the range 1-100");
    }
}

/// Checks which nodes are selected. `lenient` lets values through that are no labels'.
pub fn node_selector(s: &NodeSelector, lenient: bool, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let at = at.child("nodeSelectorTerms");
    if s.node_selector_terms.is_empty() {
        errors.required(at, "must have at least one node selector term");
    }
    for (i, term) in s.node_selector_terms.iter().enumerate() {
        node_term(term, lenient, at.index(i), errors);
    }
}

fn node_term(t: &NodeSelectorTerm, lenient: bool, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let path = at.child("matchExpressions");
    for (i, r) in list(&t.match_expressions).iter().enumerate() {
        node_requirement(r, lenient, path.index(i), errors);
    }
    let path = at.child("matchFields");
    for (i, r) in list(&t.match_fields).iter().enumerate() {
        node_field(r, path.index(i), errors);
    }
}

fn node_requirement(r: &NodeSelectorRequirement, lenient: bool, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let values = list(&r.values);
    let values_at = at.child("values");
    match r.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(values_at, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.forbidden(values_at, why);
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.required(values_at, why);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.invalid(at.child("operator"), &other, "not a valid selector operator"),
    }
    check::qualified(&r.key, at.child("key"), errors);
    if !lenient {
        for (i, value) in values.iter().enumerate() {
            errors.all_invalid(values_at.index(i), value, names::label_value(value));
        }
    }
}

fn node_field(r: &NodeSelectorRequirement, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let values = list(&r.values);
    match r.operator.as_str() {
        "In" | "NotIn" if values.len() != 1 => errors.required(
            at.child("values"),
            "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
        ),
        "In" | "NotIn" => {}
        other => errors.invalid(at.child("operator"), &other, "not a valid selector operator"),
    }
    if r.key != "metadata.name" {
        return errors.invalid(at.child("key"), &r.key, "not a valid field selector key");
    }
    let path = at.child("values");
    for (i, value) in values.iter().enumerate() {
        check::subdomain(value, path.index(i), errors);
    }
}

fn pod_term(scope: &Scope<'_>, t: &PodAffinityTerm, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let lenient = scope.lenient.selector_values;
    check::label_selector(t.label_selector.as_ref(), lenient, at.child("labelSelector"), errors);
    check::label_selector(t.namespace_selector.as_ref(), lenient, at.child("namespaceSelector"), errors);
    for name in list(&t.namespaces) {
        check::label(name, at.child("namespace"), errors);
    }
    let (same, other) = (list(&t.match_label_keys), list(&t.mismatch_label_keys));
    match_label_keys(same, other, t.label_selector.as_ref(), at, errors);
    if t.topology_key.is_empty() {
        errors.required(at.child("topologyKey"), "can not be empty");
    }
    check::qualified(&t.topology_key, at.child("topologyKey"), errors);
}

/// Labels whose value a pod takes from itself.
fn match_label_keys(
    same: &[String],
    other: &[String],
    selector: Option<&LabelSelector>,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    for (name, keys) in [("matchLabelKeys", same), ("mismatchLabelKeys", other)] {
        let at = at.child(name);
        if !keys.is_empty() && selector.is_none() {
            errors.forbidden(at, "must not be specified when labelSelector is not set");
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            check::qualified(key, at.index(i), errors);
        }
    }
    if let Some(selector) = selector.filter(|_| !same.is_empty()) {
        // Creation has added an expression of each key; any more of it was the client's.
        let expressions = list(&selector.match_expressions);
        for (n, e) in expressions.iter().enumerate() {
            let seen = selector.match_labels.as_ref().is_some_and(|l| l.contains_key(&e.key))
                || expressions[..n].iter().any(|before| before.key == e.key);
            if let Some(i) = same.iter().rposition(|key| *key == e.key).filter(|_| seen) {
                errors.invalid(at.index(i), &e.key, "exists in both matchLabelKeys and labelSelector");
            }
        }
    }
    let path = at.child("matchLabelKeys");
    for (i, key) in same.iter().enumerate().filter(|(_, key)| other.contains(key)) {
        errors.invalid(path.index(i), key, "exists in both matchLabelKeys and mismatchLabelKeys");
    }
}

pub(super) fn spread(
    scope: &Scope<'_>,
    constraints: &[TopologySpreadConstraint],
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    for (i, c) in constraints.iter().enumerate() {
        let at = at.index(i);
        check::positive(c.max_skew, at.child("maxSkew"), errors);
        if c.topology_key.is_empty() {
            errors.required(at.child("topologyKey"), "can not be empty");
        }
        let action = c.when_unsatisfiable.as_str();
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        check::one_of(action, &actions, at.child("whenUnsatisfiable"), errors);
        let same = |o: &TopologySpreadConstraint| {
            o.topology_key == c.topology_key && o.when_unsatisfiable == c.when_unsatisfiable
        };
        if constraints[i + 1..].iter().any(same) {
            let said = format!("{{{}, {action}}}", c.topology_key);
            errors.duplicate(at.child("{topologyKey, whenUnsatisfiable}"), &said);
        }
        if let Some(domains) = c.min_domains {
            check::positive(domains, at.child("minDomains"), errors);
            if action != "DoNotSchedule" {
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.invalid(at.child("minDomains"), &domains, why);
            }
        }
        for (name, policy) in
            [("nodeAffinityPolicy", &c.node_affinity_policy), ("nodeTaintsPolicy", &c.node_taints_policy)]
        {
            check::maybe_one_of(policy, &["Honor", "Ignore"], at.child(name), errors);
        }
        match_label_keys(list(&c.match_label_keys), &[], c.label_selector.as_ref(), at, errors);
        if !scope.lenient.spread_selectors {
            check::label_selector(c.label_selector.as_ref(), false, at.child("labelSelector"), errors);
        }
    }
}

/// Checks tolerations.
pub fn tolerations(tolerations: &[Toleration], at: FieldPath<'_>, errors: &mut FieldErrors) {
    for (i, t) in tolerations.iter().enumerate() {
        let at = at.index(i);
        let (key, operator, effect) = (text(&t.key), text(&t.operator), text(&t.effect));
        if !key.is_empty() {
            check::qualified(key, at.child("key"), errors);
        } else if operator != "Exists" {
            errors.invalid(
                at.child("operator"),
                &operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if t.toleration_seconds.is_some() && effect != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(at.child("effect"), &effect, why);
        }
        let value = text(&t.value);
        match operator {
            "Equal" | "" => {
                let faults = names::label_value(value);
                if !faults.is_empty() {
                    errors.invalid(at.child("operator"), &value, faults.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                let why = "value must be empty when `operator` is 'Exists'";
                errors.invalid(at.child("operator"), &value, why);
            }
            "Exists" => {}
            // Comparisons are behind a gate that is off by default.
            "Lt" | "Gt" => {
                errors.not_supported(at.child("operator"), operator, &["Equal", "Exists", "Lt", "Gt"]);
            }
            other => errors.not_supported(at.child("operator"), other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            taint_effect(effect, at.child("effect"), errors);
        }
    }
}

/// What a taint does.
pub fn taint_effect(effect: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    check::one_of(effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"], at, errors);
}

pub(super) fn gates(gates: &[PodSchedulingGate], at: FieldPath<'_>, errors: &mut FieldErrors) {
    for (i, gate) in gates.iter().enumerate() {
        check::qualified(&gate.name, at.index(i), errors);
        if gates[..i].iter().any(|other| other.name == gate.name) {
            errors.duplicate(at.index(i), &gate.name);
        }
    }
}

/// An empty name is said to be missing.
pub fn required_effect(effect: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if !required(effect, at, errors) {
        taint_effect(effect, at, errors);
    }
}
