//! Authenticators, one file each.

pub mod bootstrap_token;
pub mod certificate;
pub mod front_proxy;
pub mod service_account;
pub mod token_file;

use crate::{AUTHENTICATED, User};
use api::read::ObjectReader;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Why a credential is not accepted. The client hears only `Unauthorized`; this goes to the log.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Rejected(pub String);

/// Authenticates bearer tokens: from the token file, of service accounts, for bootstrap.
#[derive(Default)]
pub struct Tokens {
    /// `--token-auth-file`.
    pub file: token_file::TokenFile,
    /// `--service-account-key-file` and what belongs to it.
    pub service_accounts: Option<service_account::ServiceAccounts>,
    /// `--enable-bootstrap-token-auth`.
    pub bootstrap: bool,
    /// `--api-audiences`: who this server is.
    pub audiences: Vec<String>,
    accepted: Mutex<HashMap<String, (Instant, User)>>,
}

/// How long a token that was accepted is accepted without another look: upstream's token cache.
const REMEMBER: Duration = Duration::from_secs(10);
/// Tokens that are remembered at the most.
const REMEMBERED: usize = 4096;

impl Tokens {
    /// The user a token stands for.
    pub fn authenticate(&self, token: &str, reader: &dyn ObjectReader) -> Result<User, Rejected> {
        if let Some(user) = self.file.user(token) {
            return Ok(with_authenticated(user.clone()));
        }
        if let Some((until, user)) = self.accepted.lock().unwrap_or_else(PoisonError::into_inner).get(token)
            && *until > Instant::now()
        {
            return Ok(user.clone());
        }
        let user = with_authenticated(self.look(token, &self.audiences, reader)?.0);
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if accepted.len() >= REMEMBERED {
            let now = Instant::now();
            accepted.retain(|_, (until, _)| *until > now);
            if accepted.len() >= REMEMBERED {
                accepted.clear();
            }
        }
        accepted.insert(token.to_string(), (Instant::now() + REMEMBER, user.clone()));
        Ok(user)
    }

    /// The same for certain audiences, as a TokenReview asks, or for this server's if there are none; with those of
    /// them that the token is for. Never from memory.
    pub fn review(
        &self,
        token: &str,
        audiences: &[String],
        reader: &dyn ObjectReader,
    ) -> Result<(User, Vec<String>), Rejected> {
        let audiences = if audiences.is_empty() { &self.audiences } else { audiences };
        let (user, good_for) = self.look(token, audiences, reader)?;
        Ok((with_authenticated(user), good_for))
    }

    /// Whom a token stands for, and for which of some audiences it is.
    fn look(
        &self,
        token: &str,
        audiences: &[String],
        reader: &dyn ObjectReader,
    ) -> Result<(User, Vec<String>), Rejected> {
        if let Some(accounts) = &self.service_accounts
            && token.matches('.').count() == 2
            && self.file.user(token).is_none()
        {
            return accounts.user(token, audiences, &self.audiences, reader);
        }
        let user = match self.file.user(token) {
            Some(user) => user.clone(),
            None if self.bootstrap => bootstrap_token::user(token, reader)?,
            None => return Err(Rejected("the token is not known".into())),
        };
        Ok((user, of_this_server(audiences, &self.audiences)?))
    }
}

/// What says no audience is for this server alone.
fn of_this_server(asked: &[String], own: &[String]) -> Result<Vec<String>, Rejected> {
    let good_for: Vec<String> = asked.iter().filter(|a| own.contains(a)).cloned().collect();
    // Without any of its own, this server has no name that a token could be for.
    if good_for.is_empty() && !(asked.is_empty() && own.is_empty()) {
        return Err(Rejected("the token is for another audience".into()));
    }
    Ok(good_for)
}

fn with_authenticated(mut user: User) -> User {
    if !user.is_in(AUTHENTICATED) {
        user.groups.push(AUTHENTICATED.into());
    }
    user
}
