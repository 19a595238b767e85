//! Volumes of a pod: each has one source.

use super::{Scope, projected, sources};
use crate::check::{self, OneOf, is_set, list, local_path, required, text};
use crate::core::persistent_volume_claim;
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::api::core::v1::{KeyToPath, Volume};

const ONE: &str = "may not specify more than 1 volume type";

/// Checks volumes and answers which of them are well formed, for mounts to name.
pub(super) fn validate<'a>(
    scope: &Scope<'a>,
    volumes: &'a [Volume],
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) -> Volumes<'a> {
    let mut found = Volumes { all: volumes, faulty: Vec::new() };
    for (i, volume) in volumes.iter().enumerate() {
        let at = at.index(i);
        let before = errors.len();
        source(scope, volume, at, errors);
        check::required_label(&volume.name, at.child("name"), errors);
        if volumes[..i].iter().any(|v| v.name == volume.name) {
            errors.duplicate(at.child("name"), &volume.name);
        }
        if errors.len() > before {
            found.faulty.push(i);
        }
        if let (Some(claim), Some(pod)) = (&volume.persistent_volume_claim, scope.pod_name)
            && volumes.iter().any(|v| v.ephemeral.is_some() && is_claim_of(&claim.claim_name, pod, &v.name))
        {
            errors.invalid(
                at.child("persistentVolumeClaim").child("claimName"),
                &claim.claim_name,
                "must not reference a PVC that gets created for an ephemeral volume",
            );
        }
    }
    found
}

fn is_claim_of(claim: &str, pod: &str, volume: &str) -> bool {
    claim.strip_prefix(pod).and_then(|c| c.strip_prefix('-')) == Some(volume)
}

/// The volumes of a spec that may be mounted.
pub(super) struct Volumes<'a> {
    all: &'a [Volume],
    faulty: Vec<usize>,
}

impl<'a> Volumes<'a> {
    /// The well-formed volume of a name.
    pub(super) fn get(&self, name: &str) -> Option<&'a Volume> {
        let i = self.all.iter().enumerate().position(|(i, v)| v.name == name && !self.faulty.contains(&i))?;
        self.all.get(i)
    }
}

fn source(scope: &Scope<'_>, v: &Volume, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let mut one = OneOf::new(at, ONE);
    if let Some(s) = &v.empty_dir
        && one.first("emptyDir", errors)
        && s.size_limit.as_ref().is_some_and(|q| check::amount(q).sign() < 0)
    {
        let dir = at.child("emptyDir");
        errors.forbidden(dir.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
    if let Some(s) = &v.host_path
        && one.first("hostPath", errors)
    {
        sources::host_path(s, at.child("hostPath"), errors);
    }
    if let Some(s) = &v.git_repo
        && one.first("gitRepo", errors)
    {
        let at = at.child("gitRepo");
        required(&s.repository, at.child("repository"), errors);
        check::descending_path(text(&s.directory), at.child("directory"), errors);
    }
    if let Some(s) = &v.gce_persistent_disk
        && one.first("gcePersistentDisk", errors)
    {
        sources::gce_persistent_disk(s, at.child("persistentDisk"), errors);
    }
    if let Some(s) = &v.aws_elastic_block_store
        && one.first("awsElasticBlockStore", errors)
    {
        sources::aws_elastic_block_store(s, at.child("awsElasticBlockStore"), errors);
    }
    if let Some(s) = &v.secret
        && one.first("secret", errors)
    {
        let at = at.child("secret");
        required(text(&s.secret_name), at.child("secretName"), errors);
        check::file_mode(s.default_mode, at.child("defaultMode"), errors);
        items(list(&s.items), at.child("items"), errors);
    }
    if let Some(s) = &v.nfs
        && one.first("nfs", errors)
    {
        sources::nfs(s, at.child("nfs"), errors);
    }
    if let Some(s) = &v.iscsi {
        if one.first("iscsi", errors) {
            let at = at.child("iscsi");
            required(&s.target_portal, at.child("targetPortal"), errors);
            sources::iscsi_name(&s.iqn, sources::IQN_PREFIX, at.child("iqn"), errors);
            check::in_range(s.lun, 0, 255, at.child("lun"), errors);
            let chap = s.chap_auth_discovery == Some(true) || s.chap_auth_session == Some(true);
            if chap && s.secret_ref.is_none() {
                errors.required(at.child("secretRef"), "");
            }
            if let Some(name) = &s.initiator_name {
                let at = at.child("initiatorname");
                sources::iscsi_initiator(name, sources::IQN_PREFIX, at, errors);
            }
        }
        if s.initiator_name.is_some() && v.name.len() + 1 + s.target_portal.len() > 64 {
            errors.invalid(at.child("name"), &v.name, sources::ISCSI_TOO_LONG);
        }
    }
    if let Some(s) = &v.glusterfs
        && one.first("glusterfs", errors)
    {
        sources::glusterfs(&s.endpoints, &s.path, at.child("glusterfs"), errors);
    }
    if let Some(s) = &v.flocker
        && one.first("flocker", errors)
    {
        sources::flocker(s, at.child("flocker"), errors);
    }
    if let Some(s) = &v.persistent_volume_claim
        && one.first("persistentVolumeClaim", errors)
    {
        required(&s.claim_name, at.child("persistentVolumeClaim").child("claimName"), errors);
    }
    if let Some(s) = &v.rbd
        && one.first("rbd", errors)
    {
        sources::rbd(&s.monitors, &s.image, at.child("rbd"), errors);
    }
    if let Some(s) = &v.cinder
        && one.first("cinder", errors)
    {
        let at = at.child("cinder");
        required(&s.volume_id, at.child("volumeID"), errors);
        if let Some(secret) = &s.secret_ref {
            required(&secret.name, at.child("secretRef").child("name"), errors);
        }
    }
    if let Some(s) = &v.cephfs
        && one.first("cephFS", errors)
        && s.monitors.is_empty()
    {
        errors.required(at.child("cephfs").child("monitors"), "");
    }
    if let Some(s) = &v.quobyte
        && one.first("quobyte", errors)
    {
        sources::quobyte(s, at.child("quobyte"), errors);
    }
    if let Some(s) = &v.downward_api
        && one.first("downwarAPI", errors)
    {
        let at = at.child("downwardAPI");
        check::file_mode(s.default_mode, at.child("defaultMode"), errors);
        for file in list(&s.items) {
            projected::downward_file(file, at, errors);
        }
    }
    if let Some(s) = &v.fc
        && one.first("fc", errors)
    {
        sources::fc(s, at.child("fc"), errors);
    }
    if let Some(s) = &v.flex_volume
        && one.first("flexVolume", errors)
    {
        sources::flex(&s.driver, s.options.as_ref(), at.child("flexVolume"), errors);
    }
    if let Some(s) = &v.config_map
        && one.first("configMap", errors)
    {
        let at = at.child("configMap");
        required(&s.name, at.child("name"), errors);
        check::file_mode(s.default_mode, at.child("defaultMode"), errors);
        items(list(&s.items), at.child("items"), errors);
    }
    if let Some(s) = &v.azure_file
        && one.first("azureFile", errors)
    {
        let at = at.child("azureFile");
        required(&s.secret_name, at.child("secretName"), errors);
        required(&s.share_name, at.child("shareName"), errors);
    }
    if let Some(s) = &v.vsphere_volume
        && one.first("vsphereVolume", errors)
    {
        required(&s.volume_path, at.child("vsphereVolume").child("volumePath"), errors);
    }
    if let Some(s) = &v.photon_persistent_disk
        && one.first("photonPersistentDisk", errors)
    {
        required(&s.pd_id, at.child("photonPersistentDisk").child("pdID"), errors);
    }
    if let Some(s) = &v.portworx_volume
        && one.first("portworxVolume", errors)
    {
        required(&s.volume_id, at.child("portworxVolume").child("volumeID"), errors);
    }
    if let Some(s) = &v.azure_disk
        && one.first("azureDisk", errors)
    {
        sources::azure_disk(s, at.child("azureDisk"), errors);
    }
    if let Some(s) = &v.storageos
        && one.first("storageos", errors)
    {
        let at = at.child("storageos");
        sources::storageos(text(&s.volume_name), text(&s.volume_namespace), at, errors);
        if let Some(secret) = &s.secret_ref {
            required(&secret.name, at.child("secretRef").child("name"), errors);
        }
    }
    if let Some(s) = &v.projected
        && one.first("projected", errors)
    {
        projected::validate(scope, s, at.child("projected"), errors);
    }
    if let Some(s) = &v.scale_io
        && one.first("scaleIO", errors)
    {
        sources::scale_io(&s.gateway, &s.system, text(&s.volume_name), at.child("scaleIO"), errors);
    }
    if let Some(s) = &v.csi
        && one.first("csi", errors)
    {
        let at = at.child("csi");
        sources::csi_driver_name(&s.driver, at.child("driver"), errors);
        if let Some(secret) = &s.node_publish_secret_ref
            && !required(&secret.name, at.child("nodePublishSecretRef").child("name"), errors)
        {
            check::subdomain(&secret.name, at.child("name"), errors);
        }
    }
    if let Some(s) = &v.ephemeral
        && one.first("ephemeral", errors)
    {
        let here = at.child("ephemeral");
        let template_at = here.child("volumeClaimTemplate");
        match &s.volume_claim_template {
            Some(template) => persistent_volume_claim::validate_template(template, template_at, errors),
            None => errors.required(template_at, ""),
        }
        if let Some(pod) = scope.pod_name.filter(|p| !p.is_empty() && !v.name.is_empty()) {
            let claim = format!("{pod}-{}", v.name);
            for fault in names::dns1123_subdomain(&claim) {
                errors.invalid(at.child("name"), &v.name, format!("PVC name {claim:?}: {fault}"));
            }
        }
    }
    if let Some(s) = &v.image
        && one.first("image", errors)
    {
        let at = at.child("image");
        if scope.lenient.pod && !is_set(&s.reference) {
            errors.required(at.child("reference"), "");
        }
        super::containers::pull_policy(&s.pull_policy, at.child("pullPolicy"), errors);
    }
    one.required("must specify a volume type", errors);
}

/// Keys of a map, each with the file it goes to.
fn items(items: &[KeyToPath], at: FieldPath<'_>, errors: &mut FieldErrors) {
    for (i, item) in items.iter().enumerate() {
        key_to_path(item, at.index(i), errors);
    }
}

/// A key of a map and the file it goes to.
pub(super) fn key_to_path(item: &KeyToPath, at: FieldPath<'_>, errors: &mut FieldErrors) {
    required(&item.key, at.child("key"), errors);
    required(&item.path, at.child("path"), errors);
    local_path(&item.path, at.child("path"), errors);
    check::file_mode(item.mode, at.child("mode"), errors);
}
