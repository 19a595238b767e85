//! What containers may be at all, by the flags of this server: `--allow-privileged`.

use crate::options::Options;
use api::field::{FieldErrors, FieldPath};
use api::object::Object;
use k8s_openapi::api::core::v1::{PodSpec, SecurityContext};

/// Refuses privileged containers in pods and templates of pods, unless they are allowed or were there before.
pub fn check(options: &Options, object: &Object, old: Option<&Object>, errors: &mut FieldErrors) {
    if options.allow_privileged {
        return;
    }
    let Some(spec) = admission::pod_security::pod_spec(object) else { return };
    let before = old.and_then(admission::pod_security::pod_spec).map(privileged).unwrap_or_default();
    for (list, i, _) in privileged(spec).into_iter().filter(|p| !before.contains(p)) {
        let root = FieldPath::root(admission::pod_security::path_of_spec(object));
        let list = root.child(list);
        let container = list.index(i);
        errors.forbidden(
            container.child("securityContext").child("privileged"),
            "disallowed by cluster policy",
        );
    }
}

/// Which containers are privileged: their list, their place in it and their name.
fn privileged(spec: &PodSpec) -> Vec<(&'static str, usize, &str)> {
    let is = |c: &Option<SecurityContext>| c.as_ref().and_then(|c| c.privileged) == Some(true);
    let init = spec.init_containers.iter().flatten().enumerate();
    let main = spec.containers.iter().enumerate();
    let late = spec.ephemeral_containers.iter().flatten().enumerate();
    let mut all = Vec::new();
    all.extend(
        init.filter(|(_, c)| is(&c.security_context)).map(|(i, c)| ("initContainers", i, c.name.as_str())),
    );
    all.extend(
        main.filter(|(_, c)| is(&c.security_context)).map(|(i, c)| ("containers", i, c.name.as_str())),
    );
    let late = late.filter(|(_, c)| is(&c.security_context));
    all.extend(late.map(|(i, c)| ("ephemeralContainers", i, c.name.as_str())));
    all
}
