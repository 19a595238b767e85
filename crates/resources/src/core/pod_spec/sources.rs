//! Volume sources that pods and PersistentVolumes share.

use crate::check::{self, is_set, list, required, text};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::core::v1::{
    AWSElasticBlockStoreVolumeSource, AzureDiskVolumeSource, FCVolumeSource, FlockerVolumeSource,
    GCEPersistentDiskVolumeSource, HostPathVolumeSource, NFSVolumeSource, QuobyteVolumeSource,
};
use std::collections::BTreeMap;

/// Said of an iSCSI name of a pod's volume that starts otherwise.
pub const IQN_PREFIX: &str = "must be valid format starting with iqn, eui, or naa";
/// Said of an iSCSI name that is not well formed.
pub const IQN_FORMAT: &str = "must be valid format";
/// Said of a volume and portal that are too long together.
pub const ISCSI_TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

/// A directory or file of the node.
pub fn host_path(s: &HostPathVolumeSource, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if required(&s.path, at.child("path"), errors) {
        return;
    }
    check::no_backsteps(&s.path, at.child("path"), errors);
    let kinds =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    check::maybe_one_of(&s.type_, &kinds, at.child("type"), errors);
}

/// A disk of GCE.
pub fn gce_persistent_disk(s: &GCEPersistentDiskVolumeSource, at: FieldPath<'_>, errors: &mut FieldErrors) {
    required(&s.pd_name, at.child("pdName"), errors);
    partition(s.partition, at.child("partition"), errors);
}

/// A disk of AWS.
pub fn aws_elastic_block_store(
    s: &AWSElasticBlockStoreVolumeSource,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    required(&s.volume_id, at.child("volumeID"), errors);
    partition(s.partition, at.child("partition"), errors);
}

fn partition(partition: Option<i32>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if let Some(n) = partition.filter(|n| !(0..=255).contains(n)) {
        errors.invalid(at, &n, "must be between 1 and 255, inclusive");
    }
}

/// An NFS export.
pub fn nfs(s: &NFSVolumeSource, at: FieldPath<'_>, errors: &mut FieldErrors) {
    required(&s.server, at.child("server"), errors);
    required(&s.path, at.child("path"), errors);
    if !s.path.starts_with('/') {
        errors.invalid(at.child("path"), &s.path, "must be an absolute path");
    }
}

/// The name of an iSCSI target, which must be there.
pub fn iscsi_name(name: &str, prefix: &'static str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if !required(name, at, errors) {
        iscsi_initiator(name, prefix, at, errors);
    }
}

/// The name of an iSCSI initiator.
pub fn iscsi_initiator(name: &str, prefix: &'static str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let fits = match name.get(..3) {
        Some("iqn") => is_iqn(name),
        Some("eui") => name.len() == 20 && name.bytes().skip(4).all(|b| b.is_ascii_alphanumeric()),
        Some("naa") => name.len() == 36 && name.bytes().skip(4).all(|b| b.is_ascii_alphanumeric()),
        _ => {
            errors.invalid(at, &name, prefix);
            return;
        }
    };
    if !fits {
        errors.invalid(at, &name, IQN_FORMAT);
    }
}

/// `iqn.2001-04.com.example:name`
fn is_iqn(name: &str) -> bool {
    let digits = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_digit());
    let Some((date, rest)) = name.strip_prefix("iqn.").and_then(|n| n.split_once('.')) else { return false };
    let dated = date.split_once('-').is_some_and(|(year, month)| digits(year, 4) && digits(month, 2));
    let Some((authority, own)) = rest.split_once(':') else { return false };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let free = |c: char| !matches!(c, ',' | ';' | '*' | '&' | '$' | '|') && !c.is_whitespace();
    dated
        && !authority.is_empty()
        && authority.chars().all(allowed)
        && !own.is_empty()
        && own.chars().all(free)
}

/// A GlusterFS volume.
pub fn glusterfs(endpoints: &str, path: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    required(endpoints, at.child("endpoints"), errors);
    required(path, at.child("path"), errors);
}

/// A Flocker data set.
pub fn flocker(s: &FlockerVolumeSource, at: FieldPath<'_>, errors: &mut FieldErrors) {
    match (is_set(&s.dataset_name), is_set(&s.dataset_uuid)) {
        (false, false) => errors.required(at, "one of datasetName and datasetUUID is required"),
        (true, true) => {
            errors.invalid(at, &"resource", "datasetName and datasetUUID can not be specified simultaneously")
        }
        _ => {}
    }
    if text(&s.dataset_name).contains('/') {
        errors.invalid(at.child("datasetName"), &s.dataset_name, "must not contain '/'");
    }
}

/// A Ceph block device.
pub fn rbd(monitors: &[String], image: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if monitors.is_empty() {
        errors.required(at.child("monitors"), "");
    }
    required(image, at.child("image"), errors);
}

/// A Quobyte volume.
pub fn quobyte(s: &QuobyteVolumeSource, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let pairs = "must be a host:port pair or multiple pairs separated by commas";
    if s.registry.is_empty() {
        errors.required(at.child("registry"), pairs);
    } else if text(&s.tenant).len() >= 65 {
        let why = "must be a UUID and may not exceed a length of 64 characters";
        errors.required(at.child("tenant"), why);
    } else {
        let is_pair = |pair: &str| match pair.rsplit_once(':') {
            Some((host, _)) => !host.contains(':') || host.starts_with('[') && host.ends_with(']'),
            None => false,
        };
        for _ in s.registry.split(',').filter(|pair| !is_pair(pair)) {
            errors.invalid(at.child("registry"), &s.registry, pairs);
        }
    }
    required(&s.volume, at.child("volume"), errors);
}

/// A Fibre Channel disk.
pub fn fc(s: &FCVolumeSource, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let (targets, wwids) = (list(&s.target_wwns), list(&s.wwids));
    if targets.is_empty() && wwids.is_empty() {
        let why = "must specify either targetWWNs or wwids, but not both";
        errors.required(at.child("targetWWNs"), why);
    }
    if !targets.is_empty() && !wwids.is_empty() {
        let why = "targetWWNs and wwids can not be specified simultaneously";
        errors.invalid(at.child("targetWWNs"), &targets, why);
    }
    match s.lun {
        _ if targets.is_empty() => {}
        None => errors.required(at.child("lun"), "lun is required if targetWWNs is specified"),
        Some(lun) => check::in_range(lun, 0, 255, at.child("lun"), errors),
    }
}

/// A volume of a plugin of the node.
pub fn flex(
    driver: &str,
    options: Option<&BTreeMap<String, String>>,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    required(driver, at.child("driver"), errors);
    for key in options.into_iter().flatten().map(|(key, _)| key) {
        let domain = key.split_once('/').map_or(key.as_str(), |(domain, _)| domain).to_lowercase();
        let reserved = |of: &str| domain == of || domain.strip_suffix(of).is_some_and(|d| d.ends_with('.'));
        if reserved("kubernetes.io") || reserved("k8s.io") {
            let options = at.child("options");
            errors.invalid(options.key(key), key, "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

/// A disk of Azure.
pub fn azure_disk(s: &AzureDiskVolumeSource, at: FieldPath<'_>, errors: &mut FieldErrors) {
    required(&s.disk_name, at.child("diskName"), errors);
    required(&s.disk_uri, at.child("diskURI"), errors);
    let modes = ["None", "ReadOnly", "ReadWrite"];
    check::maybe_one_of(&s.caching_mode, &modes, at.child("cachingMode"), errors);
    check::maybe_one_of(&s.kind, &["Dedicated", "Managed", "Shared"], at.child("kind"), errors);
    match s.kind.as_deref() {
        None => {}
        Some("Managed") if s.disk_uri.starts_with("/subscriptions/") => {}
        Some("Managed") => errors.not_supported(
            at.child("diskURI"),
            &s.disk_uri,
            &["/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"],
        ),
        Some(_) if s.disk_uri.starts_with("https://") => {}
        Some(_) => errors.not_supported(
            at.child("diskURI"),
            &s.disk_uri,
            &["https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"],
        ),
    }
}

/// A StorageOS volume.
pub fn storageos(name: &str, namespace: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    check::required_label(name, at.child("volumeName"), errors);
    if !namespace.is_empty() {
        check::label(namespace, at.child("volumeNamespace"), errors);
    }
}

/// A ScaleIO volume.
pub fn scale_io(gateway: &str, system: &str, volume: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    required(gateway, at.child("gateway"), errors);
    required(system, at.child("system"), errors);
    required(volume, at.child("volumeName"), errors);
}

/// The name of a CSI driver.
pub fn csi_driver_name(name: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if required(name, at, errors) {
        return;
    }
    if name.len() > 63 {
        errors.too_long(at, 63);
    }
    errors.all_invalid(at, name, api::names::dns1123_subdomain(&name.to_lowercase()));
}
