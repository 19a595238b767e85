//! Writing answers: an object or a list, whole, as a table or as metadata alone, in the form accepted.

use crate::body::Body;
use crate::cache::Entry;
use crate::heavy;
use crate::list_body::{Entries, Form, ListBody};
use crate::negotiate::{Format, View};
use crate::tables;
use crate::verbs::{Answer, Request, internal};
use api::Status;
use api::schema::{Schema, builtin};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, WARNING};
use http::{HeaderMap, HeaderName, Response, StatusCode};
use http_body::Body as _;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A response of bytes.
pub fn bytes(code: u16, media_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// The head of a response: HTTP/2 streams with a body that HEAD did not ask for are errors.
pub fn without_body(mut response: Response<Body>) -> Response<Body> {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
    }
    *response.body_mut() = Body::empty();
    response
}

/// Marks a response with what it is a version of, and leaves its body out for who has that version.
pub fn tagged(headers: &HeaderMap, tag: &str, mut response: Response<Body>) -> Answer {
    let tag = format!("\"{tag}\"");
    let has = headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let same = |known: &str| matches!(known.trim(), "*") || known.trim().trim_start_matches("W/") == tag;
    if has.split(',').any(same) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(CONTENT_TYPE);
    }
    response.headers_mut().insert(ETAG, HeaderValue::try_from(tag).map_err(internal)?);
    Ok(response)
}

/// A Status as a response.
pub fn status(status: &Status, format: Format) -> Response<Body> {
    let value = serde_json::to_value(status).unwrap_or_default();
    let body = write(&value, format, "", "v1", "Status", false).unwrap_or_else(|_| status.to_json());
    let mut response = bytes(
        status.code,
        if body.starts_with(b"{") { "application/json" } else { format.media_type() },
        body,
    );
    if let Some(seconds) = status.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        response.headers_mut().insert(HeaderName::from_static("retry-after"), HeaderValue::from(seconds));
    }
    response
}

/// Adds `Warning` headers (RFC 7234, 5.5; KEP-1693).
pub fn add_warnings(response: &mut Response<Body>, warnings: Vec<String>) {
    for warning in warnings {
        let text: String = warning.chars().filter(|c| !c.is_control()).collect();
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

fn write(
    value: &Value,
    format: Format,
    group: &str,
    version: &str,
    kind: &str,
    pretty: bool,
) -> Result<Vec<u8>, Status> {
    match format {
        Format::Json if pretty => {
            let mut text = serde_json::to_vec_pretty(value).map_err(internal)?;
            text.push(b'\n');
            Ok(text)
        }
        Format::Json => {
            let mut text = serde_json::to_vec(value).map_err(internal)?;
            text.push(b'\n');
            Ok(text)
        }
        Format::Yaml => api::yaml::encode(value).map(String::into_bytes).map_err(internal),
        Format::Protobuf => {
            let schema = builtin().kind_of(group, version, kind).ok_or_else(|| {
                Status::not_acceptable(format!(
                    "{kind} in version {version:?} has no protobuf form; use application/json"
                ))
            })?;
            api::protobuf::to_wire(value, schema).map_err(internal)
        }
    }
}

/// Any value as an answer: reviews, scales, lists that are not from the cache.
pub fn value(request: &Request, code: u16, value: &Value) -> Answer {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let gv = api::GroupVersion::parse(text("apiVersion"));
    let format = request.accepted.format;
    let body = write(value, format, &gv.group, &gv.version, text("kind"), request.accepted.pretty)?;
    Ok(bytes(code, format.media_type(), body))
}

/// An object as an answer.
pub fn object(request: &Request, code: u16, entry: &Entry) -> Answer {
    let accepted = &request.accepted;
    match (&accepted.view, accepted.format) {
        (View::Whole, Format::Json) if !accepted.pretty => {
            Ok(bytes(code, "application/json", request.shown(entry)?.json.clone()))
        }
        (View::Whole, Format::Protobuf) => {
            let entry = request.shown(entry)?;
            let schema = &request.face.schema;
            match Some(&entry).filter(|_| !schema.custom).and_then(|entry| entry.protobuf(schema)) {
                Some(wire) => Ok(bytes(code, Format::Protobuf.media_type(), wire)),
                None => {
                    Err(Status::not_acceptable("this resource has no protobuf form; use application/json"))
                }
            }
        }
        (View::Whole, _) => value(request, code, &request.shown(entry)?.value().map_err(internal)?),
        (View::Table(version), _) => value(
            request,
            code,
            &tables::table(
                request,
                version,
                std::slice::from_ref(&entry),
                json!({"resourceVersion": entry.revision.to_string()}),
            )?,
        ),
        (View::Metadata(version), _) => value(request, code, &metadata(version, entry)?),
    }
}

/// An object's metadata alone.
pub fn metadata(version: &str, entry: &Entry) -> Result<Value, Status> {
    let metadata: Value = serde_json::from_str(entry.metadata()).map_err(internal)?;
    Ok(
        json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata}),
    )
}

/// A list's metadata.
pub struct ListMeta {
    /// The revision the list shows.
    pub revision: u64,
    /// Where to go on, if there is more.
    pub next: Option<String>,
    /// How many more there are, if that is known.
    pub remaining: Option<usize>,
}

impl ListMeta {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("resourceVersion".into(), self.revision.to_string().into());
        if let Some(next) = &self.next {
            map.insert("continue".into(), next.clone().into());
        }
        if let Some(remaining) = self.remaining {
            map.insert("remainingItemCount".into(), remaining.into());
        }
        Value::Object(map)
    }
}

fn json_list(kind: &str, version: &str, meta: &ListMeta, items: Entries, form: Form) -> Answer {
    let mut head = format!("{{\"kind\":{kind:?},\"apiVersion\":{version:?},\"metadata\":").into_bytes();
    serde_json::to_writer(&mut head, &meta.to_value()).map_err(internal)?;
    head.extend_from_slice(b",\"items\":[");
    Ok(bytes(200, "application/json", Body::List(ListBody::json(head, items, form))))
}

/// A list for a person to read, indented; each object is read when its turn comes.
fn pretty_list(kind: &str, version: &str, meta: &Value, items: Entries, typed: bool) -> Answer {
    let indented = |value: &Value| serde_json::to_string_pretty(value).map_err(internal);
    let meta = indented(meta)?.replace('\n', "\n  ");
    let head = format!(
        "{{\n  \"kind\": {kind:?},\n  \"apiVersion\": {version:?},\n  \"metadata\": {meta},\n  \"items\": ["
    );
    let make = move |entry: &Entry| {
        let mut value = entry.value().map_err(internal)?;
        if let Some(object) = value.as_object_mut().filter(|_| typed) {
            object.remove("apiVersion");
            object.remove("kind");
        }
        let text = serde_json::to_string_pretty(&value).map_err(internal)?;
        Ok(format!("\n    {}", text.replace('\n', "\n    ")).into_bytes())
    };
    let list = ListBody::between(head.into_bytes(), items, Form::Made(Box::new(make)), b"\n  ]\n}\n");
    Ok(bytes(200, "application/json", Body::List(list)))
}

/// The schema of ListMeta, as lists of objects have it.
fn list_meta() -> Result<&'static Schema, Status> {
    let list = builtin().kind_of("", "v1", "ConfigMapList").and_then(|s| s.as_struct());
    let meta = list.and_then(|l| l.field("metadata")).map(|f| &*f.schema);
    meta.ok_or_else(|| internal("there is no schema of ListMeta"))
}

/// PartialObjectMetadata in JSON, up to its metadata.
pub fn metadata_head(version: &str) -> String {
    format!("{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/{version}\",\"metadata\":")
}

/// A list as an answer.
pub async fn list(
    request: &Arc<Request>,
    items: impl Iterator<Item = Arc<Entry>> + Send + 'static,
    meta: ListMeta,
) -> Answer {
    let accepted = &request.accepted;
    let gvk = &request.face.gvk;
    let kind = format!("{}List", gvk.kind);
    let own = request.face.facet.is_none();
    match (&accepted.view, accepted.format) {
        (View::Whole, Format::Json) if own && !accepted.pretty => {
            let form = if request.face.schema.custom { Form::Whole } else { Form::Typed };
            return json_list(&kind, &gvk.api_version(), &meta, Box::new(items), form);
        }
        (View::Metadata(version), Format::Json) if !accepted.pretty => {
            let form = Form::Metadata(metadata_head(version));
            let kind = "PartialObjectMetadataList";
            return json_list(kind, &format!("meta.k8s.io/{version}"), &meta, Box::new(items), form);
        }
        (View::Whole, Format::Json) if own => {
            let meta = meta.to_value();
            return pretty_list(
                &kind,
                &gvk.api_version(),
                &meta,
                Box::new(items),
                !request.face.schema.custom,
            );
        }
        (View::Table(version), Format::Json) if !accepted.pretty => {
            let (head, row) = tables::begun(request, version, &meta.to_value())?;
            let list = ListBody::between(head, Box::new(items), Form::Made(Box::new(row)), b"]}\n");
            return Ok(bytes(200, "application/json", Body::List(list)));
        }
        _ => {}
    }
    let mut items: Vec<Arc<Entry>> = items.collect();
    let size = items.iter().map(|e| e.json.len()).sum();
    if accepted.view == View::Whole && !own {
        items = items
            .iter()
            .map(|e| request.shown(e).map(|e| Arc::new(e.into_owned())))
            .collect::<Result<_, _>>()?;
    }
    match (&accepted.view, accepted.format) {
        (View::Whole, Format::Json) if !accepted.pretty => {
            json_list(&kind, &gvk.api_version(), &meta, Box::new(items.into_iter()), Form::Typed)
        }
        (View::Whole, Format::Protobuf) if !request.face.schema.custom => {
            let meta = api::protobuf::encode(&meta.to_value(), list_meta()?).map_err(internal)?;
            let schema = request.face.schema.clone();
            let list = ListBody::protobuf(&gvk.api_version(), &kind, &meta, items, schema).await;
            let list = list.map_err(internal)?;
            Ok(bytes(200, Format::Protobuf.media_type(), Body::List(list)))
        }
        (View::Whole, _) => heavy::on(size, || {
            let mut items =
                items.iter().map(|e| e.value()).collect::<Result<Vec<_>, _>>().map_err(internal)?;
            if !request.face.schema.custom {
                for item in items.iter_mut().filter_map(Value::as_object_mut) {
                    item.remove("apiVersion");
                    item.remove("kind");
                }
            }
            let list = json!({"kind": kind, "apiVersion": gvk.api_version(), "metadata": meta.to_value(), "items": items});
            value(request, 200, &list)
        }),
        (View::Table(version), _) => heavy::on(size, || {
            let refs: Vec<&Entry> = items.iter().map(Arc::as_ref).collect();
            value(request, 200, &tables::table(request, version, &refs, meta.to_value())?)
        }),
        (View::Metadata(version), _) => heavy::on(size, || {
            let items = items.iter().map(|e| metadata(version, e)).collect::<Result<Vec<_>, _>>()?;
            let list = json!({"kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": meta.to_value(), "items": items});
            value(request, 200, &list)
        }),
    }
}
