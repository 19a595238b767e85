//! Event of the core group.

use crate::events::V1;
use crate::kind::Stored;
use crate::table::age;
use crate::{Column, Kind};
use api::field::FieldPath;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The rules of Event.
pub static KIND: Kind<Event> = Kind {
    create_on_update: true,
    versions: &[V1],
    // They tell of what has been and go away by themselves.
    stored: Stored { prefix: "events", in_memory: true, ttl_seconds: 3600 },
    name_rule: |_, _| Vec::new(),
    validate: |e, errors| {
        let of = e.involved_object.namespace.as_deref().unwrap_or_default();
        let own = e.metadata.namespace.as_deref().unwrap_or_default();
        if !(of == own || of.is_empty() && matches!(own, "default" | "kube-system")) {
            errors.invalid(
                FieldPath::root("involvedObject").child("namespace"),
                &of,
                "does not match event.namespace",
            );
        }
    },
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
        Column::text("Last Seen", "When it last happened.", |e: &Event, now| {
            age(seen(e, true).as_ref(), now)
        }),
        Column::text("Type", "Normal or Warning.", |e: &Event, _| e.type_.clone().into()),
        Column::text("Reason", "What happened, in a word.", |e: &Event, _| e.reason.clone().into()),
        Column::text("Object", "What it happened to.", |e: &Event, _| {
            let o = &e.involved_object;
            format!(
                "{}/{}",
                o.kind.clone().unwrap_or_default().to_lowercase(),
                o.name.clone().unwrap_or_default()
            )
            .into()
        }),
        Column::text("Subobject", "Which part of it.", |e: &Event, _| {
            e.involved_object.field_path.clone().unwrap_or_default().into()
        })
        .wide(),
        Column::text("Source", "Who says so.", |e: &Event, _| {
            let source = e.source.clone().unwrap_or_default();
            let who = source
                .component
                .filter(|c| !c.is_empty())
                .or(e.reporting_component.clone())
                .unwrap_or_default();
            [who, source.host.unwrap_or_default()]
                .iter()
                .filter(|s| !s.is_empty())
                .cloned()
                .collect::<Vec<_>>()
                .join(", ")
                .into()
        })
        .wide(),
        Column::text("Message", "What happened.", |e: &Event, _| {
            e.message.as_deref().unwrap_or_default().trim().into()
        }),
        Column::text("First Seen", "When it first happened.", |e: &Event, now| {
            age(seen(e, false).as_ref(), now)
        })
        .wide(),
        Column::number("Count", "How often.", |e: &Event, _| {
            e.count.or(e.series.as_ref().and_then(|s| s.count)).unwrap_or(1).into()
        })
        .wide(),
        Column::text("Name", "The event's name.", |e: &Event, _| e.metadata.name.clone().into()).wide(),
    ],
    ..Kind::namespaced("event", "events").called(&["ev"], &[])
};

fn seen(e: &Event, last: bool) -> Option<Time> {
    let series = e.series.as_ref().and_then(|s| s.last_observed_time.as_ref()).map(|t| Time(t.0));
    let once = e.event_time.as_ref().map(|t| Time(t.0));
    if last { series.or(e.last_timestamp.clone()).or(once) } else { e.first_timestamp.clone().or(once) }
}
