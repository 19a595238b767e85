//! APIService: who serves a group and version.

use crate::check::segment;
use crate::kind::{age_column, path_segment_name};
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceCondition, APIServiceSpec, APIServiceStatus,
};

/// The rules of APIService.
pub static KIND: Kind<APIService> = Kind {
    has_status: true,
    unconditional_update: false,
    name_rule: path_segment_name,
    default: |s| {
        if let Some(service) = s.spec.as_mut().and_then(|s| s.service.as_mut()) {
            service.port.get_or_insert(443);
        }
    },
    // What this server serves itself is there from the first.
    prepare_create: |s, context| {
        let local = s.spec.as_ref().is_none_or(|s| s.service.is_none());
        let available = APIServiceCondition {
            type_: "Available".into(),
            status: "True".into(),
            reason: Some("Local".into()),
            message: Some("Local APIServices are always available".into()),
            last_transition_time: Some(Time(context.now)),
        };
        s.status = local.then(|| APIServiceStatus { conditions: Some(vec![available]) });
    },
    validate,
    validate_update: |new, _, errors| validate(new, errors),
    validate_status: |new, _, errors| {
        let at = FieldPath::root("status");
        let list = at.child("conditions");
        let conditions = new.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        for (i, condition) in conditions.iter().enumerate() {
            let known = ["True", "False", "Unknown"];
            if !known.contains(&condition.status.as_str()) {
                errors.not_supported(list.index(i).child("status"), &condition.status, &known);
            }
        }
    },
    columns: &[
        Column::text("Service", "The service that hosts it.", |s: &APIService, _| {
            match s.spec.as_ref().and_then(|s| s.service.as_ref()) {
                Some(service) => {
                    let text = |t: &Option<String>| t.clone().unwrap_or_default();
                    format!("{}/{}", text(&service.namespace), text(&service.name)).into()
                }
                None => "Local".into(),
            }
        }),
        Column::text("Available", "Whether it can be asked.", |s: &APIService, _| {
            let conditions = s.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
            match conditions.iter().find(|c| c.type_ == "Available") {
                None => "Unknown".into(),
                Some(c) => match c.reason.as_deref().filter(|r| !r.is_empty() && c.status != "True") {
                    Some(reason) => format!("{} ({reason})", c.status).into(),
                    None => c.status.clone().into(),
                },
            }
        }),
        age_column(),
    ],
    ..Kind::cluster("apiservice", "apiregistration.k8s.io/apiservices").called(&[], &["api-extensions"])
};

fn validate(s: &APIService, errors: &mut FieldErrors) {
    let none = APIServiceSpec::default();
    let spec = s.spec.as_ref().unwrap_or(&none);
    let at = FieldPath::root("spec");
    let (group, version) =
        (spec.group.as_deref().unwrap_or_default(), spec.version.as_deref().unwrap_or_default());
    let name = s.metadata.name.as_deref().unwrap_or_default();
    let required = format!("{version}.{group}");
    if name != required && segment(name).is_empty() && !name.is_empty() {
        let metadata = FieldPath::root("metadata");
        let why = format!("must be `spec.version+\".\"+spec.group`: {required:?}");
        errors.invalid(metadata.child("name"), &name, why);
    }
    match group {
        "" if version != "v1" => {
            let why = "only v1 may have an empty group and it better be legacy kube";
            errors.required(at.child("group"), why);
        }
        "" => {}
        group => errors.all_invalid(at.child("group"), group, names::dns1123_subdomain(group)),
    }
    errors.all_invalid(at.child("version"), version, names::dns1035_label(version));
    for (name, value, most) in [
        ("groupPriorityMinimum", spec.group_priority_minimum, 20000),
        ("versionPriority", spec.version_priority, 1000),
    ] {
        if value <= 0 || value > most {
            errors.invalid(at.child(name), &value, format!("must be positive and less than {most}"));
        }
    }
    let bundle = spec.ca_bundle.as_ref().map_or(0, |b| b.0.len());
    let skip = spec.insecure_skip_tls_verify == Some(true);
    let skip_at = at.child("insecureSkipTLSVerify");
    let Some(service) = &spec.service else {
        if bundle > 0 {
            let why = "local APIServices may not have a caBundle";
            errors.invalid(at.child("caBundle"), &format!("{bundle} bytes"), why);
        }
        if skip {
            errors.invalid(skip_at, &true, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    };
    let service_at = at.child("service");
    for (name, value) in [("namespace", &service.namespace), ("name", &service.name)] {
        if value.as_ref().is_none_or(String::is_empty) {
            errors.required(service_at.child(name), "");
        }
    }
    let port = service.port.unwrap_or(0);
    let wrong = names::port_number(port);
    if !wrong.is_empty() {
        errors.invalid(service_at.child("port"), &port, format!("port is not valid: {}", wrong.join(", ")));
    }
    if skip && bundle > 0 {
        errors.invalid(skip_at, &true, "may not be true if caBundle is present");
    }
}
