//! What `/healthz` and its like say: whether the lease is renewed, and whether each controller runs.

use client::leader::Leadership;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A leader whose lease ended so long ago is not well: upstream's.
const TOLERANCE: Duration = Duration::from_secs(20);

/// The checks of the daemon. Clones share them.
#[derive(Clone, Default)]
pub struct Health {
    leadership: Arc<Mutex<Option<(Leadership, String)>>>,
    controllers: Arc<Mutex<BTreeMap<&'static str, bool>>>,
}

impl Health {
    /// Checks that the lease is renewed.
    pub fn watch(&self, leadership: Leadership, lease: &str) {
        *self.leadership.lock().unwrap_or_else(PoisonError::into_inner) = Some((leadership, lease.into()));
    }

    /// A controller runs, or has come to its end though it should not.
    pub fn runs(&self, controller: &'static str, runs: bool) {
        self.controllers.lock().unwrap_or_else(PoisonError::into_inner).insert(controller, runs);
    }

    /// Each check and why it fails, if it does.
    fn checks(&self) -> Vec<(String, Option<String>)> {
        let mut checks = Vec::new();
        if let Some((leadership, lease)) = &*self.leadership.lock().unwrap_or_else(PoisonError::into_inner) {
            let stale = leadership.is_stale(TOLERANCE);
            let why = stale.then(|| format!("failed election to renew leadership on lease {lease}"));
            checks.push(("leaderElection".to_string(), why));
        }
        for (name, runs) in &*self.controllers.lock().unwrap_or_else(PoisonError::into_inner) {
            checks.push(((*name).to_string(), (!runs).then(|| "the controller has ended".to_string())));
        }
        checks
    }

    /// What a request for a path such as `/healthz` or `/healthz/leaderElection` is answered: whether all is well,
    /// and the text; none if there is no such check.
    pub fn answer(&self, path: &str, verbose: bool) -> Option<(bool, String)> {
        let mut parts = path.trim_matches('/').splitn(2, '/');
        let (endpoint, one) = (parts.next().unwrap_or_default(), parts.next());
        let checks = self.checks();
        if let Some(one) = one {
            let (_, why) = checks.into_iter().find(|(name, _)| name == one)?;
            let failed = |why: &str| format!("internal server error: {why}\n");
            return Some((why.is_none(), why.as_deref().map_or("ok".into(), failed)));
        }
        let well = checks.iter().all(|(_, why)| why.is_none());
        if well && !verbose {
            return Some((true, "ok".into()));
        }
        let mut text = String::new();
        for (name, why) in &checks {
            match why {
                None => text.push_str(&format!("[+]{name} ok\n")),
                Some(why) => {
                    tracing::warn!("{endpoint}: {name}: {why}");
                    text.push_str(&format!("[-]{name} failed: reason withheld\n"));
                }
            }
        }
        text.push_str(&format!("{endpoint} check {}\n", if well { "passed" } else { "failed" }));
        Some((well, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_tell_the_truth() {
        let health = Health::default();
        assert_eq!(health.answer("/healthz", false), Some((true, "ok".into())));
        health.watch(Leadership::default(), "kube-controller-manager");
        health.runs("job-controller", true);
        let all = "[+]leaderElection ok\n[+]job-controller ok\nreadyz check passed\n";
        assert_eq!(health.answer("/readyz", true), Some((true, all.into())));
        assert_eq!(health.answer("/healthz/job-controller", false), Some((true, "ok".into())));
        assert_eq!(health.answer("/healthz/nobody", false), None);
        health.runs("job-controller", false);
        let (well, text) = health.answer("/livez", false).unwrap();
        assert!(!well && text.contains("[-]job-controller failed") && text.ends_with("livez check failed\n"));
        assert!(!health.answer("/livez/job-controller", false).unwrap().0);
    }
}
