//! What a pod asks for as a whole: its containers together, or an init container if one asks for more.

use crate::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use std::collections::BTreeMap;

/// How much of each resource.
pub type Amounts = BTreeMap<String, Quantity>;

/// Reads a resource list.
pub fn read(list: Option<&BTreeMap<String, Text>>) -> Amounts {
    list.into_iter().flatten().map(|(name, text)| (name.clone(), Quantity::lenient(text))).collect()
}

/// Writes a resource list.
pub fn write(amounts: &Amounts) -> BTreeMap<String, Text> {
    amounts.iter().map(|(name, amount)| (name.clone(), amount.to_text())).collect()
}

/// Adds each amount of `more`.
pub fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = match to.get(name) {
            Some(there) => *there + *amount,
            None => *amount,
        };
        to.insert(name.clone(), sum);
    }
}

fn raise(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        if to.get(name).is_none_or(|there| there < amount) {
            to.insert(name.clone(), *amount);
        }
    }
}

/// A container's requests.
pub fn container_requests(c: &Container) -> Amounts {
    read(c.resources.as_ref().and_then(|r| r.requests.as_ref()))
}

/// A container's limits.
pub fn container_limits(c: &Container) -> Amounts {
    read(c.resources.as_ref().and_then(|r| r.limits.as_ref()))
}

/// What all containers request. Sidecars run beside the others, init containers one after the other before them.
pub fn requests(spec: &PodSpec) -> Amounts {
    let whole = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    together(spec, container_requests, read(whole))
}

/// What all containers may use at most.
pub fn limits(spec: &PodSpec) -> Amounts {
    let whole = spec.resources.as_ref().and_then(|r| r.limits.as_ref());
    together(spec, container_limits, read(whole))
}

/// [`requests`] with the overhead of the pod's runtime.
pub fn requests_with_overhead(spec: &PodSpec) -> Amounts {
    let mut sum = requests(spec);
    add(&mut sum, &read(spec.overhead.as_ref()));
    sum
}

/// [`limits`] with the overhead of the pod's runtime, where there is a limit.
pub fn limits_with_overhead(spec: &PodSpec) -> Amounts {
    let mut sum = limits(spec);
    let mut overhead = read(spec.overhead.as_ref());
    overhead.retain(|name, _| sum.get(name).is_some_and(|limit| !limit.is_zero()));
    add(&mut sum, &overhead);
    sum
}

fn together(spec: &PodSpec, of: impl Fn(&Container) -> Amounts, whole: Amounts) -> Amounts {
    let (mut sum, mut sidecars, mut init) = (Amounts::new(), Amounts::new(), Amounts::new());
    for c in &spec.containers {
        add(&mut sum, &of(c));
    }
    for c in spec.init_containers.iter().flatten() {
        let mut own = of(c);
        if c.restart_policy.as_deref() == Some("Always") {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            own.clone_from(&sidecars);
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut init, &own);
    }
    raise(&mut sum, &init);
    // What is said of the pod as a whole counts instead.
    sum.extend(whole);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn containers_count_together() {
        let cpu = |c: &str| json!({"requests": {"cpu": c}});
        for (spec, want) in [
            (
                json!({"containers": [{"name": "a", "resources": cpu("1")}, {"name": "b", "resources": cpu("500m")}]}),
                "1500m",
            ),
            (
                json!({"containers": [{"name": "a", "resources": cpu("1")}], "initContainers": [{"name": "i", "resources": cpu("3")}]}),
                "3",
            ),
            (
                json!({"containers": [{"name": "a", "resources": cpu("1")}], "initContainers": [
                    {"name": "s", "restartPolicy": "Always", "resources": cpu("1")}, {"name": "i", "resources": cpu("3")}]}),
                "4",
            ),
            (
                json!({"containers": [{"name": "a", "resources": cpu("1")}], "resources": cpu("7"), "overhead": {"cpu": "1"}}),
                "8",
            ),
        ] {
            let spec: PodSpec = serde_json::from_value(spec).unwrap();
            assert_eq!(requests_with_overhead(&spec).get("cpu").unwrap().to_string(), want);
        }
    }
}
