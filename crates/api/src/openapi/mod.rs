//! OpenAPI documents, made from the schemas and from the routes that the server serves. Start at [`v3`],
//! one document for each group version, and [`v2`], one for all; [`v2_protobuf`] and [`v3_protobuf`] write them as
//! protobuf.

mod definitions;
mod gnostic;
mod paths;

use crate::schema::SchemaRef;
use serde_json::{Value, json};

/// A path that the server serves, and what for.
#[derive(Clone, Debug)]
pub struct Route {
    /// For example `/apis/apps/v1/namespaces/{namespace}/deployments/{name}`.
    pub path: String,
    /// Of the objects that go over this path; empty for the core group.
    pub group: String,
    /// Likewise.
    pub version: String,
    /// Likewise: for `../scale` it is `Scale`.
    pub kind: String,
    /// Whether the resource's objects live in namespaces.
    pub namespaced: bool,
    /// Whether the path is that of the collection.
    pub collection: bool,
    /// The plural, for example `deployments`.
    pub resource: String,
    /// Empty for the resource itself.
    pub subresource: String,
    /// The kind that the resource itself has, for example `Deployment` also for `../scale`.
    pub parent_kind: String,
    /// What may be done.
    pub verbs: Vec<Verb>,
    /// What the objects look like.
    pub schema: SchemaRef,
    /// What a list of them looks like, if there are lists.
    pub list: Option<SchemaRef>,
}

/// What may be done on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Read one object.
    Get,
    /// Read the collection, or watch it.
    List,
    /// Create an object.
    Create,
    /// Replace an object.
    Update,
    /// Change an object.
    Patch,
    /// Delete an object.
    Delete,
    /// Delete those of the collection that are selected.
    DeleteCollection,
    /// Anything over any method, such as exec or proxy.
    Connect,
}

/// Which of the two formats a document is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    V2,
    V3,
}

impl Format {
    /// A reference to a definition.
    fn reference(self, name: &str) -> Value {
        let base = if self == Format::V3 { "#/components/schemas/" } else { "#/definitions/" };
        json!({"$ref": format!("{base}{name}")})
    }
}

const SECURITY: &str = "BearerToken";

fn security_scheme() -> Value {
    json!({"type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer Token authentication"})
}

/// The document of one group version.
pub fn v3(server_version: &str, routes: &[Route]) -> Value {
    let (paths, definitions) = build(Format::V3, routes);
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": server_version},
        "paths": paths,
        "components": {"schemas": definitions, "securitySchemes": {SECURITY: security_scheme()}},
    })
}

/// The document of everything that is served.
pub fn v2(server_version: &str, routes: &[Route]) -> Value {
    let (paths, definitions) = build(Format::V2, routes);
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": server_version},
        "paths": paths,
        "definitions": definitions,
        "securityDefinitions": {SECURITY: security_scheme()},
        "security": [{SECURITY: []}],
    })
}

/// The bytes of gnostic's `openapi.v3.Document`.
pub fn v3_protobuf(document: &Value) -> Vec<u8> {
    gnostic::write(document, &gnostic::v3::DOCUMENT)
}

/// The bytes of gnostic's `openapi.v2.Document`.
pub fn v2_protobuf(document: &Value) -> Vec<u8> {
    gnostic::write(document, &gnostic::v2::DOCUMENT)
}

fn build(format: Format, routes: &[Route]) -> (Value, Value) {
    let mut definitions = definitions::Definitions::new(format);
    let mut paths = serde_json::Map::new();
    for route in routes {
        paths.insert(route.path.clone(), paths::item(route, &mut definitions));
    }
    (Value::Object(paths), definitions.finish())
}

#[cfg(test)]
mod tests;
