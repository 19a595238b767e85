//! StatefulSet.

use crate::apps::{
    Counts, Selected, collisions_grow, images, names, selector_text, validate_counts, workload_warnings,
};
use crate::check::{self, count_or_percent, is_set, list, not_negative, text};
use crate::core::persistent_volume_claim::validate_spec as validate_claim;
use crate::core::pod::warnings::of_claim;
use crate::core::pod_spec;
use crate::kind::{Scale, age_column};
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetSpec, StatefulSetStatus, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaimSpec, PersistentVolumeClaimVolumeSource, PodTemplateSpec, Volume,
};
use std::sync::LazyLock;

/// The rules of StatefulSet.
pub static KIND: Kind<StatefulSet> = Kind {
    has_status: true,
    has_generation: true,
    default: |s| {
        let spec = s.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        spec.pod_management_policy.get_or_insert_with(|| "OrderedReady".into());
        let strategy = spec.update_strategy.get_or_insert_default();
        strategy.type_.get_or_insert_with(|| "RollingUpdate".into());
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            strategy.rolling_update.get_or_insert_default().partition.get_or_insert(0);
        }
        let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
        retention.when_deleted.get_or_insert_with(|| "Retain".into());
        retention.when_scaled.get_or_insert_with(|| "Retain".into());
        pod_spec::default_template(&mut spec.template);
        for claim in spec.volume_claim_templates.iter_mut().flatten() {
            claim.spec.get_or_insert_default().volume_mode.get_or_insert_with(|| "Filesystem".into());
            let status = claim.status.get_or_insert_default();
            status.phase.get_or_insert_with(|| "Pending".into());
        }
    },
    prepare_create: |s, _| {
        s.status = Some(StatefulSetStatus::default());
        let template = s.spec.as_mut().and_then(|s| s.template.spec.as_mut());
        crate::core::pod::drop_disabled(template, None);
        drop_max_unavailable(s, None);
    },
    prepare_update: |new, old, _| {
        let template = new.spec.as_mut().and_then(|s| s.template.spec.as_mut());
        crate::core::pod::drop_disabled(template, spec(old).template.spec.as_ref());
        drop_max_unavailable(new, Some(old));
    },
    validate: |s, errors| validate(s, None, errors),
    validate_update: |new, old, errors| {
        validate(new, Some(old), errors);
        let (mut allowed, old) = (spec(new).clone(), spec(old));
        allowed.replicas = old.replicas;
        allowed.ordinals.clone_from(&old.ordinals);
        allowed.template = old.template.clone();
        allowed.update_strategy.clone_from(&old.update_strategy);
        allowed.revision_history_limit = old.revision_history_limit;
        allowed
            .persistent_volume_claim_retention_policy
            .clone_from(&old.persistent_volume_claim_retention_policy);
        allowed.min_ready_seconds = old.min_ready_seconds;
        if allowed != *old {
            errors.forbidden(FieldPath::root("spec"), "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden");
        }
    },
    validate_status: |new, old, errors| {
        let s = status(new);
        let counts = [
            ("readyReplicas", s.ready_replicas),
            ("currentReplicas", s.current_replicas),
            ("updatedReplicas", s.updated_replicas),
            ("availableReplicas", s.available_replicas),
        ];
        let least = ("availableReplicas", s.available_replicas, "status.readyReplicas", s.ready_replicas);
        let replicas = Some(s.replicas);
        validate_counts(
            Counts { replicas, counts: &counts, least, generation: s.observed_generation },
            errors,
        );
        collisions_grow(s.collision_count, status(old).collision_count, errors);
    },
    warnings: |new, old| {
        let mut out =
            workload_warnings(&new.metadata, Some(&spec(new).template), old.map(|o| Some(&spec(o).template)));
        let root = FieldPath::root("spec");
        let path = root.child("volumeClaimTemplates");
        for (i, claim) in list(&spec(new).volume_claim_templates).iter().enumerate() {
            let at = path.index(i);
            if let Some(spec) = &claim.spec {
                of_claim(spec, at.child("spec"), &mut out);
            }
        }
        if spec(new).revision_history_limit.is_some_and(|n| n < 0) {
            out.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".into());
        }
        out
    },
    scale: Some(Scale {
        replicas: |s| spec(s).replicas.unwrap_or(0),
        set_replicas: |s, n| s.spec.get_or_insert_default().replicas = Some(n),
        current: |s| status(s).replicas,
        selector: |s| selector_text(s.spec.as_ref().map(|s| &s.selector)),
    }),
    columns: &[
        Column::text("Ready", "Number of the pod with ready state", |s: &StatefulSet, _| {
            format!("{}/{}", status(s).ready_replicas.unwrap_or(0), spec(s).replicas.unwrap_or(0)).into()
        }),
        age_column(),
        Column::text("Containers", "Names of each container in the template.", |s: &StatefulSet, _| {
            names(Some(&spec(s).template))
        })
        .wide(),
        Column::text(
            "Images",
            "Images referenced by each container in the template.",
            |s: &StatefulSet, _| images(Some(&spec(s).template)),
        )
        .wide(),
    ],
    ..Kind::namespaced("statefulset", "statefulsets").called(&["sts"], &["all"])
};

/// How many may be unavailable is behind a gate that is off by default.
fn drop_max_unavailable(new: &mut StatefulSet, old: Option<&StatefulSet>) {
    let had =
        old.and_then(|o| spec(o).update_strategy.as_ref()?.rolling_update.as_ref()?.max_unavailable.as_ref());
    let rolling = new.spec.as_mut().and_then(|s| s.update_strategy.as_mut()?.rolling_update.as_mut());
    if let (None, Some(rolling)) = (had, rolling) {
        rolling.max_unavailable = None;
    }
}

static NO_SPEC: LazyLock<StatefulSetSpec> = LazyLock::new(Default::default);
static NO_STATUS: LazyLock<StatefulSetStatus> = LazyLock::new(Default::default);

fn spec(s: &StatefulSet) -> &StatefulSetSpec {
    s.spec.as_ref().unwrap_or(&NO_SPEC)
}

fn status(s: &StatefulSet) -> &StatefulSetStatus {
    s.status.as_ref().unwrap_or(&NO_STATUS)
}

/// The template as its pods get it: the set gives them names, and volumes of claims.
fn pod_template(s: &StatefulSetSpec) -> PodTemplateSpec {
    let mut template = s.template.clone();
    let Some(spec) = &mut template.spec else { return template };
    (spec.subdomain, spec.hostname) = (None, None);
    let claims = list(&s.volume_claim_templates);
    if !claims.is_empty() {
        let volumes = spec.volumes.get_or_insert_default();
        volumes.retain(|v| !claims.iter().any(|c| c.metadata.name.as_ref() == Some(&v.name)));
        volumes.extend(claims.iter().map(|c| Volume {
            name: text(&c.metadata.name).into(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: text(&c.metadata.name).into(),
                read_only: None,
            }),
            ..Volume::default()
        }));
    }
    template
}

fn validate(set: &StatefulSet, old: Option<&StatefulSet>, errors: &mut FieldErrors) {
    let s = spec(set);
    let root = FieldPath::root("spec");
    let at = root.child("podManagementPolicy");
    match text(&s.pod_management_policy) {
        "" => errors.required(at, ""),
        "OrderedReady" | "Parallel" => {}
        other => errors.invalid(at, &other, "must be 'OrderedReady' or 'Parallel'"),
    }
    let none = StatefulSetUpdateStrategy::default();
    let strategy = s.update_strategy.as_ref().unwrap_or(&none);
    let at = root.child("updateStrategy");
    let rolling_at = at.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("", _) => errors.required(at, ""),
        ("OnDelete", Some(rolling)) => {
            errors.invalid(rolling_at, rolling, "only allowed for updateStrategy 'RollingUpdate'");
        }
        ("RollingUpdate", Some(rolling)) => {
            not_negative(rolling.partition, rolling_at.child("partition"), errors);
            if let Some(most) = &rolling.max_unavailable {
                let at = rolling_at.child("maxUnavailable");
                count_or_percent(Some(most), at, errors);
                if check::bare_number(Some(most)) == 0 {
                    errors.invalid(at, most, "cannot be 0");
                }
                check::not_above_hundred_percent(Some(most), at, errors);
            }
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        _ => errors.invalid(at, strategy, "must be 'RollingUpdate' or 'OnDelete'"),
    }
    if let Some(retention) = &s.persistent_volume_claim_retention_policy {
        let at = root.child("persistentVolumeClaimRetentionPolicy");
        for (name, policy) in
            [("whenDeleted", &retention.when_deleted), ("whenScaled", &retention.when_scaled)]
        {
            check::one_of(text(policy), &["Retain", "Delete"], at.child(name), errors);
        }
    }
    if old.is_none() {
        let path = root.child("volumeClaimTemplates");
        for (i, claim) in list(&s.volume_claim_templates).iter().enumerate() {
            let at = path.index(i);
            let none = PersistentVolumeClaimSpec::default();
            validate_claim(claim.spec.as_ref().unwrap_or(&none), at.child("spec"), errors);
        }
        if is_set(&s.service_name) {
            check::label(text(&s.service_name), root.child("serviceName"), errors);
        }
    }
    not_negative(s.replicas, root.child("replicas"), errors);
    not_negative(s.min_ready_seconds, root.child("minReadySeconds"), errors);
    let start = s.ordinals.as_ref().and_then(|o| o.start);
    not_negative(start, root.child("ordinals.start"), errors);
    let template = pod_template(s);
    let selected = Selected {
        selector: &s.selector,
        template: &template,
        old: None,
        kind: "statefulset",
        title: "StatefulSet",
    };
    selected.validate_selector(errors);
    let old_template = old.map(|o| pod_template(spec(o)));
    let template_at = root.child("template");
    pod_spec::validate_new_template(&template, old_template.as_ref(), template_at, errors);
    selected.validate_life(errors);
}
