//! PodSecurity: what the labels of a namespace forbid its pods. Start at [`PodSecurity`]; [`policy`] reads the
//! labels, [`checks`] holds what each level forbids.

pub mod checks;
pub mod policy;

use crate::config::{Config, ConfigError};
use crate::{Operation, Plugin, Request};
use api::field::FieldErrors;
use api::object::Object;
use api::{GroupKind, Status, read};
use checks::{Seen, Violation};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    Namespace, Pod, PodSpec, PodTemplate, PodTemplateSpec, ReplicationController,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use policy::{Level, Policy, Rules, Version};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// See the module.
pub struct PodSecurity {
    default: Policy,
    exempt: Exemptions,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Exemptions {
    usernames: Vec<String>,
    namespaces: Vec<String>,
    runtime_classes: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    api_version: String,
    kind: String,
    defaults: BTreeMap<String, String>,
    exemptions: Exemptions,
}

/// Pods looked at when a namespace begins to enforce more: upstream's.
const MAX_PODS: usize = 3000;
const SUBRESOURCES_WITHOUT_SPEC: [&str; 8] =
    ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

impl PodSecurity {
    /// Reads what the configuration says.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let file: File = config.of("PodSecurity")?.unwrap_or_default();
        let versions =
            ["", "pod-security.admission.config.k8s.io/v1", "pod-security.admission.config.k8s.io/v1beta1"];
        let bad = |why: String| ConfigError(format!("PodSecurity: {why}"));
        if !versions.contains(&file.api_version.as_str())
            || !matches!(file.kind.as_str(), "" | "PodSecurityConfiguration")
        {
            return Err(bad(format!("{} {} is unknown", file.api_version, file.kind)));
        }
        let rules = |mode: &str| {
            let version = format!("{mode}-version");
            let text = |key: &str| file.defaults.get(key).map(String::as_str).filter(|t| !t.is_empty());
            let fault = |key: &str, why: &str| bad(format!("defaults.{key}: {why}"));
            Ok(Rules {
                level: Level::parse(text(mode).unwrap_or("privileged")).map_err(|e| fault(mode, e))?,
                version: Version::parse(text(&version).unwrap_or("latest"))
                    .map_err(|e| fault(&version, e))?,
            })
        };
        let default = Policy { enforce: rules("enforce")?, audit: rules("audit")?, warn: rules("warn")? };
        Ok(PodSecurity { default, exempt: file.exemptions })
    }

    fn policy(&self, namespace: &Namespace, errors: &mut FieldErrors) -> Policy {
        self.default.with_labels(namespace.metadata.labels.as_ref().unwrap_or(&BTreeMap::new()), errors)
    }

    fn validate_namespace(&self, request: &Request<'_>, new: &Namespace) -> Result<(), Status> {
        let mut errors = FieldErrors::default();
        let policy = self.policy(new, &mut errors);
        let old = request.old.and_then(|o| o.get::<Namespace>());
        let mut old_errors = FieldErrors::default();
        let old_policy = old.map(|old| self.policy(old, &mut old_errors));
        if !errors.is_empty() && (old.is_none() || errors != old_errors) {
            let kind = GroupKind { group: request.kind.group.clone(), kind: request.kind.kind.clone() };
            return Err(Status::invalid(&kind, request.name, &errors));
        }
        let name = new.metadata.name.as_deref().unwrap_or(request.name);
        let exempt = self.exempt.namespaces.iter().any(|n| n == name);
        if let Some(old) = old_policy {
            let (now, before) = (policy.enforce, old.enforce);
            let stricter = now != before
                && now.level != Level::Privileged
                && (now.version != before.version || now.level > before.level);
            if !stricter {
                return Ok(());
            }
            if !exempt {
                self.existing_pods(request, name, now);
            }
        }
        if exempt && !policy.is_privileged() && policy != self.default {
            let labels = new.metadata.labels.as_ref();
            let said = |mode: &str| {
                let has = |key: String| labels.is_some_and(|l| l.contains_key(&key));
                has(format!("{}{mode}", policy::PREFIX)) || has(format!("{}{mode}-version", policy::PREFIX))
            };
            let modes = policy.modes().into_iter().filter(|(m, r)| r.level != Level::Privileged && said(m));
            let list: Vec<String> = modes.map(|(m, r)| format!("{m}={r}")).collect();
            request.host.warn(format!(
                "namespace {name:?} is exempt from Pod Security, and the policy ({}) will be ignored",
                list.join(", ")
            ));
        }
        Ok(())
    }

    /// Warns of pods that are there and would not be let in any more.
    fn existing_pods(&self, request: &Request<'_>, namespace: &str, rules: Rules) {
        let pods: Vec<Pod> = read::list(request.reader, Some(namespace));
        let class = |p: &Pod| p.spec.as_ref().and_then(|s| s.runtime_class_name.clone());
        let pods =
            pods.into_iter().filter(|p| class(p).is_none_or(|c| !self.exempt.runtime_classes.contains(&c)));
        // One pod of each owner first.
        let mut owners = BTreeSet::new();
        let (first, others): (Vec<Pod>, Vec<Pod>) = pods.partition(|p| {
            let refs = p.metadata.owner_references.iter().flatten();
            let owner = refs.into_iter().find(|r| r.controller == Some(true)).map(|r| r.uid.clone());
            owner.is_none_or(|uid| owners.insert(uid))
        });
        let total = first.len() + others.len();
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pod in first.into_iter().chain(others).take(MAX_PODS) {
            let violations = violations(rules, &pod.metadata, &pod.spec.unwrap_or_default());
            if !violations.is_empty() {
                let reasons: Vec<String> = violations.into_iter().map(|v| v.reason).collect();
                found.entry(reasons.join(", ")).or_default().push(pod.metadata.name.unwrap_or_default());
            }
        }
        if total > MAX_PODS {
            request.host.warn(format!(
                "new PodSecurity enforce level only checked against the first {MAX_PODS} of {total} existing pods"
            ));
        }
        if !found.is_empty() {
            request.host.warn(format!(
                "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{rules}\""
            ));
        }
        let mut lines: Vec<String> = found
            .into_iter()
            .map(|(reasons, pods)| {
                let first = pods.iter().min().cloned().unwrap_or_default();
                match pods.len() {
                    1 => format!("{first}: {reasons}"),
                    2 => format!("{first} (and 1 other pod): {reasons}"),
                    n => format!("{first} (and {} other pods): {reasons}", n - 1),
                }
            })
            .collect();
        lines.sort();
        lines.into_iter().for_each(|line| request.host.warn(line));
    }

    fn exemption(&self, request: &Request<'_>) -> Option<&'static str> {
        let is = |list: &[String], name: &str| list.iter().any(|n| n == name);
        if is(&self.exempt.namespaces, request.namespace) {
            return Some("namespace");
        }
        is(&self.exempt.usernames, request.user).then_some("user")
    }

    fn evaluate(
        &self,
        request: &Request<'_>,
        meta: &ObjectMeta,
        spec: &PodSpec,
        is_pod: bool,
    ) -> Result<(), Status> {
        let note =
            |key: &str, value: String| request.host.annotate(&format!("{}{key}", policy::PREFIX), value);
        if let Some(reason) = self.exemption(request) {
            note("exempt", reason.into());
            return Ok(());
        }
        let namespace: Option<Arc<Namespace>> = read::kept(request.reader, "", request.namespace);
        let Some(namespace) = namespace else {
            return match is_pod {
                true => Err(Status::internal(format!("failed to lookup namespace {:?}", request.namespace))),
                false => Ok(()),
            };
        };
        let mut errors = FieldErrors::default();
        let policy = self.policy(&namespace, &mut errors);
        if errors.is_empty() && policy.is_privileged() {
            if is_pod {
                note("enforce-policy", "privileged:latest".into());
            }
            return Ok(());
        }
        if spec.runtime_class_name.as_ref().is_some_and(|c| self.exempt.runtime_classes.contains(c)) {
            note("exempt", "runtimeClass".into());
            return Ok(());
        }
        if !errors.is_empty() {
            let faults: Vec<String> = errors.as_slice().iter().map(ToString::to_string).collect();
            note("error", format!("Failed to parse policy: {}", faults.join(", ")));
        }
        let audited = violations(policy.audit, meta, spec);
        if !audited.is_empty() {
            note(
                "audit-violations",
                format!("would violate PodSecurity \"{}\": {}", policy.audit, told(&audited)),
            );
        }
        if is_pod {
            note("enforce-policy", policy.enforce.to_string());
            let refused = violations(policy.enforce, meta, spec);
            if !refused.is_empty() {
                let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, told(&refused));
                return Err(request.forbidden(why));
            }
        }
        let warned = violations(policy.warn, meta, spec);
        if !warned.is_empty() {
            request.host.warn(format!("would violate PodSecurity \"{}\": {}", policy.warn, told(&warned)));
        }
        Ok(())
    }
}

/// What a pod violates of some rules.
pub fn violations(rules: Rules, meta: &ObjectMeta, spec: &PodSpec) -> Vec<Violation> {
    let none = BTreeMap::new();
    let annotations = meta.annotations.as_ref().unwrap_or(&none);
    checks::violations(rules.level, &Seen { annotations, spec, version: rules.version.minor() })
}

fn told(violations: &[Violation]) -> String {
    let one = |v: &Violation| match v.detail.as_str() {
        "" => v.reason.clone(),
        detail => format!("{} ({detail})", v.reason),
    };
    violations.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Whether an update of a pod brings another image or container.
fn is_significant(new: &PodSpec, old: &PodSpec) -> bool {
    let images = |s: &PodSpec| -> (Vec<Option<String>>, Vec<Option<String>>) {
        let init = s.init_containers.iter().flatten().map(|c| c.image.clone()).collect();
        (s.containers.iter().map(|c| c.image.clone()).collect(), init)
    };
    let ephemeral = |c: &k8s_openapi::api::core::v1::EphemeralContainer| {
        let mut before = old.ephemeral_containers.iter().flatten();
        before.find(|o| o.name == c.name).is_none_or(|o| o.image != c.image)
    };
    images(new) != images(old) || new.ephemeral_containers.iter().flatten().any(ephemeral)
}

/// What a pod is, or the pods of a workload are to be.
pub fn pod_spec(object: &Object) -> Option<&PodSpec> {
    match object.get::<Pod>() {
        Some(pod) => pod.spec.as_ref(),
        None => template(object)?.spec.as_ref(),
    }
}

/// Where that stands in it.
pub fn path_of_spec(object: &Object) -> &'static str {
    if object.get::<Pod>().is_some() {
        "spec"
    } else if object.get::<k8s_openapi::api::core::v1::PodTemplate>().is_some() {
        "template.spec"
    } else if object.get::<k8s_openapi::api::batch::v1::CronJob>().is_some() {
        "spec.jobTemplate.spec.template.spec"
    } else {
        "spec.template.spec"
    }
}

/// The pod template of a workload.
fn template(object: &Object) -> Option<&PodTemplateSpec> {
    macro_rules! of {
        ($($kind:ty => $path:expr),* $(,)?) => {
            $(if let Some(o) = object.get::<$kind>() { let f: fn(&$kind) -> Option<&PodTemplateSpec> = $path; return f(o); })*
        };
    }
    of! {
        Deployment => |o| Some(&o.spec.as_ref()?.template),
        ReplicaSet => |o| o.spec.as_ref()?.template.as_ref(),
        StatefulSet => |o| Some(&o.spec.as_ref()?.template),
        DaemonSet => |o| Some(&o.spec.as_ref()?.template),
        Job => |o| Some(&o.spec.as_ref()?.template),
        CronJob => |o| Some(&o.spec.job_template.spec.as_ref()?.template),
        ReplicationController => |o| o.spec.as_ref()?.template.as_ref(),
        PodTemplate => |o| o.template.as_ref(),
    }
    None
}

impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn validate(&self, request: &Request<'_>, object: Option<&Object>) -> Result<(), Status> {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        let Some(object) = object.filter(|_| writes) else { return Ok(()) };
        if request.is("", "namespaces") {
            return object.get().map_or(Ok(()), |namespace| self.validate_namespace(request, namespace));
        }
        if request.resource.group.is_empty() && request.resource.resource == "pods" {
            let (Some(pod), false) =
                (object.get::<Pod>(), SUBRESOURCES_WITHOUT_SPEC.contains(&request.subresource))
            else {
                return Ok(());
            };
            let Some(spec) = &pod.spec else { return Ok(()) };
            let old = request.old.and_then(|o| o.get::<Pod>()).and_then(|p| p.spec.as_ref());
            if old.is_some_and(|old| !is_significant(spec, old)) {
                return Ok(());
            }
            return self.evaluate(request, &pod.metadata, spec, true);
        }
        match template(object).filter(|_| request.subresource.is_empty()) {
            Some(PodTemplateSpec { metadata, spec: Some(spec) }) => match metadata {
                Some(metadata) => self.evaluate(request, metadata, spec, false),
                None => self.evaluate(request, &ObjectMeta::default(), spec, false),
            },
            _ => Ok(()),
        }
    }
}
