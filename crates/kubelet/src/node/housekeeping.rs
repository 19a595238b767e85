//! What has to be done now and then: images nobody uses, logs that grow, watches nobody needs, pods that wait for room.

use crate::blocking;
use crate::context::Context;
use crate::pods::Pods;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, warn};

const IMAGES_EVERY: Duration = Duration::from_secs(300);

/// For so long the loop may be silent.
const BEAT: Duration = Duration::from_secs(900);

/// Does it, for as long as it is polled.
pub(crate) async fn run(cx: Arc<Context>, pods: Arc<Pods>) {
    let mut tick = tokio::time::interval(cx.config.container_log_interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut images = Instant::now();
    let mut burstable = None;
    loop {
        tick.tick().await;
        cx.health.beat("housekeeping", BEAT.max(cx.config.container_log_interval * 10));
        rotate(&cx, &pods).await;
        pods.retry_resizes();
        cx.objects.retain(&pods.references());
        let cpu = pods.burstable_cpu();
        if burstable != Some(cpu) {
            match cx.cgroups.set_burstable_shares(&cx.blocking, cpu).await {
                Ok(()) => burstable = Some(cpu),
                Err(e) => warn!(error = %e, "the share of burstable pods is not as it should be"),
            }
        }
        if images.elapsed() >= IMAGES_EVERY {
            images = Instant::now();
            if let Err(e) = cx.images.collect_garbage(&cx).await {
                debug!(error = %e, "images could not be looked through");
            }
        }
    }
}

/// What a log needs.
#[derive(Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    /// It is not there: who moved it away did not come to have it opened anew.
    Reopen,
    /// It was moved away.
    Moved(PathBuf),
}

/// Moves a log aside that has grown too large. It may block.
fn move_aside(log: &Path, most: u64) -> std::io::Result<Need> {
    match std::fs::metadata(log) {
        Ok(m) if m.len() > most => {}
        Ok(_) => return Ok(Need::Nothing),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Need::Reopen),
        Err(e) => return Err(e),
    }
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
    let aside = PathBuf::from(format!("{}.{stamp}", log.display()));
    std::fs::rename(log, &aside)?;
    Ok(Need::Moved(aside))
}

/// Starts a new log file for containers whose log has grown too large.
async fn rotate(cx: &Context, pods: &Pods) {
    let (most, keep) = (cx.config.container_log_max_size, cx.config.container_log_max_files);
    for (id, log) in pods.running_logs() {
        if log.is_empty() {
            continue;
        }
        let path = PathBuf::from(&log);
        let need = match blocking::quick(move || move_aside(&path, most)).await.and_then(|r| r) {
            Ok(Need::Nothing) => continue,
            Ok(need) => need,
            Err(e) => {
                warn!(log, error = %e, "log could not be rotated");
                continue;
            }
        };
        let opened = cx.runtime.reopen_container_log(&id).await;
        if let Err(e) = &opened {
            warn!(log, error = %e, "the runtime did not open the log anew");
        }
        let (path, opened) = (PathBuf::from(&log), opened.is_ok());
        let finished = blocking::quick(move || match need {
            Need::Moved(aside) if !opened => std::fs::rename(aside, &path),
            _ => {
                prune(&path, keep);
                Ok(())
            }
        });
        if let Err(e) = finished.await.and_then(|r| r) {
            warn!(log, error = %e, "a moved log stays where it is");
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
    fn a_log_that_was_moved_and_not_opened_anew_is_found() -> std::io::Result<()> {
        let d = tempfile::tempdir()?;
        let log = d.path().join("0.log");
        assert_eq!(move_aside(&log, 1)?, Need::Reopen);
        std::fs::write(&log, "1")?;
        assert_eq!(move_aside(&log, 1)?, Need::Nothing);
        std::fs::write(&log, "22")?;
        assert!(matches!(move_aside(&log, 1)?, Need::Moved(to) if to.exists()) && !log.exists());
        Ok(())
    }

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
