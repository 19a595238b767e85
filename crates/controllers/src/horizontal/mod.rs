//! HorizontalPodAutoscalers: sets how many pods a workload has by what they use.
//! Watches autoscalers, and looks at each every 15 seconds or as the flags say; [`measure`] asks the metrics APIs, [`decide`] decides.

mod decide;
mod measure;

use crate::common::{conditions, pods, scale};
use crate::{Context, Error, Outcome};
use api::pod_resources;
use api::quantity::{Format, Quantity};
use api::selector::LabelSelector;
use api::{ObjectKey, time};
use client::{Client, EventRecorder, EventType, Lister, ObjectExt, SharedDiscovery, object_ref};
pub use decide::Settings;
use decide::{Bounds, Goal, Limited, Memory, Tolerances, by_ratio, by_share, propose};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricStatus, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus, MetricTarget,
    MetricValueStatus, ObjectMetricStatus, PodsMetricStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rand::Rng;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

const NAME: &str = "horizontal-pod-autoscaler-controller";

struct Autoscalers {
    client: Client,
    events: EventRecorder,
    all: Lister<HorizontalPodAutoscaler>,
    pods: Lister<Pod>,
    discovery: SharedDiscovery,
    settings: Settings,
    memory: Mutex<HashMap<ObjectKey, Memory>>,
    /// Which pods each autoscaler minds, as it was seen last.
    minds: Mutex<HashMap<ObjectKey, LabelSelector>>,
}

/// Scales workloads.
pub async fn run(ctx: Context) {
    let client = ctx.client("horizontal-pod-autoscaler");
    let (all, pods) = (ctx.informers.informer::<HorizontalPodAutoscaler>(), ctx.pods());
    let this = Arc::new(Autoscalers {
        events: ctx.events(&client, "horizontal-pod-autoscaler"),
        client,
        all: all.lister(),
        pods: pods.lister(),
        discovery: ctx.discovery.clone(),
        settings: ctx.config.horizontal,
        memory: Mutex::default(),
        minds: Mutex::default(),
    });
    ctx.controller(NAME)
        .on(&all, |event, queue| {
            // The status is ours.
            let same = |old: &Arc<HorizontalPodAutoscaler>| old.spec == event.object().spec;
            if !event.old().is_some_and(same) {
                queue.add(event.object().key());
            }
        })
        .wait_for(&pods)
        .run(ctx.workers(NAME, 5), ctx.shutdown, move |key| {
            let this = this.clone();
            async move { this.reconcile(key).await }
        })
        .await;
}

/// What one metric came to.
struct Found {
    replicas: i32,
    name: String,
    status: MetricStatus,
}

/// Why a metric could not be had: the reason of the condition, and the message.
struct Unknown(&'static str, String);

fn set(status: &mut HorizontalPodAutoscalerStatus, kind: &str, word: &str, reason: &str, message: &str) {
    let fresh = HorizontalPodAutoscalerCondition {
        type_: kind.into(),
        status: word.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: Some(time::now()),
    };
    conditions::set(status.conditions.get_or_insert_default(), fresh);
}

fn amount(milli: i64) -> Quantity {
    Quantity::from_milli(milli, Format::DecimalSi)
}

fn milli(target: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>) -> Option<i64> {
    target.map(|q| Quantity::lenient(q).milli_value())
}

/// What each pod requests of a resource, or one container of it, in thousandths.
fn requests(
    all: &[Arc<Pod>],
    resource: &str,
    container: Option<&str>,
) -> Result<BTreeMap<String, i64>, String> {
    let mut requests = BTreeMap::new();
    for pod in all {
        let Some(spec) = &pod.spec else { continue };
        let whole = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
        if let (Some(whole), None) = (whole.filter(|w| !w.is_empty()), container) {
            let amount = pod_resources::read(Some(whole))
                .get(resource)
                .copied()
                .ok_or_else(|| format!("missing pod-level request for {resource} in Pod {}", pod.name()))?;
            requests.insert(pod.name().to_string(), amount.milli_value());
            continue;
        }
        let sidecars =
            spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let (mut sum, mut found) = (0i64, container.is_none());
        for c in spec.containers.iter().chain(sidecars).filter(|c| container.is_none_or(|n| n == c.name)) {
            let amount = pod_resources::container_requests(c).get(resource).copied().ok_or_else(|| {
                format!("missing request for {resource} in container {} of Pod {}", c.name, pod.name())
            })?;
            (sum, found) = (sum.saturating_add(amount.milli_value()), true);
        }
        if !found {
            return Err(format!(
                "container {} not found in Pod {}",
                container.unwrap_or_default(),
                pod.name()
            ));
        }
        requests.insert(pod.name().to_string(), sum);
    }
    Ok(requests)
}

/// What is scaled, as it is now.
struct Target {
    path: String,
    scale: Scale,
    selector: String,
    pods: Vec<Arc<Pod>>,
}

impl Target {
    fn wanted(&self) -> i32 {
        self.scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or_default()
    }

    fn there(&self) -> i32 {
        self.scale.status.as_ref().map(|s| s.replicas).unwrap_or_default()
    }
}

impl Autoscalers {
    fn tell(&self, hpa: &HorizontalPodAutoscaler, kind: EventType, reason: &str, message: &str) {
        self.events.event(&object_ref(hpa), kind, reason, message);
    }

    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(hpa) = self.all.get(&key.namespace, &key.name) else {
            self.memory.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            self.minds.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            return Ok(None);
        };
        let mut status = hpa.status.clone().unwrap_or_default();
        if let Err(e) = self.scale(&key, &hpa, &mut status).await {
            tracing::info!("{NAME}: {}/{}: {e}", key.namespace, key.name);
        }
        if hpa.status.as_ref() != Some(&status) {
            let changed = HorizontalPodAutoscaler { status: Some(status), ..(*hpa).clone() };
            match self.client.update_status(&changed).await {
                // Someone changed it: what was decided is decided anew.
                Err(e) if e.is_not_found() || e.is_conflict() => {}
                other => drop(other?),
            }
        }
        // Not all of them at once.
        Ok(Some(self.settings.period.mul_f64(rand::rng().random_range(0.95..1.05))))
    }

    async fn target(&self, hpa: &HorizontalPodAutoscaler) -> Result<Target, Error> {
        let to = &hpa.spec.scale_target_ref;
        let kind = (to.api_version.as_deref().unwrap_or_default(), to.kind.as_str());
        let (path, scale) =
            scale::get(&self.client, &self.discovery, kind, hpa.namespace(), &to.name).await?;
        let selector = scale.status.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
        Ok(Target { path, scale, selector, pods: Vec::new() })
    }

    async fn scale(
        &self,
        key: &ObjectKey,
        hpa: &HorizontalPodAutoscaler,
        status: &mut HorizontalPodAutoscalerStatus,
    ) -> Result<(), Error> {
        let mut target = match self.target(hpa).await {
            Ok(target) => target,
            Err(e) => {
                self.tell(hpa, EventType::Warning, "FailedGetScale", &e.to_string());
                let message = format!("the HPA controller was unable to get the target's current scale: {e}");
                set(status, "AbleToScale", "False", "FailedGetScale", &message);
                return Err(e);
            }
        };
        let message = "the HPA controller was able to get the target's current scale";
        set(status, "AbleToScale", "True", "SucceededGetScale", message);
        let spec = &hpa.spec;
        let (current, min, max) = (target.wanted(), spec.min_replicas.unwrap_or(1), spec.max_replicas);
        status.current_replicas = Some(current);
        self.memory(key, |m| m.begin(current, Timestamp::now()));
        let mut reason = String::new();
        let desired = if current == 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            set(status, "ScalingActive", "False", "ScalingDisabled", message);
            0
        } else if current > max {
            reason.push_str("Current number of replicas above Spec.MaxReplicas");
            max
        } else if current < min {
            reason.push_str("Current number of replicas below Spec.MinReplicas");
            min
        } else {
            let selector = self.check_selector(hpa, status, &target)?;
            let all = self.pods.list_namespace(hpa.namespace());
            target.pods =
                all.into_iter().filter(|p| selector.matches_labels(p.metadata.labels.as_ref())).collect();
            self.check_alone(key, hpa, status, &target, selector)?;
            let (proposed, name) = self.by_metrics(hpa, status, &target).await?;
            reason = match proposed.cmp(&current) {
                std::cmp::Ordering::Greater => format!("{name} above target"),
                _ => "All metrics below target".into(),
            };
            self.limited(key, hpa, status, current, proposed)
        };
        if desired != current {
            self.rescale(key, hpa, status, &target, desired, &reason).await?;
        }
        status.desired_replicas = desired;
        Ok(())
    }

    fn check_selector(
        &self,
        hpa: &HorizontalPodAutoscaler,
        status: &mut HorizontalPodAutoscalerStatus,
        target: &Target,
    ) -> Result<LabelSelector, Error> {
        let read = LabelSelector::parse(&target.selector);
        let (message, error) = match read {
            Ok(selector) if !selector.is_empty() => return Ok(selector),
            Ok(_) => ("selector is required".to_string(), Error::Other("selector is required".into())),
            Err(e) => (
                format!("couldn't convert selector into a corresponding internal selector object: {e}"),
                e.into(),
            ),
        };
        self.tell(hpa, EventType::Warning, "SelectorRequired", &message);
        let message = "the HPA target's scale is missing a selector";
        set(status, "ScalingActive", "False", "InvalidSelector", message);
        Err(error)
    }

    fn memory<R>(&self, key: &ObjectKey, f: impl FnOnce(&mut Memory) -> R) -> R {
        f(self.memory.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default())
    }

    /// Two autoscalers that mind the same pods would fight: neither acts.
    fn check_alone(
        &self,
        key: &ObjectKey,
        hpa: &HorizontalPodAutoscaler,
        status: &mut HorizontalPodAutoscalerStatus,
        target: &Target,
        selector: LabelSelector,
    ) -> Result<(), Error> {
        let others = {
            let mut minds = self.minds.lock().unwrap_or_else(PoisonError::into_inner);
            minds.insert(key.clone(), selector);
            rivals(&minds, key, &target.pods)
        };
        if others.len() < 2 {
            return Ok(());
        }
        let message = format!(
            "pods by selector {} are controlled by multiple HPAs: [{}]",
            target.selector,
            others.join(" ")
        );
        self.tell(hpa, EventType::Warning, "AmbiguousSelector", &message);
        set(status, "ScalingActive", "False", "AmbiguousSelector", &message);
        Err(Error::Other(message))
    }

    fn limited(
        &self,
        key: &ObjectKey,
        hpa: &HorizontalPodAutoscaler,
        status: &mut HorizontalPodAutoscalerStatus,
        current: i32,
        proposed: i32,
    ) -> i32 {
        let spec = &hpa.spec;
        let behavior = spec.behavior.as_ref();
        let bounds = Bounds {
            min: spec.min_replicas.unwrap_or(1),
            max: spec.max_replicas,
            stabilization: self.settings.stabilization,
            rules: behavior.and_then(|b| b.scale_up.as_ref().zip(b.scale_down.as_ref())),
        };
        let Limited { replicas, able, limited } =
            self.memory(key, |m| m.limit(current, proposed, bounds, Timestamp::now()));
        set(status, "AbleToScale", "True", able.0, able.1);
        set(status, "ScalingLimited", if limited.0 { "True" } else { "False" }, limited.1, limited.2);
        replicas
    }

    async fn rescale(
        &self,
        key: &ObjectKey,
        hpa: &HorizontalPodAutoscaler,
        status: &mut HorizontalPodAutoscalerStatus,
        target: &Target,
        desired: i32,
        reason: &str,
    ) -> Result<(), Error> {
        let mut scale = target.scale.clone();
        scale.spec.get_or_insert_default().replicas = Some(desired);
        if let Err(e) = self.client.put_path::<Scale, Scale>(&target.path, &scale).await {
            let message = format!("New size: {desired}; reason: {reason}; error: {e}");
            self.tell(hpa, EventType::Warning, "FailedRescale", &message);
            let message = format!("the HPA controller was unable to update the target scale: {e}");
            set(status, "AbleToScale", "False", "FailedUpdateScale", &message);
            return Err(e.into());
        }
        let message = format!("the HPA controller was able to update the target scale to {desired}");
        set(status, "AbleToScale", "True", "SucceededRescale", &message);
        let message = format!("New size: {desired}; reason: {reason}");
        self.tell(hpa, EventType::Normal, "SuccessfulRescale", &message);
        let now = Timestamp::now();
        self.memory(key, |m| m.changed(target.wanted(), desired, now));
        status.last_scale_time = Some(Time(time::truncate(now)));
        Ok(())
    }

    /// The most that any metric asks for. If one can't be had, nothing shrinks.
    async fn by_metrics(
        &self,
        hpa: &HorizontalPodAutoscaler,
        status: &mut HorizontalPodAutoscalerStatus,
        target: &Target,
    ) -> Result<(i32, String), Error> {
        let specs = hpa.spec.metrics.as_deref().unwrap_or_default();
        let (mut best, mut statuses, mut unknown): (Option<(i32, String)>, _, _) =
            (None, Vec::new(), Vec::new());
        for spec in specs {
            match self.by_metric(hpa, spec, target).await {
                Ok(found) => {
                    if best.as_ref().is_none_or(|(n, _)| found.replicas > *n) {
                        best = Some((found.replicas, found.name));
                    }
                    statuses.push(found.status);
                }
                Err(e) => unknown.push(e),
            }
        }
        status.current_metrics = Some(statuses).filter(|s| !s.is_empty());
        let shrinks = best.as_ref().is_none_or(|(n, _)| *n < target.wanted());
        if let (Some(Unknown(reason, why)), true) = (unknown.first(), shrinks) {
            let message = format!("the HPA was unable to compute the replica count: {why}");
            set(status, "ScalingActive", "False", reason, &message);
            self.tell(hpa, EventType::Warning, reason, why);
            let message = format!(
                "invalid metrics ({} invalid out of {}), first error is: {why}",
                unknown.len(),
                specs.len()
            );
            self.tell(hpa, EventType::Warning, "FailedComputeMetricsReplicas", &message);
            return Err(Error::Other(message));
        }
        let (replicas, name) = best.ok_or_else(|| Error::Other("no metrics are asked for".into()))?;
        let message = format!("the HPA was able to successfully calculate a replica count from {name}");
        set(status, "ScalingActive", "True", "ValidMetricFound", &message);
        Ok((replicas, name))
    }

    async fn by_metric(
        &self,
        hpa: &HorizontalPodAutoscaler,
        spec: &MetricSpec,
        target: &Target,
    ) -> Result<Found, Unknown> {
        let (client, namespace, now) = (&self.client, hpa.namespace(), Timestamp::now());
        let tolerances = tolerances(hpa, self.settings.tolerance);
        let (current, there) = (target.wanted(), target.there());
        let ready = target.pods.iter().filter(|p| pods::phase(p) == "Running" && pods::is_ready(p)).count();
        let mut status = MetricStatus { type_: spec.type_.clone(), ..MetricStatus::default() };
        match spec.type_.as_str() {
            kind @ ("Resource" | "ContainerResource") => {
                let source = spec.resource.as_ref().map(|r| (&r.name, None, &r.target));
                let contained = spec.container_resource.as_ref();
                let contained = || contained.map(|r| (&r.name, Some(r.container.as_str()), &r.target));
                let failed = match kind {
                    "Resource" => "FailedGetResourceMetric",
                    _ => "FailedGetContainerResourceMetric",
                };
                let unknown = |e: String| Unknown(failed, e);
                let (name, container, wanted) =
                    source.or_else(contained).ok_or_else(|| unknown("the metric is not described".into()))?;
                let samples =
                    measure::resource(client, namespace, &target.selector, name, container)
                        .await
                        .map_err(|e| unknown(format!("unable to get metrics for resource {name}: {e}")))?;
                let requests = match wanted.average_utilization {
                    Some(_) => requests(&target.pods, name, container).map_err(unknown)?,
                    None => BTreeMap::new(),
                };
                let goal = match (milli(wanted.average_value.as_ref()), wanted.average_utilization) {
                    (Some(average), _) => Goal::Average(average),
                    (None, Some(percent)) => Goal::Utilization(percent, &requests),
                    (None, None) => {
                        return Err(unknown("neither a utilization target nor a value was set".into()));
                    }
                };
                let p = propose(
                    &target.pods,
                    &samples,
                    goal,
                    (name == "cpu").then_some(&self.settings),
                    current,
                    tolerances,
                    now,
                )
                .map_err(|e| unknown(format!("failed to get {name} utilization: {e}")))?;
                let measured = MetricValueStatus {
                    average_utilization: p.utilization,
                    average_value: Some(amount(p.average).to_text()),
                    value: None,
                };
                let (name, what) = (
                    name.clone(),
                    if p.utilization.is_some() { "utilization (percentage of request)" } else { "" },
                );
                match container {
                    None => {
                        status.resource =
                            Some(ResourceMetricStatus { current: measured, name: name.clone() });
                    }
                    Some(c) => {
                        status.container_resource = Some(ContainerResourceMetricStatus {
                            container: c.into(),
                            current: measured,
                            name: name.clone(),
                        });
                    }
                }
                Ok(Found {
                    replicas: p.replicas,
                    name: format!("{name} resource {what}").trim_end().into(),
                    status,
                })
            }
            "Pods" => {
                let unknown = |e: String| Unknown("FailedGetPodsMetric", e);
                let source =
                    spec.pods.as_ref().ok_or_else(|| unknown("the metric is not described".into()))?;
                let metric = &source.metric;
                let samples = measure::pods(
                    client,
                    namespace,
                    &target.selector,
                    &metric.name,
                    metric.selector.as_ref(),
                )
                .await
                .map_err(|e| unknown(format!("unable to get metric {}: {e}", metric.name)))?;
                let goal = Goal::Average(milli(source.target.average_value.as_ref()).unwrap_or_default());
                let p =
                    propose(&target.pods, &samples, goal, None, current, tolerances, now).map_err(unknown)?;
                let measured = MetricValueStatus {
                    average_value: Some(amount(p.average).to_text()),
                    ..Default::default()
                };
                status.pods = Some(PodsMetricStatus { current: measured, metric: metric.clone() });
                Ok(Found { replicas: p.replicas, name: format!("pods metric {}", metric.name), status })
            }
            "Object" => {
                let unknown = |e: String| Unknown("FailedGetObjectMetric", e);
                let source =
                    spec.object.as_ref().ok_or_else(|| unknown("the metric is not described".into()))?;
                let (of, metric) = (&source.described_object, &source.metric);
                let version = of.api_version.as_deref().unwrap_or_default();
                let (group, _, plural) = scale::resource_of(&self.discovery, version, &of.kind)
                    .await
                    .map_err(|e| unknown(e.to_string()))?;
                let resource = if group.is_empty() { plural } else { format!("{plural}.{group}") };
                let usage = measure::object(
                    client,
                    namespace,
                    &resource,
                    &of.name,
                    &metric.name,
                    metric.selector.as_ref(),
                )
                .await
                .map_err(|e| unknown(format!("unable to get metric {}: {e}", metric.name)))?;
                let (replicas, measured) = whole(&source.target, usage, current, there, ready, tolerances);
                status.object = Some(ObjectMetricStatus {
                    current: measured,
                    described_object: of.clone(),
                    metric: metric.clone(),
                });
                Ok(Found { replicas, name: format!("{} metric {}", of.kind, metric.name), status })
            }
            _ => {
                let unknown = |e: String| Unknown("FailedGetExternalMetric", e);
                let source =
                    spec.external.as_ref().ok_or_else(|| unknown("the metric is not described".into()))?;
                let metric = &source.metric;
                let usage = measure::external(client, namespace, &metric.name, metric.selector.as_ref())
                    .await
                    .map_err(|e| {
                        unknown(format!("unable to get external metric {namespace}/{}: {e}", metric.name))
                    })?;
                let (replicas, measured) = whole(&source.target, usage, current, there, ready, tolerances);
                status.external = Some(ExternalMetricStatus { current: measured, metric: metric.clone() });
                Ok(Found { replicas, name: format!("external metric {}", metric.name), status })
            }
        }
    }
}

/// What a metric that is not of single pods asks for.
fn whole(
    target: &MetricTarget,
    usage: i64,
    current: i32,
    there: i32,
    ready: usize,
    tolerances: Tolerances,
) -> (i32, MetricValueStatus) {
    match milli(target.average_value.as_ref()) {
        Some(share) => {
            let average = (usage as f64 / f64::from(there.max(1))).ceil() as i64;
            let status =
                MetricValueStatus { average_value: Some(amount(average).to_text()), ..Default::default() };
            (by_share(there, usage, share, tolerances), status)
        }
        None => {
            let wanted = milli(target.value.as_ref()).unwrap_or_default().max(1);
            let status = MetricValueStatus { value: Some(amount(usage).to_text()), ..Default::default() };
            (by_ratio(current, ready, usage as f64 / wanted as f64, tolerances), status)
        }
    }
}

/// Which autoscalers mind any of these pods, this one among them.
fn rivals(minds: &HashMap<ObjectKey, LabelSelector>, of: &ObjectKey, pods: &[Arc<Pod>]) -> Vec<String> {
    let mut found: Vec<String> = minds
        .iter()
        .filter(|(key, _)| key.namespace == of.namespace)
        .filter(|(_, s)| pods.iter().any(|p| s.matches_labels(p.metadata.labels.as_ref())))
        .map(|(key, _)| key.to_string())
        .collect();
    found.sort();
    found
}

fn tolerances(hpa: &HorizontalPodAutoscaler, usual: f64) -> Tolerances {
    let behavior = hpa.spec.behavior.as_ref();
    let of = |rules: Option<&k8s_openapi::api::autoscaling::v2::HPAScalingRules>| {
        rules.and_then(|r| r.tolerance.as_ref()).map_or(usual, |t| Quantity::lenient(t).as_f64())
    };
    Tolerances {
        up: of(behavior.and_then(|b| b.scale_up.as_ref())),
        down: of(behavior.and_then(|b| b.scale_down.as_ref())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_autoscalers_of_the_same_pods_are_told_apart() {
        let pod: Arc<Pod> = Arc::new(
            serde_json::from_value(serde_json::json!({"metadata": {"labels": {"app": "a"}}})).unwrap(),
        );
        let key = |ns: &str, name: &str| ObjectKey::new(ns, name);
        let selector = |text: &str| LabelSelector::parse(text).unwrap();
        let mut minds: HashMap<ObjectKey, LabelSelector> = [
            (key("ns", "one"), selector("app=a")),
            (key("ns", "other"), selector("app=b")),
            (key("elsewhere", "two"), selector("app=a")),
        ]
        .into();
        assert_eq!(rivals(&minds, &key("ns", "one"), std::slice::from_ref(&pod)), ["ns/one"]);
        minds.insert(key("ns", "two"), selector("app in (a, c)"));
        assert_eq!(rivals(&minds, &key("ns", "one"), &[pod]), ["ns/one", "ns/two"]);
    }
}
