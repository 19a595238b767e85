//! LimitRange: bounds and defaults of what pods of a namespace ask for.

use crate::Kind;
use crate::check::amount;
use crate::core::pod_spec::resources::{self, Amounts};
use crate::kind::age_column;
use api::field::{FieldErrors, FieldPath};
use api::quantity::{Format, Quantity};
use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};
use std::collections::BTreeSet;

/// The rules of LimitRange.
pub static KIND: Kind<LimitRange> = Kind {
    default: |l| l.spec.iter_mut().flat_map(|s| &mut s.limits).for_each(default),
    validate,
    validate_update: |new, _, errors| validate(new, errors),
    columns: &[age_column()],
    ..Kind::namespaced("limitrange", "limitranges").called(&["limits"], &[])
};

/// Of a container, what may be used most is the default limit, what is limited is requested, and what must
/// be used least is requested at least.
fn default(item: &mut LimitRangeItem) {
    if item.type_ != "Container" {
        return;
    }
    let fill = |into: &mut Amounts, from: Option<&Amounts>| {
        for (name, value) in from.into_iter().flatten() {
            into.entry(name.clone()).or_insert_with(|| value.clone());
        }
    };
    let mut limits = item.default.take().unwrap_or_default();
    let mut requests = item.default_request.take().unwrap_or_default();
    fill(&mut limits, item.max.as_ref());
    fill(&mut requests, Some(&limits));
    fill(&mut requests, item.min.as_ref());
    item.default = Some(limits).filter(|l| !l.is_empty());
    item.default_request = Some(requests).filter(|r| !r.is_empty());
}

fn validate(l: &LimitRange, errors: &mut FieldErrors) {
    let root = FieldPath::root("spec");
    let path = root.child("limits");
    let items = l.spec.as_ref().map_or(&[][..], |s| &s.limits);
    for (i, item) in items.iter().enumerate() {
        let at = path.index(i);
        let kind = item.type_.as_str();
        let faults = api::names::qualified_name(kind);
        if faults.is_empty()
            && !kind.contains('/')
            && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim")
        {
            let why = "must be a standard limit type or fully qualified";
            errors.invalid(at.child("type"), &kind, why);
        }
        errors.all_invalid(at.child("type"), kind, faults);
        if items[..i].iter().any(|o| o.type_ == kind) {
            errors.duplicate(at.child("type"), &kind);
        }
        item_amounts(item, at, errors);
    }
}

fn item_amounts(item: &LimitRangeItem, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let pod = item.type_ == "Pod";
    let mut names = BTreeSet::new();
    for (field, amounts) in [
        ("max", &item.max),
        ("min", &item.min),
        ("default", &item.default),
        ("defaultRequest", &item.default_request),
        ("maxLimitRequestRatio", &item.max_limit_request_ratio),
    ] {
        let at = at.child(field);
        let Some(amounts) = amounts else { continue };
        if pod && matches!(field, "default" | "defaultRequest") {
            if !amounts.is_empty() {
                errors.forbidden(at, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for name in amounts.keys() {
            match item.type_.as_str() {
                "Pod" | "Container" => resources::container_name(name, at.key(name), errors),
                _ => {
                    resources::name(name, at.key(name), errors);
                }
            }
            names.insert(name.as_str());
        }
    }
    let get = |amounts: &Option<Amounts>, name: &str| amounts.as_ref()?.get(name).map(amount);
    if item.type_ == "PersistentVolumeClaim"
        && get(&item.min, "storage").is_none()
        && get(&item.max, "storage").is_none()
    {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        errors.required(at.child("limits"), why);
    }
    for name in names {
        let (min, max) = (get(&item.min, name), get(&item.max, name));
        let (default, request) = match pod {
            true => (None, None),
            false => (get(&item.default, name), get(&item.default_request, name)),
        };
        let ratio = get(&item.max_limit_request_ratio, name);
        let mut less =
            |field: &str, said: Quantity, what: [&str; 2], a: Option<Quantity>, b: Option<Quantity>| {
                if let (Some(a), Some(b)) = (a, b)
                    && a > b
                {
                    let field = at.child(field);
                    let why = format!("{} value {a} is greater than {} value {b}", what[0], what[1]);
                    errors.invalid(field.key(name), &said.to_string(), why);
                }
            };
        let said = |q: Option<Quantity>| q.unwrap_or_default();
        less("min", said(min), ["min", "max"], min, max);
        less("defaultRequest", said(request), ["min", "default request"], min, request);
        less("defaultRequest", said(request), ["default request", "max"], request, max);
        less("defaultRequest", said(request), ["default request", "default limit"], request, default);
        less("default", said(min), ["min", "default"], min, default);
        less("default", said(max), ["default", "max"], default, max);
        if let Some(ratio) = ratio {
            let ratio_at = at.child("maxLimitRequestRatio");
            if ratio < Quantity::new(1, Format::DecimalSi) {
                let why = format!("ratio {ratio} is less than 1");
                errors.invalid(ratio_at.key(name), &ratio.to_string(), why);
            }
            if let (Some(min), Some(max)) = (min, max) {
                let most = max.as_f64() / min.as_f64();
                if ratio.as_f64() > most {
                    let why = format!("ratio {ratio} is greater than max/min = {most:.6}");
                    errors.invalid(ratio_at.key(name), &ratio.to_string(), why);
                }
            }
        }
        if let (Some(default), Some(request)) = (default, request)
            && !resources::may_overcommit(name)
            && default != request
        {
            let field = at.child("defaultRequest");
            let why =
                format!("default value {default} must equal to defaultRequest value {request} in {name}");
            errors.invalid(field.key(name), &request.to_string(), why);
        }
    }
}
