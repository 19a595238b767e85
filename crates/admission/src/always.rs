//! AlwaysAdmit and AlwaysDeny: for tests of a cluster, both off by default.

use crate::{Plugin, Request};
use api::Status;
use api::object::Object;

/// Says nothing.
pub struct Admit;

impl Plugin for Admit {
    fn name(&self) -> &'static str {
        "AlwaysAdmit"
    }
}

/// Refuses everything.
pub struct Deny;

impl Plugin for Deny {
    fn name(&self) -> &'static str {
        "AlwaysDeny"
    }

    fn admit(&self, request: &Request<'_>, _object: Option<&mut Object>) -> Result<(), Status> {
        Err(request.forbidden("admission control is denying all modifications"))
    }
}
