//! What containers and pods ask for: names of resources, requests and limits, classes of service.

use super::{Scope, containers};
use crate::check::{self, amount, list};
use api::field::{FieldErrors, FieldFault, FieldPath, quoted};
use api::names;
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{PodSpec, ResourceClaim, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use std::collections::BTreeMap;

/// Amounts by the resource's name.
pub type Amounts = BTreeMap<String, Text>;

/// Names without a domain that quotas count, besides those of huge pages.
const QUOTA: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
/// Names of what is counted in whole numbers.
const COUNTED: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Whether it is memory in huge pages.
pub fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether a quota knows the name, which has no domain.
pub fn is_quota_name(name: &str) -> bool {
    QUOTA.contains(&name) || is_huge_page(name) || name.starts_with("requests.hugepages-")
}

/// Whether the name is the project's own.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether it is a resource that someone else defines, such as `example.com/gpu`.
pub fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && name.split_once('/').is_some_and(|(domain, _)| domain.len() + "requests.".len() <= 253)
        && names::qualified_name(name).is_empty()
}

/// Whether more of it may be allowed than is asked for.
pub fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// A name is known or has a domain. Answers whether it is well formed.
pub fn name(name: &str, at: FieldPath<'_>, errors: &mut FieldErrors) -> bool {
    let faults = names::qualified_name(name);
    let fits = faults.is_empty();
    errors.all_invalid(at, name, faults);
    if fits && !name.contains('/') && !is_quota_name(name) && name != "storage" {
        errors.invalid(at, &name, "must be a standard resource type or fully qualified");
        return false;
    }
    fits
}

/// A name of what a container may ask for.
pub fn container_name(value: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    name(value, at, errors);
    if !value.contains('/') {
        if !matches!(value, "cpu" | "memory" | "ephemeral-storage") && !is_huge_page(value) {
            errors.invalid(at, &value, "must be a standard resource for containers");
        }
    } else if !is_native(value) && !is_extended(value) {
        errors.invalid(at, &value, "doesn't follow extended resource name standard");
    }
}

/// A name of what a pod as a whole may ask for.
fn pod_name(value: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if name(value, at, errors) && !is_pod_level(value) {
        errors.not_supported(at, value, &["cpu", "hugepages-", "memory"]);
    }
}

fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_page(name)
}

/// An amount is not negative, and whole where it is counted.
pub fn quantity(name: &str, value: &Text, at: FieldPath<'_>, errors: &mut FieldErrors) {
    check::not_negative_amount(value, at, errors);
    let counted = COUNTED.contains(&name) || is_extended(name);
    if counted && amount(value).milli_value() % 1000 != 0 {
        errors.invalid(at, &value.0, "must be an integer");
    }
}

fn huge_pages(name: &str, value: &Text, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let size = name.strip_prefix("hugepages-").and_then(|s| s.parse::<Quantity>().ok());
    let fits = size.is_some_and(|s| {
        s.sign() > 0 && s.is_integer() && amount(value).value().checked_rem(s.value()) == Some(0)
    });
    if !fits {
        let value = amount(value).to_string();
        errors.invalid(at, &value, format!("{value} is not positive integer multiple of {name}"));
    }
}

/// Checks requests and limits. Without a scope nothing is known of the pod's claims.
pub fn validate(
    r: &ResourceRequirements,
    name_rule: fn(&str, FieldPath<'_>, &mut FieldErrors),
    scope: Option<&Scope<'_>>,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    let lenient = scope.is_some_and(|s| s.lenient.huge_pages);
    let (limits_at, requests_at) = (at.child("limits"), at.child("requests"));
    let (mut huge, mut basic) = (false, false);
    for (path, amounts) in [(&limits_at, &r.limits), (&requests_at, &r.requests)] {
        for (name, value) in amounts.iter().flatten() {
            let at = path.key(name);
            name_rule(name, at, errors);
            quantity(name, value, at, errors);
            if is_huge_page(name) {
                huge = true;
                if !lenient {
                    huge_pages(name, value, at, errors);
                }
            }
            basic |= matches!(name.as_str(), "cpu" | "memory");
        }
    }
    for (name, text) in r.requests.iter().flatten() {
        let request = amount(text);
        match r.limits.as_ref().and_then(|l| l.get(name)).map(amount) {
            Some(limit) if request != limit && !may_overcommit(name) => {
                let why = format!("must be equal to {name} limit of {limit}");
                errors.invalid(requests_at, &request.to_string(), why);
            }
            Some(limit) if request > limit => {
                let why = format!("must be less than or equal to {name} limit of {limit}");
                errors.invalid(requests_at, &request.to_string(), why);
            }
            Some(_) => {}
            None if may_overcommit(name) => {}
            None => errors.required(limits_at, "Limit must be set for non overcommitable resources"),
        }
    }
    if huge && !basic {
        errors.forbidden(at, "HugePages require cpu or memory");
    }
    claims(list(&r.claims), scope.map(|s| s.spec), at.child("claims"), errors);
}

/// Claims that a container names must be the pod's.
fn claims(claims: &[ResourceClaim], spec: Option<&PodSpec>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    for (i, claim) in claims.iter().enumerate() {
        let at = at.index(i);
        if check::required(&claim.name, at, errors) {
            continue;
        }
        let request = check::text(&claim.request);
        let same = || claims[..i].iter().filter(|c| c.name == claim.name);
        if same().any(|c| check::text(&c.request).is_empty()) {
            errors.duplicate(at, &claim.name);
        } else {
            if !request.is_empty() {
                check::label(request, at.child("request"), errors);
            }
            if request.is_empty() && same().next().is_some() {
                errors.duplicate(at, &claim.name);
            } else if same().any(|c| check::text(&c.request) == request) {
                errors.duplicate(at, &format!("{}/{request}", claim.name));
            }
        }
        let mut known: Vec<&str> = spec
            .iter()
            .flat_map(|s| list(&s.resource_claims))
            .map(|c| c.name.as_str())
            .filter(|n| !n.is_empty())
            .collect();
        if !known.contains(&claim.name.as_str()) {
            known.sort_unstable();
            let rest = match known.is_empty() {
                true => " which is empty".to_string(),
                false => format!(": {}", known.join(", ")),
            };
            let why = format!("must be one of the names in pod.spec.resourceClaims{rest}");
            errors.push(at, FieldFault::NotFound(format!("{}: {why}", quoted(&claim.name))));
        }
    }
}

/// Checks what the pod as a whole asks for.
pub(super) fn validate_pod(scope: &Scope<'_>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let spec = scope.spec;
    let Some(r) = &spec.resources else { return };
    let at = at.child("resources");
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return errors.forbidden(at, "may not be set for a windows pod");
    }
    if r.claims.is_some() {
        errors.forbidden(at.child("claims"), "claims may not be set for Resources at pod-level");
    }
    validate(r, pod_name, Some(scope), at, errors);
    let requests = at.child("requests");
    for (name, asked) in total(spec, |r| r.requests.as_ref()) {
        if let Some(own) = r.requests.as_ref().and_then(|r| r.get(name)).map(amount)
            && asked > own
        {
            let why = format!("must be greater than or equal to aggregate container requests of {asked}");
            errors.invalid(requests.key(name), &own.to_string(), why);
        }
    }
    let limits = at.child("limits");
    for (name, asked) in total(spec, |r| r.limits.as_ref()).into_iter().filter(|(n, _)| is_huge_page(n)) {
        if let Some(own) = r.limits.as_ref().and_then(|r| r.get(name)).map(amount)
            && asked > own
        {
            let why = format!("must be greater than or equal to aggregate container limits of {asked}");
            errors.invalid(limits.key(name), &own.to_string(), why);
        }
    }
    let containers = at.child("containers");
    for (i, c) in spec.containers.iter().enumerate() {
        let at = containers.index(i);
        for (name, limit) in c.resources.iter().flat_map(|r| r.limits.iter().flatten()) {
            let (limit, own) = (amount(limit), r.limits.as_ref().and_then(|l| l.get(name)).map(amount));
            if let Some(own) = own.filter(|own| limit > *own) {
                let key = at.key(name);
                let why = format!("must be less than or equal to pod limits of {own}");
                errors.invalid(key.child("limits"), &limit.to_string(), why);
            }
        }
    }
}

/// What the containers ask for together: the sum of those that go on, or more while an init container runs.
pub fn total<'a>(
    spec: &'a PodSpec,
    of: impl Fn(&'a ResourceRequirements) -> Option<&'a Amounts>,
) -> BTreeMap<&'a str, Quantity> {
    let add = |sum: &mut BTreeMap<&'a str, Quantity>, more: Option<&'a Amounts>| {
        for (name, value) in more.into_iter().flatten() {
            *sum.entry(name).or_default() += amount(value);
        }
    };
    let (mut sum, mut sidecars, mut most) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for c in &spec.containers {
        add(&mut sum, c.resources.as_ref().and_then(&of));
    }
    for c in list(&spec.init_containers) {
        let own = c.resources.as_ref().and_then(&of);
        let mut meanwhile = sidecars.clone();
        add(&mut meanwhile, own);
        if containers::is_sidecar(c) {
            add(&mut sum, own);
            sidecars.clone_from(&meanwhile);
        }
        for (name, value) in meanwhile {
            let most: &mut Quantity = most.entry(name).or_default();
            *most = (*most).max(value);
        }
    }
    for (name, value) in most {
        let sum = sum.entry(name).or_default();
        if value > *sum {
            *sum = value;
        }
    }
    sum
}

/// Sets what a pod as a whole asks for, where that is left to its containers.
pub(super) fn default_pod(spec: &mut PodSpec) {
    let Some(r) = &spec.resources else { return };
    let none = |a: &Option<Amounts>| a.as_ref().is_none_or(|a| a.is_empty());
    if none(&r.limits) && none(&r.requests) {
        return;
    }
    let has = |a: &Option<Amounts>, name: &str| a.as_ref().is_some_and(|a| a.contains_key(name));
    let text = |(name, value): (&str, Quantity)| (name.to_string(), value.to_text());
    let pages: Vec<_> = total(spec, |r| r.limits.as_ref())
        .into_iter()
        .filter(|(n, _)| is_huge_page(n) && !has(&r.requests, n) && !has(&r.limits, n))
        .map(text)
        .collect();
    let mut limits = r.limits.clone().unwrap_or_default();
    limits.extend(pages);
    let mut requests = r.requests.clone().unwrap_or_default();
    if !limits.is_empty() {
        for (name, value) in total(spec, |r| r.requests.as_ref()) {
            if is_pod_level(name) && may_overcommit(name) && !requests.contains_key(name) {
                requests.insert(name.into(), value.to_text());
            }
        }
        for (name, value) in limits.iter().filter(|(n, _)| is_pod_level(n)) {
            requests.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    if let Some(r) = &mut spec.resources {
        r.limits = Some(limits).filter(|l| !l.is_empty());
        r.requests = Some(requests).filter(|r| !r.is_empty());
    }
}

/// The quality of service class: Guaranteed, Burstable or BestEffort.
pub fn qos_class(spec: Option<&PodSpec>) -> &'static str {
    let Some(spec) = spec else { return "BestEffort" };
    let own = spec.resources.as_ref();
    let of_containers =
        spec.containers.iter().chain(list(&spec.init_containers)).map(|c| c.resources.as_ref());
    let mut all = own.map(Some).into_iter().chain(of_containers.filter(|_| own.is_none()));
    // Sums of requests and limits, of processors and of memory.
    let (mut requests, mut limits) = ([Quantity::ZERO; 2], [Quantity::ZERO; 2]);
    let mut guaranteed = true;
    all.by_ref().for_each(|r| {
        for (i, name) in ["cpu", "memory"].into_iter().enumerate() {
            let get = |a: Option<&Amounts>| a.and_then(|a| a.get(name)).map(amount).filter(|q| q.sign() > 0);
            requests[i] += get(r.and_then(|r| r.requests.as_ref())).unwrap_or_default();
            let limit = get(r.and_then(|r| r.limits.as_ref()));
            limits[i] += limit.unwrap_or_default();
            guaranteed &= limit.is_some();
        }
    });
    if requests.iter().chain(&limits).all(Quantity::is_zero) {
        "BestEffort"
    } else if guaranteed && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}
