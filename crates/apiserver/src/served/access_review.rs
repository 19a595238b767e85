//! SubjectAccessReview and its kin: whether someone may.

use crate::respond;
use crate::verbs::create::group_kind;
use crate::verbs::{Answer, Request, internal};
use api::Status;
use api::field::{FieldErrors, FieldPath};
use api::selector::{FieldRequirement, LabelSelector, Requirement, parse_fields};
use auth::{Attributes, Decision, User};
use bytes::Bytes;
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, NonResourceRule, ResourceAttributes, ResourceRule, SelfSubjectRulesReview,
    SubjectAccessReviewStatus, SubjectRulesReviewStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde_json::{Value, json};

fn decide(
    request: &Request,
    user: &User,
    resource: Option<&ResourceAttributes>,
    path: Option<&NonResourceAttributes>,
) -> Result<SubjectAccessReviewStatus, Status> {
    fn text(s: &Option<String>) -> &str {
        s.as_deref().unwrap_or_default()
    }
    let (fields, labels, unreadable) = match resource {
        Some(r) => selectors(request, r)?,
        None => Default::default(),
    };
    let asked = match (resource, path) {
        (Some(r), None) => Attributes {
            verb: text(&r.verb),
            is_resource: true,
            group: text(&r.group),
            version: text(&r.version),
            resource: text(&r.resource),
            subresource: text(&r.subresource),
            namespace: text(&r.namespace),
            name: text(&r.name),
            path: "",
            fields: &fields,
            labels: &labels,
        },
        (None, Some(p)) => Attributes { verb: text(&p.verb), path: text(&p.path), ..Attributes::default() },
        _ => {
            return Err(Status::failure(
                422,
                "Invalid",
                format!(
                    "{}.authorization.k8s.io \"\" is invalid: spec.resourceAttributes: Invalid value: \"null\": exactly one of nonResourceAttributes or resourceAttributes must be specified",
                    request.resource.gvk.kind
                ),
            ));
        }
    };
    let (allowed, denied, reason) = match request.server.authorizers.authorize(user, &asked, &*request.server)
    {
        Decision::Allow => (true, None, String::new()),
        Decision::Deny(reason) => (false, Some(true), reason),
        Decision::NoOpinion(reason) => (false, None, reason),
    };
    Ok(SubjectAccessReviewStatus {
        allowed,
        denied,
        reason: Some(reason).filter(|r| !r.is_empty()),
        evaluation_error: unreadable,
    })
}

/// The demands of the selectors in question, and what of them can't be read. That counts as no demand: who may read all
/// may, others may not.
fn selectors(
    request: &Request,
    asked: &ResourceAttributes,
) -> Result<(Vec<FieldRequirement>, Vec<Requirement>, Option<String>), Status> {
    let (mut fields, mut labels, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
    let mut errors = FieldErrors::default();
    let spec = FieldPath::root("spec");
    let attributes = spec.child("resourceAttributes");
    let both = "may not specified at the same time as requirements";
    if let Some(selector) = &asked.field_selector {
        let raw = selector.raw_selector.as_deref().filter(|r| !r.is_empty());
        let requirements = selector.requirements.as_deref().unwrap_or_default();
        if raw.is_some() && !requirements.is_empty() {
            errors.invalid(attributes.child("fieldSelector").child("rawSelector"), &raw, both);
        }
        match raw.map(parse_fields).transpose() {
            Ok(read) => fields.extend(read.unwrap_or_default()),
            Err(e) => unreadable.push(e.to_string()),
        }
        for r in requirements {
            let values = r.values.as_deref().unwrap_or_default();
            match (r.operator.as_str(), values) {
                (operator @ ("In" | "NotIn"), [one]) => fields.push(FieldRequirement {
                    field: r.key.clone(),
                    value: one.clone(),
                    equal: operator == "In",
                }),
                (operator, _) => unreadable.push(format!("fieldSelectors do not yet support {operator}")),
            }
        }
    }
    if let Some(selector) = &asked.label_selector {
        let raw = selector.raw_selector.as_deref().filter(|r| !r.is_empty());
        let requirements = selector.requirements.clone().unwrap_or_default();
        if raw.is_some() && !requirements.is_empty() {
            errors.invalid(attributes.child("labelSelector").child("rawSelector"), &raw, both);
        }
        let object = meta::LabelSelector { match_expressions: Some(requirements), match_labels: None };
        let read = raw.map_or_else(|| LabelSelector::from_object(&object), LabelSelector::parse);
        match read {
            Ok(read) => labels.extend(read.requirements),
            Err(e) => unreadable.push(e.to_string()),
        }
    }
    if !errors.is_empty() {
        return Err(Status::invalid(&group_kind(request), "", &errors));
    }
    Ok((fields, labels, (!unreadable.is_empty()).then(|| unreadable.join(", "))))
}

/// Answers a SubjectAccessReview, a LocalSubjectAccessReview or a SelfSubjectAccessReview.
pub async fn create(request: &Request, body: Bytes) -> Answer {
    let mut value = request.decode(&body, &request.resource.schema, &request.resource.gvk)?;
    let spec = value.get("spec").cloned().unwrap_or_else(|| json!({}));
    let resource: Option<ResourceAttributes> = part(&spec, "resourceAttributes")?;
    let path: Option<NonResourceAttributes> = part(&spec, "nonResourceAttributes")?;
    let user = if request.resource.names.plural == "selfsubjectaccessreviews" {
        request.user.clone()
    } else {
        let list = |v: Option<&Value>| {
            v.and_then(Value::as_array)
                .map(|a| a.iter().filter_map(Value::as_str).map(Into::into).collect())
                .unwrap_or_default()
        };
        let text = |name: &str| spec.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
        let extra = part(&spec, "extra")?.unwrap_or_default();
        User { name: text("user"), uid: text("uid"), groups: list(spec.get("groups")), extra }
    };
    if user.name.is_empty() && user.groups.is_empty() {
        let mut errors = FieldErrors::default();
        errors.invalid(
            FieldPath::root("spec").child("user"),
            &"",
            "at least one of user or group must be specified",
        );
        return Err(Status::invalid(&group_kind(request), "", &errors));
    }
    if let Some(r) = &resource
        && request.resource.namespaced
        && r.namespace.as_deref() != Some(&request.info.namespace)
    {
        return Err(Status::failure(
            422,
            "Invalid",
            "LocalSubjectAccessReview.authorization.k8s.io \"\" is invalid: spec.resourceAttributes.namespace: Invalid value: must match metadata.namespace",
        ));
    }
    let status = decide(request, &user, resource.as_ref(), path.as_ref())?;
    value["status"] = serde_json::to_value(status).map_err(internal)?;
    respond::value(request, 201, &value)
}

fn part<T: serde::de::DeserializeOwned>(spec: &Value, name: &str) -> Result<Option<T>, Status> {
    spec.get(name)
        .filter(|v| !v.is_null())
        .map(|v| serde_json::from_value(v.clone()))
        .transpose()
        .map_err(internal)
}

/// Answers a SelfSubjectRulesReview: what the caller may in a namespace.
pub async fn create_rules(request: &Request, body: Bytes) -> Answer {
    let value = request.decode(&body, &request.resource.schema, &request.resource.gvk)?;
    let mut review: SelfSubjectRulesReview = serde_json::from_value(value).map_err(internal)?;
    let namespace = review.spec.namespace.clone().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let mut status = SubjectRulesReviewStatus::default();
    if request.user.is_in(auth::MASTERS) {
        let all = || Some(vec!["*".to_string()]);
        status.resource_rules.push(ResourceRule {
            verbs: vec!["*".into()],
            api_groups: all(),
            resources: all(),
            resource_names: None,
        });
        status.non_resource_rules.push(NonResourceRule { verbs: vec!["*".into()], non_resource_urls: all() });
    }
    for rule in request.server.authorizers.rbac.rules(&request.user, &namespace, &*request.server) {
        match rule.non_resource_urls.filter(|u| !u.is_empty()) {
            Some(urls) => status
                .non_resource_rules
                .push(NonResourceRule { verbs: rule.verbs, non_resource_urls: Some(urls) }),
            None => status.resource_rules.push(ResourceRule {
                verbs: rule.verbs,
                api_groups: rule.api_groups,
                resources: rule.resources,
                resource_names: rule.resource_names,
            }),
        }
    }
    review.status = Some(status);
    respond::value(request, 201, &serde_json::to_value(review).map_err(internal)?)
}
