//! A command in the container: well when it ends with 0.

use super::Outcome;
use cri::Runtime;
use std::time::Duration;

/// How much of what it says goes into the event.
const MAX_OUTPUT: usize = 10 << 10;

/// Runs the command.
pub async fn probe(runtime: &Runtime, id: &str, command: Vec<String>, limit: Duration) -> Outcome {
    let shown = format!("{command:?}");
    match runtime.exec_sync(id, command, limit).await {
        Ok(r) if r.exit_code == 0 => Outcome::Success,
        Ok(r) => {
            let mut said = r.stdout;
            said.extend(r.stderr);
            said.truncate(MAX_OUTPUT);
            Outcome::Failure(String::from_utf8_lossy(&said).into_owned())
        }
        // the command, and not the runtime, took too long
        Err(e) if e.is_deadline() => {
            Outcome::Failure(format!("command timed out: {shown} timed out after {}s", limit.as_secs()))
        }
        Err(e) => Outcome::Unknown(format!("rpc error: {e}")),
    }
}
