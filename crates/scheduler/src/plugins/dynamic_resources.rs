//! DynamicResources: nobody here can allocate claims of devices yet, so that a pod that has some must wait, and say why.

use super::Plugin;
use crate::framework::Prepared;

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "DynamicResources",
    filter: |pod, _| match pod.spec().and_then(|s| s.resource_claims.as_ref()).is_some_and(|c| !c.is_empty())
    {
        true => Prepared::Reject(
            "this scheduler does not allocate resource claims (dynamic resource allocation) yet".into(),
        ),
        false => Prepared::Skip,
    },
    ..Plugin::NONE
};
