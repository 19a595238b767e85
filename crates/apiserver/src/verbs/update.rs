//! PUT of an object.

use super::modify::{How, Made, modify};
use super::{Answer, Request};
use crate::request::Verb;
use bytes::Bytes;

/// Replaces the object with the one in the body, or makes it, where its kind is made so.
pub async fn update(request: &Request, body: Bytes, part: Option<&str>) -> Answer {
    request.resource.collection("update")?;
    let value = request.decode_own(&body)?;
    let manager = request.manager();
    let how = How { part, checked: true, manager: &manager };
    let make = |_: &_| Ok(Made { value: value.clone(), applied: false });
    match modify(request, how, &make).await? {
        Some(outcome) => request.answer(200, &outcome.entry()),
        None if part.is_none() && request.resource.kind.create_on_update() => {
            crate::access::check(request, Verb::Create)?;
            let entry = super::create::create_value(request, value, false).await?;
            request.answer(201, &entry)
        }
        None => Err(request.not_found()),
    }
}
