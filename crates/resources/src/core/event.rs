//! Event of the core group.

use crate::check::{self, text};
use crate::events::V1;
use crate::kind::Stored;
use crate::table::age;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use serde_json::Value;

/// The rules of Event.
pub static KIND: Kind<Event> = Kind {
    create_on_update: true,
    versions: &[V1],
    // They tell of what has been and go away by themselves.
    stored: Stored { prefix: "events", in_memory: true, ttl_seconds: 3600 },
    name_rule: |_, _| Vec::new(),
    validate,
    validate_update: |new, _, errors| validate(new, errors),
    selectable: &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source=source.component|reportingComponent",
        "type",
    ],
    columns: &[
        Column::text("Last Seen", "When it last happened.", last_seen),
        Column::text("Type", "Normal or Warning.", |e: &Event, _| text(&e.type_).into()),
        Column::text("Reason", "What happened, in a word.", |e: &Event, _| text(&e.reason).into()),
        Column::text("Object", "What it happened to.", |e: &Event, _| {
            let o = &e.involved_object;
            let kind = text(&o.kind).to_lowercase();
            match text(&o.name) {
                "" => kind.into(),
                name => format!("{kind}/{name}").into(),
            }
        }),
        Column::text("Subobject", "Which part of it.", |e: &Event, _| {
            text(&e.involved_object.field_path).into()
        })
        .wide(),
        Column::text("Source", "Who says so.", |e: &Event, _| source(e).into()).wide(),
        Column::text("Message", "What happened.", |e: &Event, _| text(&e.message).trim().into()),
        Column::text("First Seen", "When it first happened.", first_seen).wide(),
        Column::text("Count", "How often.", |e: &Event, _| {
            let once = e.count.filter(|n| *n != 0).unwrap_or(1);
            e.series.as_ref().map_or(once, |s| s.count.unwrap_or(0)).into()
        })
        .wide(),
        Column::text("Name", "The event's name.", |e: &Event, _| text(&e.metadata.name).into()).wide(),
    ],
    ..Kind::namespaced("event", "events").called(&["ev"], &[])
};

fn micro_age(then: Option<&MicroTime>, now: Timestamp) -> Value {
    age(then.map(|t| Time(t.0)).as_ref(), now)
}

fn first_seen(e: &Event, now: Timestamp) -> Value {
    match &e.first_timestamp {
        None => micro_age(e.event_time.as_ref(), now),
        first => age(first.as_ref(), now),
    }
}

fn last_seen(e: &Event, now: Timestamp) -> Value {
    match (&e.series, &e.last_timestamp) {
        (Some(series), _) => micro_age(series.last_observed_time.as_ref(), now),
        (None, None) => first_seen(e, now),
        (None, last) => age(last.as_ref(), now),
    }
}

fn source(e: &Event) -> String {
    let none = Default::default();
    let source = e.source.as_ref().unwrap_or(&none);
    let or = |a: &Option<String>, b: &Option<String>| match text(a) {
        "" => text(b).to_string(),
        a => a.to_string(),
    };
    let who = or(&source.component, &e.reporting_component);
    match or(&source.host, &e.reporting_instance) {
        instance if instance.is_empty() => who,
        instance => format!("{who}, {instance}"),
    }
}

/// The longest of an event's words, and of its message.
const MAX_WORD: usize = 128;
const MAX_MESSAGE: usize = 1024;

fn validate(e: &Event, errors: &mut FieldErrors) {
    let of = text(&e.involved_object.namespace);
    let own = text(&e.metadata.namespace);
    let fits = match (e.event_time.is_some(), of) {
        (true, "") => matches!(own, "default" | "kube-system"),
        (true, _) => true,
        (false, "") => matches!(own, "" | "default"),
        (false, of) => of == own,
    };
    if !fits {
        let object = FieldPath::root("involvedObject");
        errors.invalid(object.child("namespace"), &of, "does not match event.namespace");
    }
    if e.event_time.is_some() {
        let who = text(&e.reporting_component);
        let at = FieldPath::root("reportingComponent");
        check::required(who, at, errors);
        check::qualified(who, at, errors);
        for (name, value) in
            [("reportingInstance", &e.reporting_instance), ("action", &e.action), ("reason", &e.reason)]
        {
            check::required(text(value), FieldPath::root(name), errors);
            if text(value).len() > MAX_WORD {
                let why = format!("can have at most {MAX_WORD} characters");
                errors.invalid(FieldPath::root(name), &"", why);
            }
        }
        if text(&e.message).len() > MAX_MESSAGE {
            let why = format!("can have at most {MAX_MESSAGE} characters");
            errors.invalid(FieldPath::root("message"), &"", why);
        }
    }
    check::subdomain(own, FieldPath::root("namespace"), errors);
}
