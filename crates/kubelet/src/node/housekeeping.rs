//! What has to be done now and then: images nobody uses, logs that grow, watches nobody needs, pods that wait for room.

use crate::context::Context;
use crate::pods::Pods;
use crate::runtime::observed::State;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, warn};

const IMAGES_EVERY: Duration = Duration::from_secs(300);

/// Does it, for as long as it is polled.
pub async fn run(cx: Arc<Context>, pods: Arc<Pods>) {
    let mut tick = tokio::time::interval(cx.config.container_log_interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut images = Instant::now();
    loop {
        tick.tick().await;
        rotate(&cx, &pods).await;
        pods.retry_resizes();
        cx.objects.retain(&pods.references());
        if images.elapsed() >= IMAGES_EVERY {
            images = Instant::now();
            if let Err(e) = cx.images.collect_garbage(&cx).await {
                debug!(error = %e, "images could not be looked through");
            }
        }
    }
}

/// Starts a new log file for containers whose log has grown too large.
async fn rotate(cx: &Context, pods: &Pods) {
    for (_, seen) in pods.list() {
        for c in seen.containers.iter().filter(|c| c.state == State::Running) {
            let path = Path::new(&c.log_path);
            let large = std::fs::metadata(path).is_ok_and(|m| m.len() > cx.config.container_log_max_size);
            if !large {
                continue;
            }
            let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
            let aside = format!("{}.{stamp}", c.log_path);
            if let Err(e) = std::fs::rename(path, &aside) {
                warn!(log = c.log_path, error = %e, "log could not be rotated");
                continue;
            }
            if let Err(e) = cx.runtime.reopen_container_log(&c.id).await {
                warn!(log = c.log_path, error = %e, "the runtime did not open the log anew");
                let _ = std::fs::rename(&aside, path);
                continue;
            }
            prune(path, cx.config.container_log_max_files);
        }
    }
}

/// Keeps the newest files of a log.
fn prune(path: &Path, keep: usize) {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().map(|n| n.to_string_lossy().into_owned()))
    else {
        return;
    };
    let mut old: Vec<_> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&format!("{name}."))))
        .collect();
    old.sort();
    let extra = (old.len() + 1).saturating_sub(keep);
    for p in old.into_iter().take(extra) {
        let _ = std::fs::remove_file(p);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_logs_are_kept() -> std::io::Result<()> {
        let d = tempfile::tempdir()?;
        let log = d.path().join("0.log");
        for n in ["0.log", "0.log.20260101-000000", "0.log.20260102-000000", "0.log.20260103-000000", "1.log"]
        {
            std::fs::write(d.path().join(n), "")?;
        }
        prune(&log, 3);
        let mut left: Vec<String> = std::fs::read_dir(d.path())?
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        left.sort();
        assert_eq!(left, ["0.log", "0.log.20260102-000000", "0.log.20260103-000000", "1.log"]);
        Ok(())
    }
}
