//! Whose an object is: controllers adopt orphans that their selector matches and release what it no longer does.

use super::controller_ref;
use crate::Error;
use client::{Client, Meta, Object, ObjectExt, Patch};
use serde_json::json;
use std::sync::Arc;

/// What is to be done about objects that may belong to an owner.
#[derive(Debug)]
pub struct Claims<T> {
    /// They do belong to it.
    pub mine: Vec<Arc<T>>,
    /// They belong to nobody and match.
    pub adopt: Vec<Arc<T>>,
    /// They belong to it and match no more.
    pub release: Vec<Arc<T>>,
}

/// Sorts out which of the candidates belong to an owner. An owner that is being deleted takes and gives nothing.
pub fn sort_out<T: Meta>(
    owner_uid: &str,
    owner_deleting: bool,
    candidates: Vec<Arc<T>>,
    matches: impl Fn(&T) -> bool,
) -> Claims<T> {
    let mut claims = Claims { mine: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    for object in candidates {
        match object.controller() {
            Some(c) if c.uid != owner_uid => {}
            Some(_) if matches(&object) => claims.mine.push(object),
            Some(_) if owner_deleting => {}
            Some(_) => claims.release.push(object),
            None if !owner_deleting && !object.is_deleting() && matches(&object) => claims.adopt.push(object),
            None => {}
        }
    }
    claims
}

/// Adopts and releases; answers what belongs to the owner then.
pub async fn claim<K: Object, T: Object>(
    client: &Client,
    owner: &K,
    candidates: Vec<Arc<T>>,
    matches: impl Fn(&T) -> bool,
) -> Result<Vec<Arc<T>>, Error> {
    claim_marked(client, owner, candidates, None, matches).await
}

/// The same; what is adopted gets a finalizer.
pub async fn claim_marked<K: Object, T: Object>(
    client: &Client,
    owner: &K,
    candidates: Vec<Arc<T>>,
    finalizer: Option<&str>,
    matches: impl Fn(&T) -> bool,
) -> Result<Vec<Arc<T>>, Error> {
    let Claims { mut mine, adopt, release } = sort_out(owner.uid(), owner.is_deleting(), candidates, matches);
    if !adopt.is_empty() {
        // The cache may not know yet that the owner is being deleted.
        let fresh: K = client.get(owner.namespace(), owner.name()).await?;
        if fresh.uid() != owner.uid() {
            return Err(Error::Other(format!(
                "{} {} is gone: there is another of its name",
                K::KIND,
                owner.key()
            )));
        }
        if fresh.is_deleting() {
            return Err(Error::Other(format!("{} {} is being deleted", K::KIND, owner.key())));
        }
    }
    for object in adopt {
        let mut body = json!({"metadata": {"uid": object.uid(), "ownerReferences": [controller_ref(owner)]}});
        if let Some(finalizer) = finalizer {
            body["metadata"]["finalizers"] = json!([finalizer]);
        }
        match client.patch::<T>(object.namespace(), object.name(), &Patch::Strategic(body)).await {
            Ok(adopted) => mine.push(Arc::new(adopted)),
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e.into()),
        }
    }
    for object in release {
        let reference = json!({"$patch": "delete", "uid": owner.uid()});
        let body = json!({"metadata": {"uid": object.uid(), "ownerReferences": [reference]}});
        match client.patch::<T>(object.namespace(), object.name(), &Patch::Strategic(body)).await {
            Ok(_) => {}
            // It is gone, or another of its name is there.
            Err(e) if e.is_not_found() || e.is_invalid() || e.is_conflict() => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(mine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    fn pod(name: &str, owner: &str, label: &str) -> Arc<Pod> {
        let mut p = Pod::default();
        p.metadata.name = Some(name.into());
        p.metadata.labels = Some([("app".to_string(), label.to_string())].into());
        if !owner.is_empty() {
            p.metadata.owner_references = Some(vec![OwnerReference {
                uid: owner.into(),
                controller: Some(true),
                ..Default::default()
            }]);
        }
        Arc::new(p)
    }

    #[test]
    fn candidates_are_sorted_out() {
        let all = || {
            vec![
                pod("mine", "me", "a"),
                pod("lost", "me", "b"),
                pod("orphan", "", "a"),
                pod("other", "", "b"),
                pod("theirs", "you", "a"),
            ]
        };
        let names = |v: &[Arc<Pod>]| v.iter().map(|p| p.name().to_string()).collect::<Vec<_>>().join(",");
        let show = |c: Claims<Pod>| format!("{} {} {}", names(&c.mine), names(&c.adopt), names(&c.release));
        let matches = |p: &Pod| p.label("app") == Some("a");
        assert_eq!(show(sort_out("me", false, all(), matches)), "mine orphan lost");
        assert_eq!(show(sort_out("me", true, all(), matches)), "mine  ");
    }
}
