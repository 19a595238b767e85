//! GET of one object.

use super::{Answer, Request, store_failed};
use crate::cache::Entry;
use api::Status;
use std::sync::Arc;
use std::time::Duration;

/// How long a request waits for a resourceVersion that is yet to come: upstream's.
pub const WAIT_FOR_REVISION: Duration = Duration::from_secs(3);

/// Reads `resourceVersion`: `None` if it is not given.
pub fn resource_version(request: &Request) -> Result<Option<u64>, Status> {
    let parse = |v: &str| {
        v.parse().map_err(|_| {
            Status::bad_request(format!(
                "resourceVersion: Invalid value: {v:?}: strconv.ParseUint: parsing {v:?}: invalid syntax"
            ))
        })
    };
    request.query.text("resourceVersion").map(parse).transpose()
}

/// Waits until the cache shows `wanted` (any state for 0), or everything there is if nothing is wanted.
pub async fn wait(request: &Request, wanted: Option<u64>) -> Result<(), Status> {
    match wanted {
        None => request.server.consistent().await.map_err(store_failed),
        Some(revision) => {
            if request.server.cache.reach(revision, WAIT_FOR_REVISION).await {
                return Ok(());
            }
            let current = request.server.cache.applied();
            Err(Status::timeout(format!("Too large resource version: {revision}, current: {current}"), 1)
                .cause("ResourceVersionTooLarge", "Too large resource version", ""))
        }
    }
}

/// The object asked for, as fresh as asked.
pub async fn read(request: &Request) -> Result<Arc<Entry>, Status> {
    let collection = request.resource.collection("get")?;
    wait(request, resource_version(request)?).await?;
    collection.get(&request.key()).ok_or_else(|| request.not_found())
}

/// Answers with the object asked for.
pub async fn get(request: &Request) -> Answer {
    let entry = read(request).await?;
    request.answer(200, &entry)
}
