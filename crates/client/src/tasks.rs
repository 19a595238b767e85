//! Tasks that must not be missed: one that panics ends the daemon, which is started anew, rather than go on
//! with a part that is dead.

use futures::FutureExt;
use std::any::Any;
use std::panic::AssertUnwindSafe;
use tokio_util::sync::CancellationToken;

/// What a panic said.
pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Runs `work`, which ends with `stop`. If it panics, everything that hangs on `stop` ends.
pub(crate) fn spawn(name: String, stop: CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move {
        let ended = stop.run_until_cancelled(AssertUnwindSafe(work).catch_unwind()).await;
        if let Some(Err(panic)) = ended {
            tracing::error!("{name} panicked: {}", message(&*panic));
            stop.cancel();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_all() {
        let stop = CancellationToken::new();
        spawn("a task".into(), stop.clone(), async { panic!("at the disco") });
        stop.cancelled().await;
    }
}
