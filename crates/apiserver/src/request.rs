//! What a request asks for, read from its method, path and query: upstream's RequestInfo.

use api::selector::{FieldRequirement, LabelSelector, SelectorError, parse_fields};
use api::{GroupResource, Status};
use http::{Method, Uri};
use percent_encoding::percent_decode_str;

/// What is to be done, as roles name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verb {
    /// One object is read.
    Get,
    /// A collection is read.
    List,
    /// Changes are followed.
    Watch,
    /// An object is made.
    Create,
    /// An object is replaced.
    Update,
    /// An object is changed.
    Patch,
    /// An object is deleted.
    Delete,
    /// All objects that selectors want are deleted.
    DeleteCollection,
    /// POST of a path that is no resource.
    Post,
    /// PUT of one.
    Put,
    /// HEAD of one.
    Head,
    /// OPTIONS of one.
    Options,
    /// A method that nothing is done for.
    #[default]
    Unknown,
}

impl Verb {
    /// As roles name it.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Post => "post",
            Verb::Put => "put",
            Verb::Head => "head",
            Verb::Options => "options",
            Verb::Unknown => "",
        }
    }

    /// Whether it only reads.
    pub fn reads(self) -> bool {
        matches!(self, Verb::Get | Verb::List | Verb::Watch | Verb::Head | Verb::Options)
    }

    /// Of a resource.
    fn of_resource(method: &Method) -> Self {
        match *method {
            Method::POST => Verb::Create,
            Method::GET | Method::HEAD => Verb::Get,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE => Verb::Delete,
            _ => Verb::Unknown,
        }
    }

    /// Of any other path: the method's name.
    fn of_path(method: &Method) -> Self {
        match *method {
            Method::GET => Verb::Get,
            Method::HEAD => Verb::Head,
            Method::POST => Verb::Post,
            Method::PUT => Verb::Put,
            Method::PATCH => Verb::Patch,
            Method::DELETE => Verb::Delete,
            Method::OPTIONS => Verb::Options,
            _ => Verb::Unknown,
        }
    }
}

impl std::fmt::Display for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The selectors of a list, a watch or a deletion of a collection, read once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selectors {
    /// `fieldSelector`.
    pub fields: Vec<FieldRequirement>,
    /// `labelSelector`.
    pub labels: LabelSelector,
}

impl Selectors {
    fn read(query: &Query) -> Result<Self, SelectorError> {
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default())
            .map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?;
        Ok(Selectors { fields: parse_fields(query.get("fieldSelector").unwrap_or_default())?, labels })
    }

    /// The value that a field has to have, if there is such a demand.
    pub fn requires(&self, field: &str) -> Option<&str> {
        self.fields.iter().find(|f| f.equal && f.field == field).map(|f| f.value.as_str())
    }
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestInfo {
    /// What is to be done.
    pub verb: Verb,
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
    /// The selectors, or why they can't be read.
    pub selectors: Result<Selectors, SelectorError>,
    /// Whether the verb stands in the path: `/watch/`. Then nobody is authorized by selectors.
    pub verb_in_path: bool,
}

impl Default for RequestInfo {
    fn default() -> Self {
        RequestInfo {
            verb: Verb::default(),
            is_resource: false,
            group: String::new(),
            version: String::new(),
            namespace: String::new(),
            resource: String::new(),
            subresource: String::new(),
            name: String::new(),
            rest: String::new(),
            path: String::new(),
            selectors: Ok(Selectors::default()),
            verb_in_path: false,
        }
    }
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
    let mut info = RequestInfo { path: decode(path)?, verb: Verb::of_path(method), ..RequestInfo::default() };
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
    info.verb = Verb::of_resource(method);
    let legacy_watch = parts.first() == Some(&"watch");
    info.verb_in_path = legacy_watch;
    if legacy_watch {
        parts = &parts[1..];
        info.verb = if info.verb == Verb::Get { Verb::Watch } else { Verb::Unknown };
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
    match info.verb {
        Verb::Get if info.name.is_empty() => {
            info.verb = if query.flag("watch") { Verb::Watch } else { Verb::List };
        }
        Verb::Delete if info.name.is_empty() => info.verb = Verb::DeleteCollection,
        _ => {}
    }
    if matches!(info.verb, Verb::List | Verb::Watch | Verb::DeleteCollection) {
        info.selectors = Selectors::read(query);
    }
    // A list or watch of one name is authorized by that name.
    if matches!(info.verb, Verb::List | Verb::Watch)
        && info.name.is_empty()
        && !legacy_watch
        && let Some(name) = info.selectors.as_ref().ok().and_then(|s| s.requires("metadata.name"))
        && is_path_segment(name)
    {
        info.name = name.into();
    }
    Ok(info)
}

/// Whether it can be a name in a path.
fn is_path_segment(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '%'])
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
            ("GET", "/api/v1/watch/secrets/a?fieldSelector=metadata.name%3Db", "watch secrets  a"),
            ("GET", "/api/v1/watch/secrets?fieldSelector=metadata.name%3Db", "watch secrets  "),
            ("DELETE", "/api/v1/watch/secrets/a", " secrets  a"),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name!%3Dx", "list pods  "),
            ("GET", "/api/v1/pods?fieldSelector=metadata.namespace%3Dx%2Cmetadata.name%3Dy", "list pods  y"),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name%3D..", "list pods  "),
            ("DELETE", "/api/v1/pods?fieldSelector=metadata.name%3Dx", "deletecollection pods  "),
            ("POST", "/api/v1/namespaces/a", "create namespaces a a"),
            ("BREW", "/api/v1/pods", " pods  "),
            ("POST", "/healthz", "post   "),
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
