//! Gives running containers and their pod what they are allocated. The pod's bounds grow before those of its
//! containers and shrink after them: no container may have more than its pod.

use crate::context::Context;
use crate::pod::PodExt;
use crate::resize::{self, Change, MemoryUse};
use crate::runtime::observed::Observed;
use crate::runtime::{labels, resources};
use cri::types::{ContainerStatsFilter, UpdateContainerResourcesRequest};
use k8s_openapi::api::core::v1::Pod;
use std::collections::HashMap;

/// Does it; an error says what was in the way.
pub(super) async fn run(cx: &Context, pod: &Pod, seen: &Observed) -> Result<(), String> {
    let (qos, uid) = (pod.qos(), pod.uid());
    let actuated = cx.records.actuated(uid);
    let mut updates = resize::changes(pod, seen, &actuated);
    updates.retain(|(_, _, what)| *what == Change::Update);
    let (now, wanted) = (cx.cgroups.pod_cgroup(qos, uid), resources::of_pod(pod, &cx.config));
    let shrinks = wanted.memory.is_some_and(|to| now.memory.is_none_or(|from| to < from));
    if shrinks || !updates.is_empty() {
        let used = memory_use(cx, pod).await?;
        resize::check_memory(pod, &updates, &actuated, &now, &wanted, &used)?;
    }
    let set = async |limits: resources::PodLimits| {
        cx.cgroups.set_up_pod(&cx.blocking, qos, uid, limits).await.map_err(|e| {
            let cause = std::error::Error::source(&e).map(|s| format!(": {s}")).unwrap_or_default();
            format!("failed to set the pod's cgroup: {e}{cause}")
        })
    };
    set(resize::wider(&now, &wanted)).await?;
    for (c, id, _) in updates {
        let kind = pod.container(&c.name).map_or(crate::pod::Kind::Regular, |(k, _)| k);
        let linux = resources::container(pod, c, kind, &cx.config, cx.memory_capacity);
        let request =
            UpdateContainerResourcesRequest { container_id: id, linux: Some(linux), ..Default::default() };
        cx.runtime.update_container_resources(request).await.map_err(|e| e.message())?;
        cx.records.actuate(uid, &c.name, c.resources.clone().unwrap_or_default());
    }
    set(wanted).await?;
    cx.records.actuate_pod(uid, pod.spec().resources.clone());
    Ok(())
}

async fn memory_use(cx: &Context, pod: &Pod) -> Result<MemoryUse, String> {
    let label_selector = HashMap::from([(labels::names::POD_UID.to_owned(), pod.uid().to_owned())]);
    let filter = ContainerStatsFilter { label_selector, ..Default::default() };
    let stats = cx
        .runtime
        .list_container_stats(Some(filter))
        .await
        .map_err(|e| format!("unable to read memory usage: {}", e.message()))?;
    let containers = stats.into_iter().filter_map(|s| {
        let name = s.attributes?.labels.get(labels::names::CONTAINER_NAME)?.clone();
        let memory = s.memory?;
        Some((name, memory.usage_bytes.or(memory.working_set_bytes)?.value))
    });
    Ok(MemoryUse {
        containers: containers.collect(),
        pod: cx.cgroups.pod_usage(pod.qos(), pod.uid()).memory_usage,
    })
}
