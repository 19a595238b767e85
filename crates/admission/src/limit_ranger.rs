//! What a namespace's LimitRanges say: containers get default requests and limits, and pods and claims that
//! want less or more than they may are refused.

use crate::{Operation, Plugin, Request};
use api::object::Object;
use api::pod_resources::{self, Amounts, container_limits, container_requests};
use api::quantity::Quantity;
use api::{Status, read};
use k8s_openapi::api::core::v1::{Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use std::collections::BTreeMap;

/// See the module.
pub struct LimitRanger;

/// Says on a pod what was set.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

fn limits(request: &Request<'_>) -> Vec<LimitRangeItem> {
    let ranges: Vec<LimitRange> = read::list(request.reader, Some(request.namespace));
    ranges.into_iter().filter_map(|r| r.spec).flat_map(|s| s.limits).collect()
}

/// What is made; a pod's resize; and a claim's update. What is being deleted is let be.
fn concerns(request: &Request<'_>) -> bool {
    let at = (request.resource.group.as_str(), request.resource.resource.as_str(), request.subresource);
    let (made, changed) = (request.operation == Operation::Create, request.operation == Operation::Update);
    let asked = match at {
        ("", "pods", "") => made,
        ("", "pods", "resize") => changed,
        ("", "persistentvolumeclaims", "") => made || changed,
        _ => false,
    };
    asked && request.old.is_none_or(|o| o.meta().deletion_timestamp.is_none())
}

impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn admit(&self, request: &Request<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        if !concerns(request) {
            return Ok(());
        }
        if let Some(pod) = object.and_then(|o| o.get_mut::<Pod>()) {
            let ranges: Vec<LimitRange> = read::list(request.reader, Some(request.namespace));
            for range in ranges.into_iter().filter_map(|r| r.spec) {
                set_defaults(pod, &range.limits);
            }
        }
        Ok(())
    }

    fn validate(&self, request: &Request<'_>, object: Option<&Object>) -> Result<(), Status> {
        if !concerns(request) {
            return Ok(());
        }
        let Some(object) = object else { return Ok(()) };
        let limits = limits(request);
        let faults = if let Some(pod) = object.get::<Pod>() {
            faults_of_pod(pod, &limits)
        } else if let Some(claim) = object.get::<PersistentVolumeClaim>() {
            faults_of_claim(claim, &limits)
        } else {
            return Ok(());
        };
        match faults.as_slice() {
            [] => Ok(()),
            [one] => Err(request.forbidden(one)),
            all => Err(request.forbidden(format!("[{}]", all.join(", ")))),
        }
    }
}

fn set_defaults(pod: &mut Pod, limits: &[LimitRangeItem]) {
    let Some(spec) = &mut pod.spec else { return };
    let defaults = |of: fn(&LimitRangeItem) -> &Option<BTreeMap<String, Text>>| -> BTreeMap<String, Text> {
        let items = limits.iter().filter(|l| l.type_ == "Container");
        items.flat_map(|l| of(l).clone().into_iter().flatten()).collect()
    };
    let (requests, maxima) = (defaults(|l| &l.default_request), defaults(|l| &l.default));
    let mut said = Vec::new();
    let mut fill = |c: &mut Container, what: &str| {
        let resources = c.resources.get_or_insert_default();
        for (kind, list, defaults) in
            [("request", &mut resources.requests, &requests), ("limit", &mut resources.limits, &maxima)]
        {
            let have = list.get_or_insert_default();
            let mut set = Vec::new();
            for (name, amount) in defaults {
                if !have.contains_key(name) {
                    have.insert(name.clone(), amount.clone());
                    set.push(name.as_str());
                }
            }
            if !set.is_empty() {
                said.push(format!("{} {kind} for {what} {}", set.join(", "), c.name));
            }
            if have.is_empty() {
                *list = None;
            }
        }
    };
    spec.containers.iter_mut().for_each(|c| fill(c, "container"));
    spec.init_containers.iter_mut().flatten().for_each(|c| fill(c, "init container"));
    if !said.is_empty() {
        let text = format!("LimitRanger plugin set: {}", said.join("; "));
        pod.metadata.annotations.get_or_insert_default().insert(ANNOTATION.into(), text);
    }
}

fn faults_of_pod(pod: &Pod, limits: &[LimitRangeItem]) -> Vec<String> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let mut faults = Vec::new();
    for limit in limits {
        match limit.type_.as_str() {
            "Container" => {
                for c in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                    check(limit, &container_requests(c), &container_limits(c), &mut faults);
                }
            }
            "Pod" => check(limit, &pod_resources::requests(spec), &pod_resources::limits(spec), &mut faults),
            _ => {}
        }
    }
    faults
}

fn faults_of_claim(claim: &PersistentVolumeClaim, limits: &[LimitRangeItem]) -> Vec<String> {
    let resources = claim.spec.as_ref().and_then(|s| s.resources.as_ref());
    let asked = pod_resources::read(resources.and_then(|r| r.requests.as_ref()));
    let mut faults = Vec::new();
    for limit in limits.iter().filter(|l| l.type_ == "PersistentVolumeClaim") {
        let kind = &limit.type_;
        for (name, min) in pod_resources::read(limit.min.as_ref()) {
            faults.extend(below(kind, &name, min, asked.get(&name), None));
        }
        for (name, max) in pod_resources::read(limit.max.as_ref()) {
            let head = format!("maximum {name} usage per {kind} is {max}");
            match asked.get(&name) {
                None => faults.push(format!("{head}.  No request is specified")),
                Some(v) if *v > max => faults.push(format!("{head}, but request is {v}")),
                Some(_) => {}
            }
        }
    }
    faults
}

fn check(limit: &LimitRangeItem, requests: &Amounts, limits: &Amounts, faults: &mut Vec<String>) {
    let kind = &limit.type_;
    for (name, min) in pod_resources::read(limit.min.as_ref()) {
        faults.extend(below(kind, &name, min, requests.get(&name), limits.get(&name)));
    }
    for (name, max) in pod_resources::read(limit.max.as_ref()) {
        let head = format!("maximum {name} usage per {kind} is {max}");
        match (requests.get(&name), limits.get(&name)) {
            (_, None) => faults.push(format!("{head}.  No limit is specified")),
            (_, Some(l)) if *l > max => faults.push(format!("{head}, but limit is {l}")),
            (Some(r), _) if *r > max => faults.push(format!("{head}, but request is {r}")),
            _ => {}
        }
    }
    for (name, ratio) in pod_resources::read(limit.max_limit_request_ratio.as_ref()) {
        let head = format!("{name} max limit to request ratio per {kind} is {ratio}");
        let some = |v: Option<&Quantity>| v.copied().filter(|v| !v.is_zero());
        match (some(requests.get(&name)), some(limits.get(&name))) {
            (None, _) => faults.push(format!("{head}, but no request is specified or request is 0")),
            (_, None) => faults.push(format!("{head}, but no limit is specified or limit is 0")),
            (Some(r), Some(l)) => {
                let provided = l.as_f64() / r.as_f64();
                if provided > ratio.as_f64() {
                    faults.push(format!("{head}, but provided ratio is {provided:.6}"));
                }
            }
        }
    }
}

fn below(
    kind: &str,
    name: &str,
    min: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let head = format!("minimum {name} usage per {kind} is {min}");
    match (request, limit) {
        (None, _) => Some(format!("{head}.  No request is specified")),
        (Some(r), _) if *r < min => Some(format!("{head}, but request is {r}")),
        (_, Some(l)) if *l < min => Some(format!("{head}, but limit is {l}")),
        _ => None,
    }
}
