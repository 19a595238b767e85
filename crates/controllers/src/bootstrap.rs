//! Bootstrap tokens: signs the public `cluster-info` with each, so that who knows a token can trust it, and
//! deletes tokens that have expired.
//! Both watch the tokens' secrets; the signer also `cluster-info`.

use crate::common::{delete_uid, gone_is_fine};
use crate::{Context, Error, Outcome};
use api::{ObjectKey, time};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use client::{ObjectExt, Scope};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use ring::hmac;
use std::collections::BTreeMap;
use std::sync::Arc;

const SIGNER: &str = "bootstrap-signer-controller";
const CLEANER: &str = "token-cleaner-controller";
const SIGNATURE: &str = "jws-kubeconfig-";

fn tokens() -> Scope {
    Scope {
        namespace: "kube-system".into(),
        field_selector: "type=bootstrap.kubernetes.io/token".into(),
        ..Scope::default()
    }
}

fn field(secret: &Secret, name: &str) -> Option<String> {
    let bytes = &secret.data.as_ref()?.get(name)?.0;
    String::from_utf8(bytes.clone()).ok().filter(|v| !v.is_empty())
}

/// When a token ends, if it does; one whose end can't be read has ended.
fn end(secret: &Secret) -> Option<Timestamp> {
    let text = field(secret, "expiration")?;
    Some(time::parse(&text).unwrap_or(Timestamp::MIN))
}

/// Id and secret of a token that may sign.
fn signing_token(secret: &Secret, now: Timestamp) -> Option<(String, String)> {
    let live = end(secret).is_none_or(|e| e > now) && !secret.is_deleting();
    let id = field(secret, "token-id").filter(|id| secret.name() == format!("bootstrap-token-{id}"))?;
    let may = field(secret, "usage-bootstrap-signing").as_deref() == Some("true");
    Some((id, field(secret, "token-secret")?)).filter(|_| live && may)
}

/// A signature over a text that is not repeated in it (RFC 7515, appendix F).
fn sign(id: &str, secret: &str, text: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(serde_json::json!({"alg": "HS256", "kid": id}).to_string());
    let payload = URL_SAFE_NO_PAD.encode(text);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{header}.{payload}").as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(tag))
}

/// The map with the signatures it should have, if they are not what it has.
fn signed(map: &ConfigMap, tokens: &[Arc<Secret>], now: Timestamp) -> Option<ConfigMap> {
    let data = map.data.clone().unwrap_or_default();
    let text = data.get("kubeconfig")?;
    let mut wanted: BTreeMap<String, String> =
        data.iter().filter(|(k, _)| !k.starts_with(SIGNATURE)).map(|(k, v)| (k.clone(), v.clone())).collect();
    for (id, secret) in tokens.iter().filter_map(|t| signing_token(t, now)) {
        wanted.insert(format!("{SIGNATURE}{id}"), sign(&id, &secret, text));
    }
    (wanted != data).then(|| ConfigMap { data: Some(wanted), ..map.clone() })
}

/// Signs `cluster-info`.
pub async fn run_signer(ctx: Context) {
    let client = ctx.client("bootstrap-signer");
    let secrets = ctx.informers.informer_with::<Secret>(tokens());
    let maps = ctx.informers.informer_with::<ConfigMap>(Scope {
        namespace: "kube-public".into(),
        field_selector: "metadata.name=cluster-info".into(),
        ..Scope::default()
    });
    let (tokens, infos) = (secrets.lister(), maps.lister());
    let info = || ObjectKey::new("kube-public", "cluster-info");
    ctx.controller(SIGNER)
        .each(&maps)
        .on(&secrets, move |_, queue| queue.add(info()))
        .run(1, ctx.shutdown, move |key| {
            let (client, map, tokens) = (client.clone(), infos.get(&key.namespace, &key.name), tokens.list());
            async move {
                let now = Timestamp::now();
                if let Some(changed) = map.and_then(|m| signed(&m, &tokens, now)) {
                    client.update(&changed).await.map_err(Error::from)?;
                }
                let next = tokens.iter().filter_map(|t| time::until(end(t)?, now)).min();
                Outcome::Ok(next)
            }
        })
        .await;
}

/// Deletes expired tokens.
pub async fn run_cleaner(ctx: Context) {
    let client = ctx.client("token-cleaner");
    let secrets = ctx.informers.informer_with::<Secret>(tokens());
    let lister = secrets.lister();
    ctx.controller(CLEANER)
        .each(&secrets)
        .run(1, ctx.shutdown, move |key| {
            let (client, secret) = (client.clone(), lister.get(&key.namespace, &key.name));
            async move {
                let Some((secret, end)) = secret.and_then(|s| end(&s).map(|e| (s, e))) else {
                    return Outcome::Ok(None);
                };
                let left = time::until(end, Timestamp::now());
                if left.is_none() {
                    tracing::info!("{CLEANER}: {} has expired", secret.name());
                    let options = delete_uid(secret.uid());
                    gone_is_fine(client.delete::<Secret>(secret.namespace(), secret.name(), &options).await)?;
                }
                Ok(left)
            }
        })
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn token(id: &str, fields: &[(&str, &str)]) -> Arc<Secret> {
        let mut s = Secret::default();
        s.metadata.name = Some(format!("bootstrap-token-{id}"));
        let all =
            [("token-id", id), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-signing", "true")];
        s.data = Some(
            all.iter()
                .chain(fields)
                .map(|(k, v)| (k.to_string(), ByteString(v.as_bytes().to_vec())))
                .collect(),
        );
        Arc::new(s)
    }

    #[test]
    fn cluster_info_is_signed_by_every_live_token() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let data = [
            ("kubeconfig".to_string(), "text".to_string()),
            ("jws-kubeconfig-gone00".to_string(), "x".to_string()),
        ];
        let map = ConfigMap { data: Some(data.into()), ..Default::default() };
        let tokens = [
            token("abcdef", &[]),
            token("old000", &[("expiration", "2025-01-01T00:00:00Z")]),
            token("other0", &[("usage-bootstrap-signing", "false")]),
            token("new000", &[("expiration", "2027-01-01T00:00:00Z")]),
        ];
        let changed = signed(&map, &tokens, now).unwrap();
        let keys: Vec<&String> = changed.data.as_ref().unwrap().keys().collect();
        assert_eq!(keys, ["jws-kubeconfig-abcdef", "jws-kubeconfig-new000", "kubeconfig"]);
        assert!(signed(&changed, &tokens, now).is_none());
        assert!(signed(&ConfigMap::default(), &tokens, now).is_none());
        let jws = &changed.data.unwrap()["jws-kubeconfig-abcdef"];
        assert!(jws.starts_with("eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..") && jws.len() == 85);
    }
}
