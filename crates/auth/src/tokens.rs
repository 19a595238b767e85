//! Claims of the service account tokens that we issue.

use serde_json::{Value, json};

/// What a token is for.
#[derive(Clone, Debug, Default)]
pub struct TokenClaims<'a> {
    /// Who issues it.
    pub issuer: &'a str,
    /// For whom.
    pub audiences: &'a [String],
    /// Of which account: namespace, name and uid.
    pub account: (&'a str, &'a str, &'a str),
    /// Bound to a pod: name and uid.
    pub pod: Option<(&'a str, &'a str)>,
    /// Bound to a secret.
    pub secret: Option<(&'a str, &'a str)>,
    /// Bound to a node, or the pod's node.
    pub node: Option<(&'a str, &'a str)>,
    /// A new unique id.
    pub id: &'a str,
    /// When it is issued, in Unix seconds.
    pub now: i64,
    /// For how many seconds it is good.
    pub seconds: i64,
    /// After this many seconds its user is warned.
    pub warn_after: Option<i64>,
}

impl TokenClaims<'_> {
    /// As the token has them.
    pub fn to_value(&self) -> Value {
        let (namespace, name, uid) = self.account;
        let mut bound = json!({"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}});
        for (key, object) in [("pod", self.pod), ("secret", self.secret), ("node", self.node)] {
            if let Some((name, uid)) = object {
                bound[key] = json!({"name": name, "uid": uid});
            }
        }
        if let Some(after) = self.warn_after {
            bound["warnafter"] = json!(self.now + after);
        }
        json!({
            "iss": self.issuer, "aud": self.audiences, "sub": format!("system:serviceaccount:{namespace}:{name}"),
            "iat": self.now, "nbf": self.now, "exp": self.now + self.seconds, "jti": self.id, "kubernetes.io": bound,
        })
    }
}
