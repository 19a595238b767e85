//! Whether the container runtime and its network are up.

use crate::context::Abilities;
use cri::Runtime;

/// What is wrong with the runtime; empty when all is well.
pub(crate) async fn check(
    runtime: &Runtime,
) -> (Vec<String>, Option<Abilities>, Vec<cri::types::RuntimeHandler>) {
    let answer = match runtime.status().await {
        Ok(a) => a,
        Err(e) => return (vec![format!("container runtime is down: {e}")], None, Vec::new()),
    };
    let mut wrong = Vec::new();
    let conditions = answer.status.unwrap_or_default().conditions;
    for (name, what) in [
        ("RuntimeReady", "container runtime not ready"),
        ("NetworkReady", "container runtime network not ready"),
    ] {
        match conditions.iter().find(|c| c.r#type == name) {
            Some(c) if c.status => {}
            Some(c) => wrong.push(format!("{what}: {name}=false reason:{} message:{}", c.reason, c.message)),
            None => wrong.push(format!("{what}: condition {name} is missing")),
        }
    }
    let handlers = answer.runtime_handlers;
    let recursive =
        handlers.iter().filter(|h| h.features.as_ref().is_some_and(|f| f.recursive_read_only_mounts));
    let abilities = Abilities {
        recursive_read_only: recursive.map(|h| h.name.clone()).collect(),
        supplemental_groups_policy: answer.features.is_some_and(|f| f.supplemental_groups_policy),
    };
    (wrong, Some(abilities), handlers)
}
