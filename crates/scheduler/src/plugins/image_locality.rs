//! ImageLocality: nodes that have a pod's images are better, more so for images that many nodes have:
//! one node with a rare image should not draw all its pods.

use super::Plugin;
use crate::framework::MAX_SCORE;

const MIN: i64 = 23 << 20;
const MAX_EACH: i64 = 1000 << 20;

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "ImageLocality",
    weight: 1,
    score: |pod, cluster, nodes| {
        let spec = pod.spec()?;
        let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let volumes = spec.volumes.iter().flatten().filter_map(|v| v.image.as_ref()?.reference.as_deref());
        let images = containers().filter_map(|c| c.image.as_deref()).chain(volumes);
        let known: Vec<_> = images.filter_map(|image| cluster.images.get(&normalized(image))).collect();
        if known.is_empty() {
            return None;
        }
        let (all, max) = (cluster.node_count() as f64, MAX_EACH * containers().count().max(1) as i64);
        let score = |at: &usize| {
            let name = &cluster.rows.get(*at)?.name;
            let here = known.iter().filter_map(|sizes| Some((sizes.get(name)?, sizes.len())));
            let sum: i64 = here.map(|(size, count)| (*size as f64 * (count as f64 / all)) as i64).sum();
            Some(MAX_SCORE * (sum.clamp(MIN, max) - MIN) / (max - MIN))
        };
        Some(nodes.iter().map(|at| score(at).unwrap_or(0)).collect())
    },
    ..Plugin::NONE
};

/// Nodes list images with their tag.
fn normalized(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains(':') || name.contains('@') { image.into() } else { format!("{image}:latest") }
}
