//! What can go wrong with a request.

use crate::ConfigError;
use api::Status;

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server said no.
    #[error("{0}")]
    Api(Box<Status>),
    /// The server could not be reached, or the connection broke.
    #[error("{server}: {reason}")]
    Transport {
        /// The server.
        server: String,
        /// Why.
        reason: String,
    },
    /// The server took too long.
    #[error("{0}: no answer in time")]
    Timeout(String),
    /// The answer can't be understood.
    #[error("{what}: cannot decode the answer: {reason}")]
    Decode {
        /// What was asked.
        what: String,
        /// Why.
        reason: String,
    },
    /// The request can't be made, such as for a name that is empty.
    #[error("cannot make the request: {0}")]
    Request(String),
    /// The client's configuration can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Error {
    /// What the server said, if it said anything.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Error::Api(status) => Some(status),
            _ => None,
        }
    }

    fn has_reason(&self, reason: &str) -> bool {
        self.status().is_some_and(|s| s.reason == reason)
    }

    /// Whether the object, or the resource, is not there.
    pub fn is_not_found(&self) -> bool {
        self.has_reason("NotFound")
    }

    /// Whether the object was changed under the caller.
    pub fn is_conflict(&self) -> bool {
        self.has_reason("Conflict")
    }

    /// Whether an object of that name is there.
    pub fn is_already_exists(&self) -> bool {
        self.has_reason("AlreadyExists")
    }

    /// Whether the resource version or continue token is too old.
    pub fn is_expired(&self) -> bool {
        self.has_reason("Expired") || self.has_reason("Gone") || self.status().is_some_and(|s| s.code == 410)
    }

    /// Whether the resource version is one that the server has not reached: it may have been put back to an
    /// earlier state, and the version will not come for long.
    pub fn is_too_new(&self) -> bool {
        let Some(status) = self.status() else { return false };
        let causes = status.details.as_ref().map(|d| d.causes.as_slice()).unwrap_or_default();
        causes.iter().any(|c| c.reason == "ResourceVersionTooLarge")
            || status.message.starts_with("Too large resource version")
    }

    /// Whether the caller may not.
    pub fn is_forbidden(&self) -> bool {
        self.has_reason("Forbidden")
    }

    /// Whether the object is not valid.
    pub fn is_invalid(&self) -> bool {
        self.has_reason("Invalid")
    }

    /// Whether there were too many requests, or a disruption budget allows none now.
    pub fn is_too_many_requests(&self) -> bool {
        self.has_reason("TooManyRequests")
    }

    /// Whether it was refused because its namespace is being deleted.
    pub fn is_namespace_terminating(&self) -> bool {
        let causes = self.status().and_then(|s| s.details.as_ref()).map(|d| d.causes.as_slice());
        causes.unwrap_or_default().iter().any(|c| c.reason == "NamespaceTerminating")
    }
}
