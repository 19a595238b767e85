//! Hooks: what runs in a container right after it starts and right before it is stopped.

use crate::context::Context;
use crate::probes::http;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler};
use std::time::Duration;

/// Why a hook failed; the container fares accordingly.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The command ended badly.
    #[error("command '{command}' exited with {code}: {output}")]
    Exit {
        /// The words of it.
        command: String,
        /// Its exit code.
        code: i32,
        /// What it said.
        output: String,
    },
    /// The runtime could not run it.
    #[error(transparent)]
    Runtime(#[from] cri::Error),
    /// The request failed.
    #[error(transparent)]
    Http(#[from] http::GetError),
    /// The answer was no good.
    #[error("HTTP hook answered {0}")]
    Status(u16),
    /// It took longer than it may.
    #[error("the hook did not end in time")]
    TimedOut,
}

/// Runs one, for at most `limit` when that is given.
pub async fn run(
    cx: &Context,
    id: &str,
    c: &Container,
    ip: &str,
    hook: &LifecycleHandler,
    limit: Option<Duration>,
) -> Result<(), HookError> {
    let running = async {
        if let Some(e) = &hook.exec {
            let command = e.command.clone().unwrap_or_default();
            let shown = command.join(" ");
            let r = cx.runtime.exec_sync(id, command, limit.unwrap_or_default()).await?;
            if r.exit_code != 0 {
                let output = String::from_utf8_lossy(&[r.stdout, r.stderr].concat()).trim().to_owned();
                return Err(HookError::Exit { command: shown, code: r.exit_code, output });
            }
        } else if let Some(h) = &hook.http_get {
            let first = http::url(c, h, ip);
            let answer = match http::get(&first, h).await {
                // upstream tries plain HTTP where a hook written for the wrong scheme meets it
                Err(_) if h.scheme.as_deref() == Some("HTTPS") => {
                    let plain = HTTPGetAction { scheme: Some("HTTP".into()), ..h.clone() };
                    http::get(&http::url(c, &plain, ip), &plain).await?
                }
                other => other?,
            };
            if !(200..400).contains(&answer.status) {
                return Err(HookError::Status(answer.status));
            }
        } else if let Some(s) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(u64::try_from(s.seconds).unwrap_or(0))).await;
        }
        Ok(())
    };
    match limit {
        Some(limit) => tokio::time::timeout(limit, running).await.unwrap_or(Err(HookError::TimedOut)),
        None => running.await,
    }
}
