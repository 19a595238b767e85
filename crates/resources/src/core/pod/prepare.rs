//! What is set and dropped before a pod is checked: upstream's strategies of Pod and its subresources.

use crate::Context;
use crate::check::{list, text};
use crate::core::pod_spec;
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodAffinityTerm, PodCondition, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, Time};
use std::collections::BTreeMap;

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

pub(super) fn create(p: &mut Pod, context: &Context<'_>) {
    let qos = pod_spec::qos_class(p.spec.as_ref());
    drop_disabled(p.spec.as_mut(), None);
    let mut status =
        PodStatus { phase: Some("Pending".into()), qos_class: Some(qos.into()), ..PodStatus::default() };
    if let Some(spec) = &mut p.spec {
        if !list(&spec.scheduling_gates).is_empty() {
            status.conditions = Some(vec![PodCondition {
                type_: "PodScheduled".into(),
                status: "False".into(),
                reason: Some("SchedulingGated".into()),
                message: Some("Scheduling is blocked due to non-empty scheduling gates".into()),
                last_transition_time: Some(Time(whole_second(context.now))),
                ..PodCondition::default()
            }]);
        }
        own_labels(spec, p.metadata.labels.as_ref());
        app_armor(spec, p.metadata.annotations.as_ref());
    }
    p.status = Some(status);
}

fn whole_second(now: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Drops what is behind gates that are off by default, unless an older spec has it.
pub(crate) fn drop_disabled(spec: Option<&mut PodSpec>, old: Option<&PodSpec>) {
    let Some(spec) = spec else { return };
    if old.is_none_or(|o| o.scheduling_group.is_none()) {
        spec.scheduling_group = None;
    }
    let signals = |c: &Container| c.lifecycle.as_ref().is_some_and(|l| l.stop_signal.is_some());
    let containers = |s: &PodSpec| s.containers.iter().chain(list(&s.init_containers)).any(signals);
    if !old.is_some_and(containers) {
        for c in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            let Some(lifecycle) = c.lifecycle.as_mut().filter(|l| l.stop_signal.is_some()) else { continue };
            lifecycle.stop_signal = None;
            if lifecycle.pre_stop.is_none() && lifecycle.post_start.is_none() {
                c.lifecycle = None;
            }
        }
    }
    let sources = |s: &PodSpec| {
        let all = list(&s.volumes).iter().filter_map(|v| v.projected.as_ref()).flat_map(|p| list(&p.sources));
        let (mut bundle, mut certificate) = (false, false);
        for source in all {
            bundle |= source.cluster_trust_bundle.is_some();
            certificate |= source.pod_certificate.is_some();
        }
        (bundle, certificate)
    };
    let (bundles, certificates) = old.map_or((false, false), sources);
    for projected in spec.volumes.iter_mut().flatten().filter_map(|v| v.projected.as_mut()) {
        for source in projected.sources.iter_mut().flatten() {
            if !bundles {
                source.cluster_trust_bundle = None;
            }
            if !certificates {
                source.pod_certificate = None;
            }
        }
    }
}

/// Puts the pod's own values of labels into the selectors that name those labels.
fn own_labels(spec: &mut PodSpec, labels: Option<&BTreeMap<String, String>>) {
    let term = |t: &mut PodAffinityTerm| {
        let (same, other) = (&t.match_label_keys, &t.mismatch_label_keys);
        add(t.label_selector.as_mut(), list(same), "In", labels);
        add(t.label_selector.as_mut(), list(other), "NotIn", labels);
    };
    if let Some(affinity) = &mut spec.affinity {
        if let Some(a) = &mut affinity.pod_affinity {
            let weighted = a.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten();
            weighted.map(|w| &mut w.pod_affinity_term).for_each(term);
            a.required_during_scheduling_ignored_during_execution.iter_mut().flatten().for_each(term);
        }
        if let Some(a) = &mut affinity.pod_anti_affinity {
            let weighted = a.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten();
            weighted.map(|w| &mut w.pod_affinity_term).for_each(term);
            a.required_during_scheduling_ignored_during_execution.iter_mut().flatten().for_each(term);
        }
    }
    for c in spec.topology_spread_constraints.iter_mut().flatten() {
        add(c.label_selector.as_mut(), list(&c.match_label_keys), "In", labels);
    }
}

fn add(
    selector: Option<&mut LabelSelector>,
    keys: &[String],
    operator: &str,
    labels: Option<&BTreeMap<String, String>>,
) {
    let Some(selector) = selector else { return };
    for key in keys {
        if let Some(value) = labels.and_then(|l| l.get(key)) {
            selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
                key: key.clone(),
                operator: operator.into(),
                values: Some(vec![value.clone()]),
            });
        }
    }
}

/// Turns annotations of the older form into fields.
fn app_armor(spec: &mut PodSpec, annotations: Option<&BTreeMap<String, String>>) {
    let Some(annotations) = annotations.filter(|a| a.keys().any(|k| k.starts_with(APP_ARMOR))) else {
        return;
    };
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return;
    }
    let pod = spec.security_context.as_ref().and_then(|s| s.app_armor_profile.clone());
    for c in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        if c.security_context.as_ref().is_some_and(|s| s.app_armor_profile.is_some()) {
            continue;
        }
        let profile = annotations.get(&format!("{APP_ARMOR}{}", c.name)).and_then(|a| app_armor_profile(a));
        if let Some(profile) = profile.filter(|p| pod.as_ref() != Some(p)) {
            c.security_context.get_or_insert_default().app_armor_profile = Some(profile);
        }
    }
}

fn app_armor_profile(annotation: &str) -> Option<AppArmorProfile> {
    let kind = |kind: &str| Some(AppArmorProfile { type_: kind.into(), localhost_profile: None });
    match annotation {
        "unconfined" => kind("Unconfined"),
        "runtime/default" => kind("RuntimeDefault"),
        other => {
            let path = other.strip_prefix("localhost/").filter(|p| !p.is_empty() && p.trim() == *p)?;
            Some(AppArmorProfile { type_: "Localhost".into(), localhost_profile: Some(path.into()) })
        }
    }
}

/// A status without a class of service or generations keeps those it had.
pub(super) fn status(new: &mut Pod, old: &Pod, _: &Context<'_>) {
    let (Some(new), Some(old)) = (&mut new.status, &old.status) else { return };
    if text(&new.qos_class).is_empty() {
        new.qos_class.clone_from(&old.qos_class);
    }
    if new.observed_generation.unwrap_or(0) == 0 {
        new.observed_generation = old.observed_generation;
    }
    let conditions = new.conditions.as_deref_mut().unwrap_or_default();
    for i in 0..conditions.len() {
        let (before, rest) = conditions.split_at_mut(i);
        let Some(condition) = rest.first_mut() else { continue };
        // A type may stand more than once; the first goes with the first.
        let n = before.iter().filter(|c| c.type_ == condition.type_).count();
        let same = list(&old.conditions).iter().filter(|c| c.type_ == condition.type_).nth(n);
        if condition.observed_generation.unwrap_or(0) == 0 {
            condition.observed_generation = same.and_then(|c| c.observed_generation);
        }
    }
}

/// Takes over all of the old pod but what `part` changes.
fn keep(new: &mut Pod, old: &Pod, part: impl FnOnce(&mut PodSpec, PodSpec)) {
    let asked = new.spec.take().unwrap_or_default();
    let version = new.metadata.resource_version.take();
    let mut kept = old.clone();
    kept.metadata.resource_version = version;
    part(kept.spec.get_or_insert_default(), asked);
    *new = kept;
}

pub(super) fn ephemeral_containers(new: &mut Pod, old: &Pod, _: &Context<'_>) {
    keep(new, old, |kept, asked| kept.ephemeral_containers = asked.ephemeral_containers);
    if let Some(spec) = &mut new.spec {
        pod_spec::default(spec, true);
    }
}

pub(super) fn resize(new: &mut Pod, old: &Pod, _: &Context<'_>) {
    let none = PodSpec::default();
    let (asked, had) = (new.spec.as_ref().unwrap_or(&none), old.spec.as_ref().unwrap_or(&none));
    let (inits, old_inits) = (list(&asked.init_containers), list(&had.init_containers));
    // Containers that come or go are for validation to refuse.
    if asked.containers.len() != had.containers.len() || inits.len() != old_inits.len() {
        return;
    }
    keep(new, old, |kept, asked| {
        kept.resources = asked.resources;
        merge(&mut kept.containers, asked.containers);
        if let (Some(kept), Some(asked)) = (&mut kept.init_containers, asked.init_containers) {
            merge(kept, asked);
        }
    });
}

fn merge(kept: &mut Vec<Container>, asked: Vec<Container>) {
    if kept.iter().zip(&asked).any(|(k, a)| k.name != a.name) {
        *kept = asked;
        return;
    }
    for (kept, asked) in kept.iter_mut().zip(asked) {
        kept.resources = asked.resources;
        kept.resize_policy = asked.resize_policy;
    }
}
