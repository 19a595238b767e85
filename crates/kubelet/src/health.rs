//! Whether the kubelet's loops go round: each says so as it goes, and one that has not for too long is stuck.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The loops by name: when each was last heard of, and how long it may be silent.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<BTreeMap<&'static str, (Instant, Duration)>>);

impl Health {
    /// A loop goes round; it will say so again within `within`.
    pub(crate) fn beat(&self, name: &'static str, within: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, (Instant::now(), within));
    }

    /// What is stuck, if anything is.
    pub(crate) fn stuck(&self) -> Option<String> {
        let beats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let late: Vec<String> = beats
            .iter()
            .map(|(name, (at, within))| (name, at.elapsed(), within))
            .filter(|(_, ago, within)| ago > *within)
            .map(|(name, ago, within)| {
                format!("{name}: last heard of {}s ago, {}s allowed", ago.as_secs(), within.as_secs())
            })
            .collect();
        (!late.is_empty()).then(|| late.join("; "))
    }
}

/// Tells systemd of our good health, where it asks for that, for as long as it is polled.
pub(crate) async fn tell_systemd(cx: std::sync::Arc<crate::context::Context>) {
    let socket = std::env::var("NOTIFY_SOCKET").ok().filter(|s| !s.is_empty());
    let usec = std::env::var("WATCHDOG_USEC").ok().and_then(|v| v.parse::<u64>().ok()).filter(|n| *n > 0);
    let Some(socket) = socket else { return std::future::pending().await };
    notify(&socket, "READY=1");
    let Some(usec) = usec else { return std::future::pending().await };
    // twice within the time allowed
    let mut tick = tokio::time::interval(Duration::from_micros(usec / 2));
    loop {
        tick.tick().await;
        match cx.health.stuck() {
            None => notify(&socket, "WATCHDOG=1"),
            Some(what) => tracing::error!(what, "the kubelet is stuck; systemd is not told that it is well"),
        }
    }
}

fn notify(socket: &str, word: &str) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(socket),
    };
    let sent = UnixDatagram::unbound().and_then(|s| {
        s.set_nonblocking(true)?;
        s.send_to_addr(word.as_bytes(), &address?)
    });
    if let Err(e) = sent {
        tracing::debug!(error = %e, "systemd could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_loop_is_named() {
        let h = Health::default();
        assert_eq!(h.stuck(), None);
        h.beat("a", Duration::from_secs(3600));
        h.beat("b", Duration::ZERO);
        std::thread::sleep(Duration::from_millis(2));
        assert!(h.stuck().is_some_and(|s| s.starts_with("b: ")));
        h.beat("b", Duration::from_secs(3600));
        assert_eq!(h.stuck(), None);
    }

    #[test]
    fn systemd_hears() -> std::io::Result<()> {
        let t = tempfile::tempdir()?;
        let at = t.path().join("s");
        let server = std::os::unix::net::UnixDatagram::bind(&at)?;
        notify(&at.to_string_lossy(), "WATCHDOG=1");
        let mut buffer = [0; 32];
        let n = server.recv(&mut buffer)?;
        assert_eq!(&buffer[..n], b"WATCHDOG=1");
        Ok(())
    }
}
