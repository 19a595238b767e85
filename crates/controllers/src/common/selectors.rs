//! Selectors, each parsed once as long as its object stays as it is.

use api::selector::{LabelSelector, SelectorError};
use client::{Meta, ObjectExt};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Parsed selectors by the unique id of their object, with the version they were read from.
#[derive(Default)]
pub struct Selectors(Mutex<HashMap<String, (String, Option<Arc<LabelSelector>>)>>);

impl Selectors {
    /// An object's selector; none if it can't be read. `parse` is asked when the object has changed.
    pub fn of<T: Meta>(
        &self,
        object: &T,
        parse: impl FnOnce(&T) -> Result<LabelSelector, SelectorError>,
    ) -> Option<Arc<LabelSelector>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get(object.uid()) {
            Some((version, selector)) if version == object.resource_version() => selector.clone(),
            _ => {
                let selector = parse(object).ok().map(Arc::new);
                all.insert(object.uid().into(), (object.resource_version().into(), selector.clone()));
                selector
            }
        }
    }

    /// The object is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Service;

    #[test]
    fn a_selector_is_parsed_once_for_a_version() {
        let (all, mut s) = (Selectors::default(), Service::default());
        s.metadata.uid = Some("u".into());
        let of = |s: &Service, text: &str| {
            all.of(s, |_| LabelSelector::parse(text)).is_some_and(|l| !l.is_empty())
        };
        assert!(of(&s, "a=b"));
        assert!(of(&s, "")); // it is not asked again
        s.metadata.resource_version = Some("2".into());
        assert!(!of(&s, ""));
        all.forget("u");
        assert!(of(&s, "a=b"));
    }
}
