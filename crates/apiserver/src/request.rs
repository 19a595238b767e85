//! What a request asks for, read from its method, path and query: upstream's RequestInfo.

use api::{GroupResource, Status};
use http::{Method, Uri};
use percent_encoding::percent_decode_str;

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestInfo {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, `proxy`; the
    /// method in lower case for other paths.
    pub verb: String,
    /// Whether it is about a resource.
    pub is_resource: bool,
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Empty for cluster-scoped resources.
    pub namespace: String,
    /// The plural.
    pub resource: String,
    /// Empty for the object itself.
    pub subresource: String,
    /// Empty for a collection.
    pub name: String,
    /// What follows the subresource, as `proxy` uses it; without a leading slash, still percent-encoded.
    pub rest: String,
    /// The whole path, decoded.
    pub path: String,
}

impl RequestInfo {
    /// The resource whatever its version.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&self.group, &self.resource)
    }
}

/// The query's parameters.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query string.
    pub fn parse(query: Option<&str>) -> Self {
        Query(form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// The first value of a parameter, if it is not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|v| !v.is_empty())
    }

    /// All values of a parameter.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// A truth, written as Go's ParseBool reads it; absent and empty are false.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| !matches!(v, "" | "0" | "f" | "F" | "false" | "False" | "FALSE"))
    }

    /// A whole number.
    pub fn number(&self, name: &str) -> Result<Option<i64>, Status> {
        let parse = |v: &str| {
            v.parse().map_err(|_| {
                Status::bad_request(format!(
                    "invalid value {v:?} for the query parameter {name}: not a number"
                ))
            })
        };
        self.text(name).map(parse).transpose()
    }
}

fn decode(segment: &str) -> Result<String, Status> {
    percent_decode_str(segment)
        .decode_utf8()
        .map(|s| s.into_owned())
        .map_err(|_| Status::bad_request("the path is not valid UTF-8"))
}

/// Subresources of `namespaces` themselves, which otherwise is the scope of what follows.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// Reads a request's head. Paths: `/api/v1/...`, `/apis/GROUP/VERSION/...`; all others are not resources.
pub fn read(method: &Method, uri: &Uri, query: &Query) -> Result<RequestInfo, Status> {
    let path = uri.path();
    let mut info = RequestInfo {
        path: decode(path)?,
        verb: method.as_str().to_ascii_lowercase(),
        ..RequestInfo::default()
    };
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let (head, mut parts) = match segments.as_slice() {
        ["api", version, parts @ ..] => (("", *version), parts),
        ["apis", group, version, parts @ ..] => ((*group, *version), parts),
        _ => return Ok(info),
    };
    if parts.is_empty() {
        return Ok(info);
    }
    info.group = decode(head.0)?;
    info.version = decode(head.1)?;
    info.is_resource = true;
    info.verb = match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
    .into();
    let legacy_watch = parts.first() == Some(&"watch");
    if legacy_watch {
        parts = &parts[1..];
    }
    if let ["namespaces", namespace, rest @ ..] = parts {
        info.namespace = decode(namespace)?;
        if let [next, ..] = rest
            && !NAMESPACE_SUBRESOURCES.contains(next)
        {
            parts = rest;
        }
    }
    let mut parts = parts.iter();
    info.resource = parts.next().map(|p| decode(p)).transpose()?.unwrap_or_default();
    info.name = parts.next().map(|p| decode(p)).transpose()?.unwrap_or_default();
    info.subresource = parts.next().map(|p| decode(p)).transpose()?.unwrap_or_default();
    info.rest = rest_of(path, &info, parts.copied().collect::<Vec<_>>());
    if info.resource == "namespaces" {
        info.namespace.clone_from(&info.name);
    }
    if info.name.is_empty() && info.verb == "get" {
        info.verb = "list".into();
    }
    if info.verb == "get" && legacy_watch || info.verb == "list" && (legacy_watch || query.flag("watch")) {
        info.verb = "watch".into();
    }
    // A list or watch of one name is authorized by that name.
    if (info.verb == "list" || info.verb == "watch")
        && info.name.is_empty()
        && let Some(name) = query
            .text("fieldSelector")
            .and_then(|s| s.split(',').find_map(|t| t.strip_prefix("metadata.name=")))
    {
        let name = name.trim_start_matches('=');
        if !name.contains('=') {
            info.name = name.into();
        }
    }
    if info.verb == "delete" && info.name.is_empty() {
        info.verb = "deletecollection".into();
    }
    Ok(info)
}

fn rest_of(path: &str, info: &RequestInfo, parts: Vec<&str>) -> String {
    let mut rest = parts.join("/");
    // A trailing slash tells `proxy` apart from `proxy/`.
    if path.ends_with('/') && !rest.is_empty() && !info.subresource.is_empty() {
        rest.push('/');
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let table = [
            ("GET", "/api/v1/pods", "list pods  "),
            ("GET", "/api/v1/namespaces/a/pods/b", "get pods a b"),
            ("GET", "/api/v1/namespaces/a", "get namespaces a a"),
            ("PUT", "/api/v1/namespaces/a/finalize", "update namespaces/finalize a a"),
            ("GET", "/api/v1/namespaces/a/pods?watch=true", "watch pods a "),
            ("GET", "/api/v1/watch/namespaces/a/pods/b", "watch pods a b"),
            ("DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection deployments.apps a "),
            ("POST", "/api/v1/namespaces/a/pods/b/exec", "create pods/exec a b"),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dx&watch=1", "watch pods  x"),
            ("PATCH", "/apis/apps/v1/namespaces/a/deployments/d/scale", "patch deployments.apps/scale a d"),
            ("GET", "/healthz", "get   "),
            ("GET", "/apis/apps/v1", "get   "),
        ];
        for (method, uri, want) in table {
            let uri: Uri = uri.parse().unwrap();
            let i = read(&method.parse().unwrap(), &uri, &Query::parse(uri.query())).unwrap();
            let sub = if i.subresource.is_empty() { String::new() } else { format!("/{}", i.subresource) };
            assert_eq!(
                format!("{} {}{sub} {} {}", i.verb, i.group_resource(), i.namespace, i.name),
                want,
                "{uri}"
            );
        }
    }
}
