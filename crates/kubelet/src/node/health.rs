//! Whether the container runtime and its network are up.

use cri::Runtime;

/// What is wrong with the runtime; empty when all is well.
pub async fn check(runtime: &Runtime) -> (Vec<String>, Vec<cri::types::RuntimeHandler>) {
    let answer = match runtime.status().await {
        Ok(a) => a,
        Err(e) => return (vec![format!("container runtime is down: {e}")], Vec::new()),
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
    (wrong, answer.runtime_handlers)
}
