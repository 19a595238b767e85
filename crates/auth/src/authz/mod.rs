//! Authorizers, one file each, asked in the order of `--authorization-mode`.

pub mod node;
pub mod rbac;

use crate::{Attributes, Decision, MASTERS, User};
use api::read::ObjectReader;

/// `--authorization-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What the Node authorizer knows of kubelets.
    Node,
    /// Roles and bindings.
    Rbac,
    /// Everyone may everything.
    AlwaysAllow,
    /// Nobody may anything.
    AlwaysDeny,
}

/// All authorizers.
pub struct Authorizers {
    modes: Vec<Mode>,
    /// Roles and bindings, for those who ask for rules.
    pub rbac: rbac::Rbac,
}

impl Authorizers {
    /// Authorizers in the order given.
    pub fn new(modes: Vec<Mode>) -> Self {
        Authorizers { modes, rbac: rbac::Rbac::default() }
    }

    /// Whether RBAC is one of them: then its roles are made, and nobody grants what they have not.
    pub fn uses_rbac(&self) -> bool {
        self.modes.contains(&Mode::Rbac)
    }

    /// The first word that is no shrug.
    pub fn authorize(&self, user: &User, asked: &Attributes<'_>, reader: &dyn ObjectReader) -> Decision {
        if user.is_in(MASTERS) {
            return Decision::Allow;
        }
        let mut reasons = Vec::new();
        for mode in &self.modes {
            let decision = match mode {
                Mode::Node => node::authorize(user, asked, reader),
                Mode::Rbac => self.rbac.authorize(user, asked, reader),
                Mode::AlwaysAllow => Decision::Allow,
                Mode::AlwaysDeny => Decision::NoOpinion("Everything is forbidden.".into()),
            };
            match decision {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return decided,
            }
        }
        Decision::NoOpinion(reasons.join(", "))
    }
}
