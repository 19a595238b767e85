//! Conditions of all kinds: found by their type, and set so that their time says since when the status holds.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerCondition;
use k8s_openapi::api::core::v1::{NamespaceCondition, NodeCondition, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{self as meta, Time};

/// What all conditions have.
pub trait Condition: PartialEq {
    /// Its type.
    fn kind(&self) -> &str;
    /// `True`, `False` or `Unknown`.
    fn status(&self) -> &str;
    /// Takes over since when the status holds.
    fn hold_since(&mut self, before: &Self);
}

macro_rules! conditions {
    ($($kind:ty),*) => {
        $(impl Condition for $kind {
            fn kind(&self) -> &str {
                &self.type_
            }
            fn status(&self) -> &str {
                &self.status
            }
            fn hold_since(&mut self, before: &Self) {
                let since: &Option<Time> = &before.last_transition_time;
                if since.is_some() {
                    self.last_transition_time.clone_from(since);
                }
            }
        })*
    };
}

conditions!(HorizontalPodAutoscalerCondition, NamespaceCondition, NodeCondition, PodCondition);

impl Condition for meta::Condition {
    fn kind(&self) -> &str {
        &self.type_
    }
    fn status(&self) -> &str {
        &self.status
    }
    fn hold_since(&mut self, before: &Self) {
        self.last_transition_time.clone_from(&before.last_transition_time);
    }
}

/// The condition of a type.
pub fn find<'a, C: Condition>(all: Option<&'a Vec<C>>, kind: &str) -> Option<&'a C> {
    all?.iter().find(|c| c.kind() == kind)
}

/// Sets a condition; whether that changed anything. Its time is kept if its status is the same.
pub fn set<C: Condition>(all: &mut Vec<C>, mut new: C) -> bool {
    let Some(old) = all.iter_mut().find(|c| c.kind() == new.kind()) else {
        all.push(new);
        return true;
    };
    if old.status() == new.status() {
        new.hold_since(old);
    }
    let changed = *old != new;
    *old = new;
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_that_of_the_status() {
        let condition = |status: &str, reason: &str, at: &str| NamespaceCondition {
            type_: "T".into(),
            status: status.into(),
            reason: Some(reason.into()),
            last_transition_time: Some(Time(at.parse().unwrap())),
            message: None,
        };
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let mut all = Vec::new();
        for (status, reason, at, changed, want) in [
            ("True", "a", early, true, early),
            ("True", "a", late, false, early),
            ("True", "b", late, true, early),
            ("False", "b", late, true, late),
        ] {
            assert_eq!(set(&mut all, condition(status, reason, at)), changed, "{status} {reason}");
            assert_eq!(find(Some(&all), "T"), Some(&condition(status, reason, want)));
        }
        assert_eq!(all.len(), 1);
        assert!(find(Some(&all), "U").is_none());
    }
}
