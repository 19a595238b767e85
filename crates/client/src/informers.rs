//! Informers by kind: everyone who asks for the same collection gets the same one.

use crate::dynamic::{METADATA, METADATA_LIST, PartialObject, ResourceId};
use crate::informer::Informer;
use crate::object::{Meta, Object};
use crate::reflector::{self, Source};
use crate::tasks;
use crate::verbs::{Client, ListParams, collection};
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The part of a collection that an informer keeps; the default is all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Only this namespace, if it is not empty.
    pub namespace: String,
    /// Only objects with such labels.
    pub label_selector: String,
    /// Only objects with such fields, such as `spec.nodeName=a`.
    pub field_selector: String,
}

type Shared = HashMap<(TypeId, Scope), Box<dyn Any + Send>>;

/// Makes informers and shares them. Clones share too.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    shutdown: CancellationToken,
    resync: Option<Duration>,
    shared: Arc<Mutex<Shared>>,
}

impl Informers {
    /// Informers that run until shutdown. Needs a Tokio runtime when one is asked for. One that panics, such as in
    /// a handler, would be a cache that stands still: it cancels `shutdown`.
    pub fn new(client: Client, shutdown: CancellationToken) -> Self {
        Informers { client, shutdown, resync: None, shared: Arc::default() }
    }

    /// Tells handlers all that is there again after so long, or up to twice as long.
    pub fn resync(mut self, period: Duration) -> Self {
        self.resync = Some(period).filter(|p| !p.is_zero());
        self
    }

    /// The informer of all objects of a kind.
    pub fn informer<T: Object>(&self) -> Informer<T> {
        self.informer_with(Scope::default())
    }

    /// The informer of a part of a kind's objects.
    pub fn informer_with<T: Object>(&self, scope: Scope) -> Informer<T> {
        self.informer_stripped(scope, reflector::strip::<T>)
    }

    /// The informer of a part of a kind's objects, without what `strip` takes away. Who asks first for a
    /// scope decides.
    pub fn informer_stripped<T: Object>(&self, scope: Scope, strip: fn(&mut T)) -> Informer<T> {
        let mut shared = self.shared.lock().unwrap_or_else(|e| e.into_inner());
        let key = (TypeId::of::<T>(), scope);
        if let Some(found) = shared.get(&key).and_then(|i| i.downcast_ref::<Informer<T>>()) {
            return found.clone();
        }
        let namespace = if T::NAMESPACED { key.1.namespace.as_str() } else { "" };
        let source = Source {
            client: self.client.clone(),
            path: collection(T::GROUP, T::VERSION, T::URL_PATH_SEGMENT, namespace),
            params: params(&key.1),
            accept_list: "application/json",
            accept_watch: "application/json",
            strip,
        };
        let informer = Informer::empty();
        self.start(source, &informer, CancellationToken::new());
        shared.insert(key, Box::new(informer.clone()));
        informer
    }

    /// An informer of any kind's metadata, without labels and annotations, that runs until `shutdown` or the
    /// shutdown of all. It is not shared.
    pub fn metadata(&self, resource: &ResourceId, shutdown: CancellationToken) -> Informer<PartialObject> {
        fn strip(object: &mut PartialObject) {
            (object.metadata.annotations, object.metadata.labels) = (None, None);
        }
        let source = Source {
            client: self.client.clone(),
            path: Client::collection_dyn(resource, ""),
            params: ListParams::default(),
            accept_list: METADATA_LIST,
            accept_watch: METADATA,
            strip,
        };
        let informer = Informer::empty();
        self.start(source, &informer, shutdown);
        informer
    }

    /// The task ends with `stop`, or with the shutdown of all.
    fn start<T: Meta>(&self, source: Source<T>, informer: &Informer<T>, stop: CancellationToken) {
        let (name, informer, resync) = (source.path.clone(), informer.clone(), self.resync);
        tasks::spawn(name, self.shutdown.clone(), async move {
            stop.run_until_cancelled(reflector::run(source, informer, resync)).await;
        });
    }
}

fn params(scope: &Scope) -> ListParams {
    ListParams {
        label_selector: scope.label_selector.clone(),
        field_selector: scope.field_selector.clone(),
        ..ListParams::default()
    }
}
