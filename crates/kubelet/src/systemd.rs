//! Slices of systemd: what is written into their cgroups by hand it takes back at its next reload, so their bounds are
//! its own properties, set over its D-Bus with busctl(1), which comes with it.

use crate::blocking;
use crate::runtime::resources::PodLimits;
use std::io;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);
const BUS: [&str; 3] =
    ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"];

/// A property in busctl's words: its name, its signature, its value.
type Property = (&'static str, &'static str, String);

/// Bounds as properties, for cgroups of either version.
fn properties(l: &PodLimits, v2: bool) -> Vec<Property> {
    const NONE: u64 = u64::MAX;
    let bytes = |n: Option<i64>| n.map_or(NONE, i64::unsigned_abs).to_string();
    let mut out = match v2 {
        true => vec![
            ("CPUWeight", "t", crate::cgroups::weight(l.shares).to_string()),
            ("MemoryMax", "t", bytes(l.memory)),
        ],
        false => vec![("CPUShares", "t", l.shares.to_string()), ("MemoryLimit", "t", bytes(l.memory))],
    };
    // microseconds in a second of processor time
    let (quota, period) = match l.quota {
        Some((quota, period)) if period > 0 => {
            (u64::try_from(i128::from(quota) * 1_000_000 / i128::from(period)).unwrap_or(NONE), period)
        }
        _ => (NONE, 100_000),
    };
    out.push(("CPUQuotaPerSecUSec", "t", quota.to_string()));
    out.push(("CPUQuotaPeriodUSec", "t", period.to_string()));
    if let Some(n) = l.pids {
        out.push(("TasksMax", "t", n.to_string()));
    }
    out
}

/// The words that follow a signature with an array of properties in it.
fn words(list: &[Property]) -> Vec<String> {
    let each =
        list.iter().flat_map(|(name, kind, value)| [(*name).to_owned(), (*kind).to_owned(), value.clone()]);
    std::iter::once(list.len().to_string()).chain(each).collect()
}

async fn call(method: &[&str], more: &[String]) -> io::Result<()> {
    let mut args = vec!["call", "--quiet"];
    args.extend(BUS);
    args.extend(method);
    args.push("--");
    args.extend(more.iter().map(String::as_str));
    let out = blocking::command("busctl", &args, LIMIT).await?;
    if out.status.success() { Ok(()) } else { Err(io::Error::other(blocking::said(&out))) }
}

/// Makes a slice, if it is not there, with these bounds.
pub(crate) async fn apply(slice: &str, limits: &PodLimits, v2: bool) -> io::Result<()> {
    let wanted = properties(limits, v2);
    let mut of_new: Vec<Property> = vec![
        ("Description", "s", format!("Kubernetes pods {slice}")),
        ("DefaultDependencies", "b", "false".into()),
        ("CPUAccounting", "b", "true".into()),
        ("MemoryAccounting", "b", "true".into()),
        ("TasksAccounting", "b", "true".into()),
        ("IOAccounting", "b", "true".into()),
    ];
    of_new.extend(wanted.clone());
    let mut start = vec![slice.to_owned(), "replace".to_owned()];
    start.extend(words(&of_new));
    start.push("0".into());
    match call(&["StartTransientUnit", "ssa(sv)a(sa(sv))"], &start).await {
        Ok(()) => Ok(()),
        // it is there: only its bounds are set, for as long as it is loaded
        Err(_) => {
            let mut set = vec![slice.to_owned(), "true".to_owned()];
            set.extend(words(&wanted));
            call(&["SetUnitProperties", "sba(sv)"], &set).await
        }
    }
}

/// Ends a slice; one that is not there is no error.
pub(crate) async fn stop(slice: &str) {
    let gone = call(&["StopUnit", "ss"], &[slice.to_owned(), "replace".to_owned()]).await;
    if let Err(e) = gone {
        tracing::debug!(slice, error = %e, "no slice to stop");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_as_properties() {
        let l = PodLimits { shares: 1024, quota: Some((50_000, 100_000)), memory: Some(4096), pids: Some(7) };
        assert_eq!(
            words(&properties(&l, true)).join(" "),
            "5 CPUWeight t 100 MemoryMax t 4096 CPUQuotaPerSecUSec t 500000 CPUQuotaPeriodUSec t 100000 TasksMax t 7"
        );
        let none = PodLimits { shares: 2, ..Default::default() };
        assert_eq!(
            words(&properties(&none, false)).join(" "),
            "4 CPUShares t 2 MemoryLimit t 18446744073709551615 CPUQuotaPerSecUSec t 18446744073709551615 CPUQuotaPeriodUSec t 100000"
        );
    }
}
