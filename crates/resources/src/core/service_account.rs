//! ServiceAccount.

use crate::Kind;
use crate::kind::{Served, age_column};
use k8s_openapi::api::core::v1::{ObjectReference, ServiceAccount};

const MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";

/// The rules of ServiceAccount.
pub static KIND: Kind<ServiceAccount> = Kind {
    answers_deleted: true,
    prepare_create: |a, _| only_names(a),
    prepare_update: |new, _, _| only_names(new),
    warnings: |new, old| {
        let annotated =
            |a: &ServiceAccount| a.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MOUNTABLE));
        match annotated(new) && !old.is_some_and(annotated) {
            true => vec![format!(
                "metadata.annotations[{MOUNTABLE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
            )],
            false => Vec::new(),
        }
    },
    columns: &[age_column()],
    served: &[Served {
        name: "token",
        body: ("authentication.k8s.io", "v1", "TokenRequest"),
        verbs: &["create"],
    }],
    ..Kind::namespaced("serviceaccount", "serviceaccounts").called(&["sa"], &[])
};

/// Of secrets only the names are kept.
fn only_names(a: &mut ServiceAccount) {
    for secret in a.secrets.iter_mut().flatten() {
        *secret = ObjectReference { name: secret.name.take(), ..ObjectReference::default() };
    }
}
