//! An object of any kind, on its way through the server.
//! Built-in kinds are held as their `k8s-openapi` struct, so that rules and admission plugins work with
//! types; [`Custom`] holds the rest.

use crate::json::Printer;
use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::any::Any;

/// What every typed object offers. Implemented for all `k8s-openapi` kinds with metadata, and [`Custom`].
pub trait AnyObject: Any + Send + Sync {
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
    /// Its metadata, to change.
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    /// The object as JSON, with `apiVersion` and `kind`.
    fn to_value(&self) -> Result<Value, serde_json::Error>;
    /// Its `apiVersion` and `kind`.
    fn type_meta(&self) -> (&str, &str);
    /// Writes it; `printer` leaves out those two and its metadata.
    fn print_rest<'a>(&'a self, printer: Printer<'a>) -> Result<(), serde_json::Error>;
    /// A copy.
    fn clone_box(&self) -> Box<dyn AnyObject>;
    /// For [`Object::get`].
    fn as_any(&self) -> &dyn Any;
    /// For [`Object::get_mut`].
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<T> AnyObject for T
where
    T: Metadata<Ty = ObjectMeta> + Serialize + Clone + Send + Sync + 'static,
{
    fn meta(&self) -> &ObjectMeta {
        self.metadata()
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.metadata_mut()
    }
    fn to_value(&self) -> Result<Value, serde_json::Error> {
        serde_json::to_value(self)
    }
    fn type_meta(&self) -> (&str, &str) {
        (T::API_VERSION, T::KIND)
    }
    fn print_rest<'a>(&'a self, printer: Printer<'a>) -> Result<(), serde_json::Error> {
        self.serialize(printer)
    }
    fn clone_box(&self) -> Box<dyn AnyObject> {
        Box::new(self.clone())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// An object of any kind.
pub struct Object(Box<dyn AnyObject>);

impl Object {
    /// Holds a typed object.
    pub fn new(object: impl AnyObject) -> Self {
        Object(Box::new(object))
    }

    /// Reads JSON that is known to fit `T`.
    pub fn from_value<T>(value: &Value) -> Result<Self, serde_json::Error>
    where
        T: AnyObject + DeserializeOwned,
    {
        T::deserialize(value).map(Object::new)
    }

    /// Its metadata.
    pub fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    /// Its metadata, to change.
    pub fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }

    /// The object as JSON, with `apiVersion` and `kind`.
    pub fn to_value(&self) -> Result<Value, serde_json::Error> {
        self.0.to_value()
    }

    /// Its `apiVersion` and `kind`.
    pub fn type_meta(&self) -> (&str, &str) {
        self.0.type_meta()
    }

    pub(crate) fn print_rest<'a>(&'a self, printer: Printer<'a>) -> Result<(), serde_json::Error> {
        self.0.print_rest(printer)
    }

    /// The object, if it is a `T`.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        self.0.as_any().downcast_ref()
    }

    /// The object, if it is a `T`, to change.
    pub fn get_mut<T: 'static>(&mut self) -> Option<&mut T> {
        self.0.as_any_mut().downcast_mut()
    }
}

impl Clone for Object {
    fn clone(&self) -> Self {
        Object(self.0.clone_box())
    }
}

/// An object whose kind is known at run time only. Its metadata is typed, the rest is JSON.
#[derive(Clone, Debug, Default)]
pub struct Custom {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Everything else, `apiVersion` and `kind` with it.
    pub rest: Map<String, Value>,
}

impl Custom {
    /// Takes JSON apart.
    pub fn from_value(value: &Value) -> Result<Self, serde_json::Error> {
        let mut rest = value.as_object().cloned().unwrap_or_default();
        let metadata = match rest.remove("metadata") {
            Some(metadata) => serde_json::from_value(metadata)?,
            None => ObjectMeta::default(),
        };
        Ok(Custom { metadata, rest })
    }
}

impl AnyObject for Custom {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
    fn to_value(&self) -> Result<Value, serde_json::Error> {
        let mut whole = self.rest.clone();
        whole.insert("metadata".into(), serde_json::to_value(&self.metadata)?);
        Ok(Value::Object(whole))
    }
    fn type_meta(&self) -> (&str, &str) {
        let text = |name: &str| self.rest.get(name).and_then(Value::as_str).unwrap_or_default();
        (text("apiVersion"), text("kind"))
    }
    fn print_rest<'a>(&'a self, printer: Printer<'a>) -> Result<(), serde_json::Error> {
        let mut members = printer.members();
        self.rest.iter().try_for_each(|(name, value)| members.member(name, value))?;
        members.finish()
    }
    fn clone_box(&self) -> Box<dyn AnyObject> {
        Box::new(self.clone())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
