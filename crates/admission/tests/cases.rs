//! The cases in `tests/cases`: a cluster, a request, what the plugins make of it.

use admission::config::Config;
use admission::{Chain, Change, Future, Host, Operation, Request};
use api::object::{Custom, Object};
use api::read::{Held, ObjectReader};
use api::{GroupResource, GroupVersion, GroupVersionKind, Status};
use serde::Deserialize;
use serde_json::Value;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    name: String,
    /// Plugins that are on, alone.
    plugins: Vec<String>,
    config: Option<String>,
    /// What is there.
    #[serde(default)]
    cluster: Vec<Value>,
    /// `update` if there is an `old`; `delete` if there is no `object`.
    object: Option<Value>,
    old: Option<Value>,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    user: String,
    #[serde(default)]
    groups: Vec<String>,
    /// Otherwise what `object` and `old` say.
    operation: Option<String>,
    /// `verb resource[/subresource] name`, for what the user may do.
    #[serde(default)]
    may: Vec<String>,
    /// The refusal's message.
    error: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
    /// Values at paths of the object that is admitted.
    #[serde(default)]
    want: BTreeMap<String, Value>,
    /// Values at paths of the first object of the cluster, afterwards.
    #[serde(default)]
    cluster_want: BTreeMap<String, Value>,
}

struct World {
    objects: Mutex<Vec<Value>>,
    may: Vec<String>,
    warnings: Mutex<Vec<String>>,
}

fn text(value: &Value, path: &str) -> String {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_string()
}

fn plural(kind: &str) -> String {
    let lower = kind.to_lowercase();
    match lower.as_str() {
        k if k.ends_with("ss") => format!("{k}es"),
        "networkpolicy" | "ingress" => format!("{}es", lower),
        k => format!("{k}s"),
    }
}

fn resource_of(value: &Value) -> GroupResource {
    let group = GroupVersion::parse(&text(value, "/apiVersion")).group;
    GroupResource::new(group, plural(&text(value, "/kind")))
}

/// A stored object.
struct Stored(bytes::Bytes, OnceLock<Arc<dyn Any + Send + Sync>>);

impl Held for Stored {
    fn json(&self) -> &bytes::Bytes {
        &self.0
    }

    fn typed(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>> {
        &self.1
    }
}

fn held(object: &Value) -> Arc<dyn Held> {
    Arc::new(Stored(object.to_string().into(), OnceLock::new()))
}

impl ObjectReader for World {
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<dyn Held>> {
        let objects = self.objects.lock().unwrap();
        let is = |o: &&Value| {
            resource_of(o) == *resource
                && text(o, "/metadata/namespace") == namespace
                && text(o, "/metadata/name") == name
        };
        objects.iter().find(is).map(held)
    }

    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<dyn Held>> {
        let objects = self.objects.lock().unwrap();
        let is = |o: &&Value| {
            resource_of(o) == *resource && namespace.is_none_or(|n| text(o, "/metadata/namespace") == n)
        };
        objects.iter().filter(is).map(held).collect()
    }

    fn select(&self, _: &GroupResource, _: &str, _: &str) -> Vec<Arc<dyn Held>> {
        Vec::new()
    }

    fn generation(&self, _: &GroupResource) -> u64 {
        0
    }
}

impl Host for World {
    fn authorize(
        &self,
        verb: &str,
        resource: &GroupResource,
        subresource: &str,
        _: &str,
        name: &str,
    ) -> Result<(), String> {
        let below = if subresource.is_empty() { String::new() } else { format!("/{subresource}") };
        let asked = format!("{verb} {}{below} {name}", resource.resource);
        if self.may.contains(&asked) { Ok(()) } else { Err("RBAC: nothing allows it".into()) }
    }

    fn warn(&self, text: String) {
        self.warnings.lock().unwrap().push(text);
    }

    fn annotate(&self, _: &str, _: String) {}

    fn resource_of(&self, api_version: &str, kind: &str) -> Option<(GroupResource, bool)> {
        Some((GroupResource::new(GroupVersion::parse(api_version).group, plural(kind)), true))
    }

    fn newest<'a>(
        &'a self,
        resource: &'a GroupResource,
        namespace: &'a str,
        name: &'a str,
    ) -> Future<'a, Result<Option<Value>, Status>> {
        let found = self.get(resource, namespace, name).and_then(|b| serde_json::from_slice(b.json()).ok());
        Box::pin(std::future::ready(Ok(found)))
    }

    fn change<'a>(
        &'a self,
        resource: &'a GroupResource,
        namespace: &'a str,
        name: &'a str,
        change: Change<'a>,
    ) -> Future<'a, Result<Option<Value>, Status>> {
        let mut objects = self.objects.lock().unwrap();
        let is = |o: &&mut Value| {
            resource_of(o) == *resource
                && text(o, "/metadata/namespace") == namespace
                && text(o, "/metadata/name") == name
        };
        let changed = objects.iter_mut().find(is).map(|o| {
            *o = change(o)?;
            Ok(o.clone())
        });
        Box::pin(std::future::ready(changed.transpose()))
    }
}

fn typed(value: &Value) -> Object {
    use k8s_openapi::api as k;
    macro_rules! kinds {
        ($($kind:literal => $ty:ty),* $(,)?) => {
            match text(value, "/kind").as_str() {
                $($kind => Object::from_value::<$ty>(value),)*
                _ => Custom::from_value(value).map(Object::new),
            }
        };
    }
    let object = kinds! {
        "Pod" => k::core::v1::Pod,
        "Namespace" => k::core::v1::Namespace,
        "Service" => k::core::v1::Service,
        "PersistentVolumeClaim" => k::core::v1::PersistentVolumeClaim,
        "PersistentVolume" => k::core::v1::PersistentVolume,
        "Binding" => k::core::v1::Binding,
        "Node" => k::core::v1::Node,
        "TokenRequest" => k::authentication::v1::TokenRequest,
        "ResourceSlice" => k::resource::v1::ResourceSlice,
        "Deployment" => k::apps::v1::Deployment,
        "Ingress" => k::networking::v1::Ingress,
        "CertificateSigningRequest" => k::certificates::v1::CertificateSigningRequest,
    };
    object.unwrap_or_else(|e| panic!("{value}: {e}"))
}

async fn check(file: &str, case: Case) {
    let at = format!("{file}: {}", case.name);
    let all: Vec<String> = admission::ORDER.iter().map(|(n, _)| n.to_string()).collect();
    let off: Vec<String> = all.into_iter().filter(|n| !case.plugins.contains(n)).collect();
    let config = case.config.as_deref().map(|text| {
        Config::parse(text, &|_| unreachable!("no case names a file")).unwrap_or_else(|e| panic!("{at}: {e}"))
    });
    let chain = Chain::new(&case.plugins, &off, &config.unwrap_or_default(), Vec::new())
        .unwrap_or_else(|e| panic!("{at}: {e}"));
    let world = World { objects: Mutex::new(case.cluster), may: case.may, warnings: Mutex::default() };
    let about = case.object.as_ref().or(case.old.as_ref()).unwrap_or_else(|| panic!("{at}: no object"));
    let (mut resource, version) = (resource_of(about), GroupVersion::parse(&text(about, "/apiVersion")));
    if text(about, "/kind") == "Binding" {
        resource.resource = "pods".into();
    }
    if text(about, "/kind") == "Eviction" {
        resource = GroupResource::new("", "pods");
    }
    if text(about, "/kind") == "TokenRequest" {
        resource = GroupResource::new("", "serviceaccounts");
    }
    let kind = GroupVersionKind::new(version.group, version.version, text(about, "/kind"));
    let (namespace, name) = (text(about, "/metadata/namespace"), text(about, "/metadata/name"));
    let old = case.old.as_ref().map(typed);
    let mut object = case.object.as_ref().map(typed);
    let operation = match (&object, &old) {
        _ if case.operation.as_deref() == Some("create") => Operation::Create,
        _ if case.operation.as_deref() == Some("update") => Operation::Update,
        _ if case.operation.as_deref() == Some("delete") => Operation::Delete,
        (None, _) => Operation::Delete,
        (_, Some(_)) => Operation::Update,
        _ => Operation::Create,
    };
    let request = Request {
        operation,
        kind: &kind,
        resource: &resource,
        subresource: &case.subresource,
        namespace: &namespace,
        name: &name,
        user: &case.user,
        uid: "",
        groups: &case.groups,
        extra: &BTreeMap::new(),
        dry_run: false,
        old: old.as_ref(),
        reader: &world,
        host: &world,
    };
    let mut outcome = chain.admit(&request, object.as_mut()).await;
    if outcome.is_ok() {
        outcome = chain.validate(&request, object.as_ref()).await;
    }
    assert_eq!(outcome.err().map(|e| e.message), case.error, "{at}");
    assert_eq!(*world.warnings.lock().unwrap(), case.warnings, "{at}");
    let admitted = object.map(|o| o.to_value().expect("JSON")).unwrap_or_default();
    for (path, want) in case.want {
        assert_eq!(admitted.pointer(&path).cloned().unwrap_or_default(), want, "{at}: {path} of {admitted}");
    }
    let first = world.objects.lock().unwrap().first().cloned().unwrap_or_default();
    for (path, want) in case.cluster_want {
        assert_eq!(first.pointer(&path).cloned().unwrap_or_default(), want, "{at}: {path} of {first}");
    }
}

#[tokio::test]
async fn cases() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases");
    let mut files: Vec<_> = std::fs::read_dir(dir).expect("the cases").flatten().map(|f| f.path()).collect();
    files.sort();
    for path in files {
        let file = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = std::fs::read(&path).expect("a file of cases");
        let value = api::yaml::decode_any(&bytes).unwrap_or_else(|e| panic!("{file}: {e}"));
        let cases: Vec<Case> = serde_json::from_value(value).unwrap_or_else(|e| panic!("{file}: {e}"));
        for case in cases {
            check(&file, case).await;
        }
    }
}
