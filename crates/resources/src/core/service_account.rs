//! ServiceAccount.

use crate::kind::{Served, age_column};
use crate::{Column, Kind};
use k8s_openapi::api::core::v1::ServiceAccount;

/// The rules of ServiceAccount.
pub static KIND: Kind<ServiceAccount> = Kind {
    create_on_update: true,
    columns: &[
        Column::number("Secrets", "How many secrets it names.", |a: &ServiceAccount, _| {
            a.secrets.as_ref().map_or(0, Vec::len).into()
        }),
        age_column(),
    ],
    served: &[Served {
        name: "token",
        body: ("authentication.k8s.io", "v1", "TokenRequest"),
        verbs: &["create"],
    }],
    ..Kind::namespaced("serviceaccount", "serviceaccounts").called(&["sa"], &[])
};
