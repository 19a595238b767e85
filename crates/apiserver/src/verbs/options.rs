//! What a change asks for beside its object: upstream's CreateOptions, UpdateOptions, PatchOptions and DeleteOptions.
//! They are read once, before anything is done, and carried with the request.

use super::{Request, internal};
use crate::negotiate::{Format, body_format, content_type};
use crate::request::{Query, Verb};
use api::field::{FieldErrors, FieldPath};
use api::{GroupKind, Status};
use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;

/// What is done about unknown and duplicate fields: `fieldValidation`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum FieldValidation {
    /// Nothing.
    Ignore,
    /// The client is told.
    #[default]
    Warn,
    /// The request is refused.
    Strict,
}

/// The options of a request.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Nothing is to be kept: `dryRun`.
    pub dry_run: bool,
    /// `fieldManager`.
    pub field_manager: Option<String>,
    /// `fieldValidation`.
    pub field_validation: FieldValidation,
    /// `force`: server-side apply takes fields over.
    pub force: bool,
    /// What a deletion asks for besides.
    pub delete: Option<DeleteOptions>,
}

/// A manager's name may be this long: upstream's limit.
const MANAGER: usize = 128;

impl Options {
    /// Those of a field manager of the server's own.
    pub fn of_manager(manager: &str) -> Self {
        Options { field_manager: Some(manager.into()), ..Options::default() }
    }

    /// Reads the options of a request, whose body may be those of a deletion.
    pub fn read(request: &Request, body: &Bytes) -> Result<Self, Status> {
        let info = &request.info;
        let kind = match info.verb {
            Verb::Create => "CreateOptions",
            Verb::Update => "UpdateOptions",
            Verb::Patch => "PatchOptions",
            Verb::Delete | Verb::DeleteCollection if info.subresource.is_empty() => {
                let delete = delete_options(request, body)?;
                let dry_run = delete.dry_run.as_ref().is_some_and(|d| !d.is_empty());
                return Ok(Options { dry_run, delete: Some(delete), ..Options::default() });
            }
            _ => return Ok(Options::default()),
        };
        let query = &request.query;
        let mut errors = FieldErrors::default();
        let dry_run = dry_run(query.all("dryRun").filter(|v| !v.is_empty()), &mut errors);
        let field_validation = match query.text("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let at = FieldPath::root("fieldValidation");
                errors.not_supported(at, other, &["Ignore", "Strict", "Warn"]);
                FieldValidation::Strict
            }
        };
        let field_manager = query.text("fieldManager").map(String::from);
        let at = FieldPath::root("fieldManager");
        if let Some(name) = &field_manager {
            if name.len() > MANAGER {
                errors.too_long(at, MANAGER);
            } else if name.chars().any(char::is_control) {
                errors.invalid(at, name, "should only contain printable characters");
            }
        }
        if info.verb == Verb::Patch {
            match content_type(&request.headers) {
                "application/apply-patch+yaml" if field_manager.is_none() => {
                    errors.required(FieldPath::root("fieldManager"), "is required for apply patch");
                }
                "application/apply-patch+yaml" => {}
                _ if query.text("force").is_some() => {
                    let why = "may not be specified for non-apply patch";
                    errors.forbidden(FieldPath::root("force"), why);
                }
                _ => {}
            }
        }
        refuse(kind, &errors)?;
        let force = query.flag("force");
        Ok(Options { dry_run, field_manager, field_validation, force, delete: None })
    }
}

fn refuse(kind: &str, errors: &FieldErrors) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&GroupKind { group: "meta.k8s.io".into(), kind: kind.into() }, "", errors))
}

/// Whether nothing is to be kept. Any word asks for it, and all but one are refused.
fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut FieldErrors) -> bool {
    let mut dry = false;
    for value in values {
        dry = true;
        if value != "All" {
            errors.not_supported(FieldPath::root("dryRun"), value, &["All"]);
        }
    }
    dry
}

/// Reads the options in the body, and those in the query, which the body's come before.
fn delete_options(request: &Request, body: &Bytes) -> Result<DeleteOptions, Status> {
    let mut options = if body.is_empty() {
        DeleteOptions::default()
    } else {
        let schema = api::schema::builtin()
            .definition("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")
            .ok_or_else(|| internal("the schema of DeleteOptions is missing"))?;
        let bad =
            |e: &dyn std::fmt::Display| Status::bad_request(format!("the delete options can't be read: {e}"));
        let value = match body_format(&request.headers)? {
            Format::Json => api::json::decode(body, schema).map_err(|e| bad(&e))?.value,
            Format::Yaml => api::yaml::decode(body, schema).map_err(|e| bad(&e))?.value,
            Format::Protobuf => api::protobuf::from_wire(body, schema).map_err(|e| bad(&e))?,
        };
        serde_json::from_value(value).map_err(|e| bad(&e))?
    };
    let query: &Query = &request.query;
    if options.grace_period_seconds.is_none() {
        options.grace_period_seconds = query.number("gracePeriodSeconds")?;
    }
    if options.propagation_policy.is_none() {
        options.propagation_policy = query.text("propagationPolicy").map(Into::into);
    }
    if options.orphan_dependents.is_none() && query.text("orphanDependents").is_some() {
        options.orphan_dependents = Some(query.flag("orphanDependents"));
    }
    // Who asks for a dry run anywhere does not want it done.
    let asked = query.all("dryRun").filter(|v| !v.is_empty()).map(Into::into);
    options.dry_run.get_or_insert_default().extend(asked);
    check_delete(&options)?;
    Ok(options)
}

/// Refuses options of a deletion that contradict each other or mean nothing.
pub fn check_delete(options: &DeleteOptions) -> Result<(), Status> {
    let mut errors = FieldErrors::default();
    dry_run(options.dry_run.iter().flatten().map(String::as_str), &mut errors);
    let at = FieldPath::root("propagationPolicy");
    match options.propagation_policy.as_deref() {
        Some(policy) if options.orphan_dependents.is_some() => {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.invalid(at, &policy, why);
        }
        Some("Foreground" | "Background" | "Orphan") | None => {}
        Some(other) => errors.not_supported(at, other, &["Foreground", "Background", "Orphan"]),
    }
    refuse("DeleteOptions", &errors)
}
