//! What the metrics APIs say: of pods, of objects, and of what lies outside the cluster.

use super::decide::{Sample, Samples};
use crate::Error;
use api::quantity::Quantity;
use api::selector::LabelSelector;
use api::time;
use client::Client;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde_json::Value;

/// Where what is measured without a window was measured over.
const WINDOW: i64 = 60;

fn milli(value: Option<&Value>) -> Option<i64> {
    value?.as_str()?.parse::<Quantity>().ok().map(|q| q.milli_value())
}

fn at(item: &Value) -> Timestamp {
    let stamp = item.get("timestamp").and_then(Value::as_str);
    stamp.and_then(|t| time::parse(t).ok()).unwrap_or_else(Timestamp::now)
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.get("items").and_then(Value::as_array).into_iter().flatten()
}

/// For a query: what is no letter, digit or one of `-._~` is escaped.
fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// What a metric's labels must be, as a query has it.
fn labels(selector: Option<&meta::LabelSelector>) -> Result<String, Error> {
    match selector {
        Some(selector) => Ok(escaped(&LabelSelector::from_object(selector)?.to_string())),
        None => Ok(String::new()),
    }
}

/// How much of a resource pods use, or one container of each.
pub async fn resource(
    client: &Client,
    namespace: &str,
    selector: &str,
    resource: &str,
    container: Option<&str>,
) -> Result<Samples, Error> {
    let selector = escaped(selector);
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?labelSelector={selector}");
    let list: Value = client.get_path(&path).await?;
    let mut samples = Samples::new();
    for item in items(&list) {
        let name = item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let containers = item.get("containers").and_then(Value::as_array).into_iter().flatten();
        let wanted = |c: &&Value| container.is_none_or(|n| c.get("name").and_then(Value::as_str) == Some(n));
        let used: Option<Vec<i64>> =
            containers.filter(wanted).map(|c| milli(c.pointer(&format!("/usage/{resource}")))).collect();
        let window =
            item.get("window").and_then(Value::as_str).and_then(|w| crate::options::duration(w).ok());
        let window = window.map_or(WINDOW, |w| w.as_secs() as i64);
        // A pod of which a container is missing would seem idle.
        if let Some(used) = used.filter(|u| !u.is_empty()) {
            samples.insert(name.into(), Sample { milli: used.iter().sum(), at: at(item), window });
        }
    }
    if samples.is_empty() {
        return Err(Error::Other("no metrics returned from resource metrics API".into()));
    }
    Ok(samples)
}

/// A metric of each pod.
pub async fn pods(
    client: &Client,
    namespace: &str,
    selector: &str,
    metric: &str,
    of: Option<&meta::LabelSelector>,
) -> Result<Samples, Error> {
    let (selector, of) = (escaped(selector), labels(of)?);
    let path = format!(
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/{namespace}/pods/*/{metric}?labelSelector={selector}&metricLabelSelector={of}"
    );
    let list: Value = client.get_path(&path).await?;
    let sample = |item: &Value| {
        let name = item.pointer("/describedObject/name").and_then(Value::as_str)?;
        let milli = milli(item.get("value"))?;
        Some((name.to_string(), Sample { milli, at: at(item), window: WINDOW }))
    };
    let samples: Samples = items(&list).filter_map(sample).collect();
    match samples.is_empty() {
        true => Err(Error::Other("no metrics returned from custom metrics API".into())),
        false => Ok(samples),
    }
}

/// A metric of one object; `resource` is its plural with its group.
pub async fn object(
    client: &Client,
    namespace: &str,
    resource: &str,
    name: &str,
    metric: &str,
    of: Option<&meta::LabelSelector>,
) -> Result<i64, Error> {
    let of = labels(of)?;
    let below = match resource {
        "namespaces" => format!("namespaces/{namespace}/metrics/{metric}"),
        resource => format!("namespaces/{namespace}/{resource}/{name}/{metric}"),
    };
    let path = format!("/apis/custom.metrics.k8s.io/v1beta2/{below}?metricLabelSelector={of}");
    let list: Value = client.get_path(&path).await?;
    let first = items(&list).find_map(|i| milli(i.get("value")));
    first.ok_or_else(|| Error::Other("no metrics returned from custom metrics API".into()))
}

/// A metric of something outside the cluster: the sum of all its series.
pub async fn external(
    client: &Client,
    namespace: &str,
    metric: &str,
    of: Option<&meta::LabelSelector>,
) -> Result<i64, Error> {
    let of = labels(of)?;
    let path =
        format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}?labelSelector={of}");
    let list: Value = client.get_path(&path).await?;
    let values: Vec<i64> = items(&list).filter_map(|i| milli(i.get("value"))).collect();
    if values.is_empty() {
        return Err(Error::Other("no metrics returned from external metrics API".into()));
    }
    Ok(values.into_iter().fold(0, i64::saturating_add))
}
