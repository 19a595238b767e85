//! Which form an answer takes (`Accept`), and in which a body comes (`Content-Type`).

use api::Status;
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

impl Format {
    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml",
            Format::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// The object or list itself.
    Whole,
    /// A Table of this version of meta.k8s.io.
    Table(String),
    /// PartialObjectMetadata of this version of meta.k8s.io.
    Metadata(String),
}

/// What the client accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// How.
    pub format: Format,
    /// What.
    pub view: View,
    /// Indented, for a person who asks with a browser or curl.
    pub pretty: bool,
}

/// Media types that every resource can be written in, as the error names them.
const OFFERED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// Reads `Accept`. Ranges are taken in their order, as clients list them by preference.
pub fn accept(headers: &HeaderMap) -> Result<Accepted, Status> {
    let agent = headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let pretty = agent.starts_with("curl") || agent.starts_with("Wget") || agent.starts_with("Mozilla");
    let text = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
    if text == "application/json" {
        return Ok(Accepted { format: Format::Json, view: View::Whole, pretty });
    }
    for range in text.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let format = match parts.next().unwrap_or_default() {
            "application/json" | "*/*" | "application/*" | "" => Format::Json,
            "application/yaml" => Format::Yaml,
            "application/vnd.kubernetes.protobuf" => Format::Protobuf,
            _ => continue,
        };
        let (mut kind, mut group, mut version) = ("", "", "");
        for parameter in parts {
            match parameter.split_once('=') {
                Some(("as", v)) => kind = v,
                Some(("g", v)) => group = v,
                Some(("v", v)) => version = v,
                _ => {}
            }
        }
        let known = group == "meta.k8s.io" && matches!(version, "v1" | "v1beta1");
        let view = match kind {
            "" => View::Whole,
            "Table" if known => View::Table(version.into()),
            "PartialObjectMetadata" | "PartialObjectMetadataList" if known => View::Metadata(version.into()),
            _ => continue,
        };
        return Ok(Accepted { format, view, pretty });
    }
    Err(not_acceptable())
}

/// None of what the client accepts is there to be had.
pub fn not_acceptable() -> Status {
    Status::not_acceptable(format!("only the following media types are accepted: {OFFERED}"))
}

/// The media type of a body, without parameters.
pub fn content_type(headers: &HeaderMap) -> &str {
    let text = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim()
}

/// The format of an object in a body. Without a type it is JSON.
pub fn body_format(headers: &HeaderMap) -> Result<Format, Status> {
    match content_type(headers) {
        "" | "application/json" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Format::Protobuf),
        other => Err(Status::unsupported_media_type(format!(
            "the body of the request was in an unknown format ({other}) - accepted media types include: {OFFERED}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_headers() {
        for (text, format, view) in [
            ("*/*", Format::Json, View::Whole),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                Format::Json,
                View::Table("v1".into()),
            ),
            ("application/vnd.kubernetes.protobuf,application/json", Format::Protobuf, View::Whole),
            ("application/json;as=Foo;v=v1;g=x, application/json", Format::Json, View::Whole),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Format::Json,
                View::Metadata("v1".into()),
            ),
            ("text/html, application/yaml;q=0.8", Format::Yaml, View::Whole),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, text.parse().unwrap());
            let got = accept(&headers).unwrap();
            assert_eq!((got.format, got.view), (format, view), "{text}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, "text/html".parse().unwrap());
        assert_eq!(accept(&headers).unwrap_err().code, 406);
    }
}
