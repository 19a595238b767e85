//! Every image is pulled anew, so that nobody runs another's private image because the node has it already.

use crate::{Operation, Plugin, Request};
use api::Status;
use api::object::Object;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use std::collections::BTreeSet;

/// See the module.
pub struct AlwaysPullImages;

const ALWAYS: &str = "Always";

impl Plugin for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn admit(&self, request: &Request<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        let Some(pod) = object.and_then(|o| o.get_mut::<Pod>()) else { return Ok(()) };
        if !concerns(request, pod) {
            return Ok(());
        }
        let Some(spec) = &mut pod.spec else { return Ok(()) };
        for c in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
            c.image_pull_policy = Some(ALWAYS.into());
        }
        for c in spec.ephemeral_containers.iter_mut().flatten() {
            c.image_pull_policy = Some(ALWAYS.into());
        }
        for image in spec.volumes.iter_mut().flatten().filter_map(|v| v.image.as_mut()) {
            image.pull_policy = Some(ALWAYS.into());
        }
        Ok(())
    }

    fn validate(&self, request: &Request<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(pod) = object.and_then(|o| o.get::<Pod>()) else { return Ok(()) };
        if !concerns(request, pod) {
            return Ok(());
        }
        let Some(spec) = &pod.spec else { return Ok(()) };
        let images = spec.volumes.iter().flatten().enumerate();
        let policies = containers(spec)
            .map(|(list, i, _, policy)| (format!("spec.{list}[{i}].imagePullPolicy"), policy));
        let volumes = images.filter_map(|(i, v)| {
            Some((format!("spec.volumes[{i}].image.pullPolicy"), v.image.as_ref()?.pull_policy.as_deref()))
        });
        let refused = policies.chain(volumes).find(|(_, policy)| *policy != Some(ALWAYS));
        match refused {
            Some((field, policy)) => Err(request.forbidden(format!(
                "{field}: Unsupported value: {:?}: supported values: \"Always\"",
                policy.unwrap_or_default()
            ))),
            None => Ok(()),
        }
    }
}

/// All containers: the list they are in, their index, image and policy.
fn containers(spec: &PodSpec) -> impl Iterator<Item = (&'static str, usize, Option<&str>, Option<&str>)> {
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(i, c)| ("initContainers", i, c.image.as_deref(), c.image_pull_policy.as_deref()));
    let regular = spec.containers.iter().enumerate();
    let regular = regular.map(|(i, c)| ("containers", i, c.image.as_deref(), c.image_pull_policy.as_deref()));
    let ephemeral = spec.ephemeral_containers.iter().flatten().enumerate();
    let ephemeral = ephemeral
        .map(|(i, c)| ("ephemeralContainers", i, c.image.as_deref(), c.image_pull_policy.as_deref()));
    init.chain(regular).chain(ephemeral)
}

/// An update that brings no new image is left alone.
fn concerns(request: &Request<'_>, pod: &Pod) -> bool {
    if !request.writes("", "pods") {
        return false;
    }
    let images = |p: &Pod| -> BTreeSet<String> {
        p.spec.iter().flat_map(containers).filter_map(|(_, _, image, _)| image.map(Into::into)).collect()
    };
    let old = request.old.and_then(|o| o.get::<Pod>()).map(images);
    request.operation != Operation::Update || old.is_none_or(|old| !images(pod).is_subset(&old))
}
