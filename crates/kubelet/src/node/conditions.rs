//! The conditions of the node that the kubelet owns.

use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Sets the kubelet's conditions among the node's, keeping others'. `wrong` is what keeps it from being ready.
pub fn update(conditions: &mut Vec<NodeCondition>, wrong: &[String], now: jiff::Timestamp) {
    let message = match wrong {
        [] => "kubelet is posting ready status".to_owned(),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    let ready = wrong.is_empty();
    let list = [
        (
            "MemoryPressure",
            false,
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available".to_owned(),
        ),
        ("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure".to_owned()),
        ("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available".to_owned()),
        ("Ready", ready, if ready { "KubeletReady" } else { "KubeletNotReady" }, message),
    ];
    // the API keeps whole seconds
    let now = jiff::Timestamp::from_second(now.as_second()).ok().map(Time);
    for (type_, holds, reason, message) in list {
        let status = if holds { "True" } else { "False" };
        let old = conditions.iter().find(|c| c.type_ == type_);
        let since = match old {
            Some(o) if o.status == status => o.last_transition_time.clone(),
            _ => now.clone(),
        };
        let new = NodeCondition {
            type_: type_.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_heartbeat_time: now.clone(),
            last_transition_time: since,
        };
        match conditions.iter_mut().find(|c| c.type_ == type_) {
            Some(c) => *c = new,
            None => conditions.push(new),
        }
    }
}

/// Whether two lists differ in more than their heartbeats.
pub fn differ(a: &[NodeCondition], b: &[NodeCondition]) -> bool {
    let still = |c: &NodeCondition| NodeCondition { last_heartbeat_time: None, ..c.clone() };
    a.len() != b.len() || a.iter().zip(b).any(|(a, b)| still(a) != still(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transitions_keep_their_time() {
        let mut c = Vec::new();
        let at = |s| jiff::Timestamp::from_second(s).unwrap_or_default();
        update(&mut c, &["down".into()], at(1));
        let first = c.clone();
        update(&mut c, &["down".into()], at(2));
        assert!(!differ(&first, &c));
        update(&mut c, &[], at(3));
        assert!(differ(&first, &c));
        let ready = c.iter().find(|c| c.type_ == "Ready").cloned().unwrap_or_default();
        assert_eq!((ready.status.as_str(), ready.last_transition_time), ("True", Some(Time(at(3)))));
        assert_eq!(c[0].last_transition_time, Some(Time(at(1))));
    }
}
