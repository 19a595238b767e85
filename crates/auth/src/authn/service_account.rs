//! Service account tokens: signed by us, bound to an account and perhaps to a pod, a secret or a node.

use super::Rejected;
use crate::User;
use api::read::{self, ObjectReader};
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pki::jwt::Verifier;
use serde_json::Value;

/// Checks service account tokens.
pub struct ServiceAccounts {
    /// The keys that may have signed one.
    pub verifier: Verifier,
    /// `--service-account-issuer`: the first issues, all are accepted.
    pub issuers: Vec<String>,
}

/// Tokens of the older kind, kept in Secrets.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

impl ServiceAccounts {
    /// The account's user, if the token is for one of `asked`; with those it is for. `own` are this server's audiences.
    pub fn user(
        &self,
        token: &str,
        asked: &[String],
        own: &[String],
        reader: &dyn ObjectReader,
    ) -> Result<(User, Vec<String>), Rejected> {
        let claims = self.verifier.verify(token).map_err(|e| Rejected(e.to_string()))?;
        let issuer = claims["iss"].as_str().unwrap_or_default();
        if issuer == LEGACY_ISSUER {
            let good_for = super::of_this_server(asked, own)?;
            return Ok((legacy_user(&claims, token, reader)?, good_for));
        }
        if !self.issuers.iter().any(|i| i == issuer) {
            return Err(Rejected("the token has another issuer".into()));
        }
        let now = jiff::Timestamp::now().as_second();
        if claims["exp"].as_i64().is_none_or(|exp| exp <= now) {
            return Err(Rejected("the token has expired".into()));
        }
        if claims["nbf"].as_i64().is_some_and(|nbf| nbf > now + 60) {
            return Err(Rejected("the token is not valid yet".into()));
        }
        let is_for = |a: &str| match &claims["aud"] {
            Value::Array(all) => all.iter().any(|v| v.as_str() == Some(a)),
            one => one.as_str() == Some(a),
        };
        let good_for: Vec<String> = asked.iter().filter(|a| is_for(a)).cloned().collect();
        if good_for.is_empty() {
            return Err(Rejected("the token is for another audience".into()));
        }
        let bound = &claims["kubernetes.io"];
        let namespace = bound["namespace"].as_str().unwrap_or_default();
        let account = Named::of(&bound["serviceaccount"])
            .ok_or_else(|| Rejected("the token names no service account".into()))?;
        account.check(
            read::kept::<ServiceAccount>(reader, namespace, account.name).map(|a| a.metadata.clone()),
            "service account",
        )?;
        let mut user = User::service_account(namespace, account.name, account.uid);
        let mut extra = |key: &str, value: &str| {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.into()])
        };
        if let Some(id) = claims["jti"].as_str() {
            extra("credential-id", &format!("JTI={id}"));
        }
        if let Some(pod) = Named::of(&bound["pod"]) {
            pod.check(read::get::<Pod>(reader, namespace, pod.name).map(|p| p.metadata), "pod")?;
            extra("pod-name", pod.name);
            extra("pod-uid", pod.uid);
        }
        if let Some(secret) = Named::of(&bound["secret"]) {
            secret
                .check(read::get::<Secret>(reader, namespace, secret.name).map(|s| s.metadata), "secret")?;
        }
        if let Some(node) = Named::of(&bound["node"]) {
            // With a pod, the node is told but need not be there any more.
            if bound["pod"].is_null() {
                node.check(read::get::<Node>(reader, "", node.name).map(|n| n.metadata), "node")?;
            }
            extra("node-name", node.name);
            extra("node-uid", node.uid);
        }
        Ok((user, good_for))
    }
}

struct Named<'a> {
    name: &'a str,
    uid: &'a str,
}

impl<'a> Named<'a> {
    fn of(value: &'a Value) -> Option<Self> {
        Some(Named { name: value["name"].as_str()?, uid: value["uid"].as_str().unwrap_or_default() })
    }

    fn check(&self, there: Option<ObjectMeta>, what: &str) -> Result<(), Rejected> {
        let there = there.ok_or_else(|| Rejected(format!("the token's {what} {} is gone", self.name)))?;
        // A minute of grace, as upstream gives, lets what is being deleted finish its work.
        let ended = there
            .deletion_timestamp
            .is_some_and(|d| d.0.as_second() + 60 < jiff::Timestamp::now().as_second());
        if there.uid.as_deref() != Some(self.uid) || ended {
            return Err(Rejected(format!(
                "the token's {what} {} is another one now, or is being deleted",
                self.name
            )));
        }
        Ok(())
    }
}

fn legacy_user(claims: &Value, token: &str, reader: &dyn ObjectReader) -> Result<User, Rejected> {
    let claim =
        |name: &str| claims[format!("kubernetes.io/serviceaccount/{name}")].as_str().unwrap_or_default();
    let namespace = claim("namespace");
    let secret: Secret = read::get(reader, namespace, claim("secret.name"))
        .ok_or_else(|| Rejected("the token's secret is gone".into()))?;
    let kept = secret.data.as_ref().and_then(|d| d.get("token"));
    if kept.is_none_or(|kept| kept.0 != token.as_bytes()) || secret.metadata.deletion_timestamp.is_some() {
        return Err(Rejected("the token is not the one in its secret".into()));
    }
    let account = Named { name: claim("service-account.name"), uid: claim("service-account.uid") };
    account.check(
        read::kept::<ServiceAccount>(reader, namespace, account.name).map(|a| a.metadata.clone()),
        "service account",
    )?;
    Ok(User::service_account(namespace, account.name, account.uid))
}
