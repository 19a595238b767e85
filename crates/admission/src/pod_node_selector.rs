//! A namespace can say on which nodes its pods run.

use crate::config::{Config, ConfigError};
use crate::{Plugin, Request};
use api::object::Object;
use api::{GroupResource, Status, read};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

type Labels = BTreeMap<String, String>;

/// See the module. Its configuration names a selector for each namespace, and one for those that name none.
pub struct PodNodeSelector {
    by_namespace: BTreeMap<String, Labels>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    pod_node_selector_plugin_config: Option<BTreeMap<String, String>>,
}

const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
/// What those namespaces get that say nothing themselves.
const DEFAULT: &str = "clusterDefaultNodeSelector";

/// `a=b,c=d`, as labels.
fn parse(text: &str) -> Result<Labels, String> {
    let pairs = text.split(',').filter(|p| !p.trim().is_empty());
    let pair = |p: &str| {
        let (key, value) = p.split_once('=').ok_or_else(|| format!("invalid selector: {p}"))?;
        Ok((key.trim().to_string(), value.trim_start_matches('=').trim().to_string()))
    };
    pairs.map(pair).collect()
}

impl PodNodeSelector {
    /// Reads what the configuration says.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let file: File = config.of("PodNodeSelector")?.unwrap_or_default();
        let read = |(namespace, text): (String, String)| {
            let labels =
                parse(&text).map_err(|e| ConfigError(format!("PodNodeSelector: {namespace}: {e}")))?;
            Ok((namespace, labels))
        };
        let all = file.pod_node_selector_plugin_config.unwrap_or_default();
        Ok(PodNodeSelector { by_namespace: all.into_iter().map(read).collect::<Result<_, ConfigError>>()? })
    }

    fn wanted(&self, request: &Request<'_>) -> Result<Labels, Status> {
        let namespace: Arc<Namespace> = read::kept(request.reader, "", request.namespace)
            .ok_or_else(|| Status::not_found(&GroupResource::new("", "namespaces"), request.namespace))?;
        match namespace.metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION)) {
            Some(text) => parse(text).map_err(Status::internal),
            None => Ok(self.by_namespace.get(DEFAULT).cloned().unwrap_or_default()),
        }
    }

    fn check(&self, request: &Request<'_>, wanted: &Labels, selector: &Labels) -> Result<(), Status> {
        if wanted.iter().any(|(k, v)| selector.get(k).is_some_and(|own| own != v)) {
            return Err(
                request.forbidden("pod node label selector conflicts with its namespace node label selector")
            );
        }
        let allowed = self.by_namespace.get(request.namespace).filter(|a| !a.is_empty());
        if allowed.is_some_and(|allowed| selector.iter().any(|(k, v)| allowed.get(k) != Some(v))) {
            return Err(
                request.forbidden("pod node label selector labels conflict with its namespace whitelist")
            );
        }
        Ok(())
    }
}

impl Plugin for PodNodeSelector {
    fn name(&self) -> &'static str {
        "PodNodeSelector"
    }

    fn admit(&self, request: &Request<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        if !request.creates("", "pods") {
            return Ok(());
        }
        let Some(spec) = object.and_then(|o| o.get_mut::<Pod>()).and_then(|p| p.spec.as_mut()) else {
            return Ok(());
        };
        let wanted = self.wanted(request)?;
        let mut selector = spec.node_selector.take().unwrap_or_default();
        for (key, value) in &wanted {
            selector.entry(key.clone()).or_insert_with(|| value.clone());
        }
        self.check(request, &wanted, &selector)?;
        spec.node_selector = Some(selector).filter(|s| !s.is_empty());
        Ok(())
    }

    fn validate(&self, request: &Request<'_>, object: Option<&Object>) -> Result<(), Status> {
        if !request.creates("", "pods") {
            return Ok(());
        }
        let spec = object.and_then(|o| o.get::<Pod>()).and_then(|p| p.spec.as_ref());
        let selector = spec.and_then(|s| s.node_selector.clone()).unwrap_or_default();
        self.check(request, &self.wanted(request)?, &selector)
    }
}
