//! A pod that names a runtime class bears its overhead and goes where it can run.

use crate::{Plugin, Request};
use api::object::Object;
use api::quantity::Quantity;
use api::{Status, read};
use k8s_openapi::api::core::v1::{Pod, Toleration};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use std::collections::BTreeMap;

/// See the module.
pub struct RuntimeClasses;

/// Equal as amounts, however they are written.
fn same(a: &BTreeMap<String, Text>, b: &BTreeMap<String, Text>) -> bool {
    let read = |m: &BTreeMap<String, Text>| -> Vec<(String, Quantity)> {
        m.iter().map(|(k, v)| (k.clone(), Quantity::lenient(v))).collect()
    };
    read(a) == read(b)
}

impl RuntimeClasses {
    fn class(request: &Request<'_>, pod: &Pod) -> Result<Option<RuntimeClass>, Status> {
        let Some(name) = pod.spec.as_ref().and_then(|s| s.runtime_class_name.as_deref()) else {
            return Ok(None);
        };
        read::get(request.reader, "", name)
            .map(Some)
            .ok_or_else(|| request.forbidden(format!("pod rejected: RuntimeClass {name:?} not found")))
    }
}

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

impl Plugin for RuntimeClasses {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn admit(&self, request: &Request<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        if !request.creates("", "pods") {
            return Ok(());
        }
        let Some(pod) = object.and_then(|o| o.get_mut::<Pod>()) else { return Ok(()) };
        let Some(class) = Self::class(request, pod)? else { return Ok(()) };
        let Some(spec) = &mut pod.spec else { return Ok(()) };
        if let Some(overhead) = class.overhead {
            let fixed = overhead.pod_fixed.unwrap_or_default();
            if spec.overhead.as_ref().is_some_and(|o| !o.is_empty() && !same(o, &fixed)) {
                return Err(request.forbidden(MISMATCH));
            }
            spec.overhead = Some(fixed).filter(|f| !f.is_empty());
        }
        let Some(scheduling) = class.scheduling else { return Ok(()) };
        for (key, value) in scheduling.node_selector.into_iter().flatten() {
            let selector = spec.node_selector.get_or_insert_default();
            if let Some(other) = selector.get(&key).filter(|v| **v != value) {
                return Err(request.forbidden(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {other}"
                )));
            }
            selector.insert(key, value);
        }
        let all: Vec<Toleration> = spec
            .tolerations
            .take()
            .into_iter()
            .flatten()
            .chain(scheduling.tolerations.into_iter().flatten())
            .collect();
        spec.tolerations = Some(merged(all)).filter(|t| !t.is_empty());
        Ok(())
    }

    fn validate(&self, request: &Request<'_>, object: Option<&Object>) -> Result<(), Status> {
        if !request.creates("", "pods") {
            return Ok(());
        }
        let Some(pod) = object.and_then(|o| o.get::<Pod>()) else { return Ok(()) };
        let overhead = pod.spec.as_ref().and_then(|s| s.overhead.clone());
        let wanted =
            Self::class(request, pod)?.and_then(|c| c.overhead).map(|o| o.pod_fixed.unwrap_or_default());
        match (wanted, overhead) {
            (Some(wanted), given) if !same(&wanted, &given.clone().unwrap_or_default()) => {
                Err(request.forbidden(MISMATCH))
            }
            (None, Some(_)) => Err(request.forbidden(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
            )),
            _ => Ok(()),
        }
    }
}

/// Without those that another one covers.
fn merged(all: Vec<Toleration>) -> Vec<Toleration> {
    let mut kept: Vec<Toleration> = Vec::new();
    for (i, t) in all.iter().enumerate() {
        let later = all.iter().skip(i + 1).any(|other| other != t && covers(other, t));
        if !later && !kept.iter().any(|other| covers(other, t)) {
            kept.push(t.clone());
        }
    }
    kept
}

fn covers(whole: &Toleration, part: &Toleration) -> bool {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let (operator, effect) = (text(&whole.operator), text(&whole.effect));
    if whole == part {
        return true;
    }
    if part.key != whole.key && (!text(&whole.key).is_empty() || operator != "Exists") {
        return false;
    }
    if text(&part.effect) != effect && !effect.is_empty() {
        return false;
    }
    if effect == "NoExecute"
        && whole.toleration_seconds.is_some_and(|s| part.toleration_seconds.is_none_or(|p| p > s))
    {
        return false;
    }
    operator == "Exists"
        || matches!(operator.as_str(), "Equal" | "")
            && matches!(text(&part.operator).as_str(), "Equal" | "")
            && text(&part.value) == text(&whole.value)
}
