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
    /// The container has no such port.
    #[error("couldn't find port {0}")]
    Port(String),
    /// There is no such hook.
    #[error("{0} hooks are not supported")]
    Unsupported(&'static str),
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
            let first = http::url(c, h, ip).ok_or_else(|| HookError::Port(format!("{:?}", h.port)))?;
            // what it answers is not judged
            match http::get(&first, h).await {
                // a hook written for the wrong scheme meets plain HTTP: its secrets are not for that
                Err(http::GetError::NotTls) if h.scheme.as_deref() == Some("HTTPS") => {
                    let secret = |n: &str| n.eq_ignore_ascii_case("authorization");
                    let headers = h.http_headers.iter().flatten().filter(|h| !secret(&h.name)).cloned();
                    let plain = HTTPGetAction {
                        scheme: Some("HTTP".into()),
                        http_headers: Some(headers.collect()),
                        ..h.clone()
                    };
                    let url = first.replacen("https://", "http://", 1);
                    http::get(&url, &plain).await?
                }
                other => other?,
            };
        } else if hook.tcp_socket.is_some() {
            return Err(HookError::Unsupported("tcpSocket"));
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
