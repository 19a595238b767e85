//! What machine this is: addresses, names, versions, images.

use crate::config::Config;
use cri::types::Image;
use k8s_openapi::api::core::v1::{ContainerImage, NodeAddress, NodeSystemInfo};
use std::net::{IpAddr, UdpSocket};

/// What this kubelet calls itself.
pub const VERSION: &str = telemetry::version::VERSION;
/// Names of one image that the status gives.
const MAX_NAMES: usize = 5;

fn first_line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or("").trim().to_owned()
}

/// Names and versions.
pub fn system_info(runtime: &str) -> NodeSystemInfo {
    let kernel = sys::node::kernel();
    let os = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = os.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux").trim_matches('"');
    let boot = first_line("/proc/sys/kernel/random/boot_id");
    let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
    let machine = or(or(first_line("/etc/machine-id"), &first_line("/var/lib/dbus/machine-id")), &boot);
    NodeSystemInfo {
        architecture: kernel.architecture,
        boot_id: boot,
        container_runtime_version: runtime.to_owned(),
        kernel_version: kernel.release,
        kube_proxy_version: String::new(),
        kubelet_version: VERSION.into(),
        system_uuid: or(first_line("/sys/class/dmi/id/product_uuid"), &machine),
        machine_id: machine,
        operating_system: "linux".into(),
        os_image: pretty.to_owned(),
        swap: None,
    }
}

/// The addresses the operator gave, or the one from which the API server is reached.
pub fn addresses(config: &Config, server: &str) -> Vec<IpAddr> {
    let given: Vec<IpAddr> = config.node_ips.iter().copied().filter(|ip| !ip.is_unspecified()).collect();
    if !given.is_empty() {
        return given;
    }
    // nothing is sent: the kernel only picks the address it would send from
    let from = |to: &str| {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect(to).ok()?;
        socket.local_addr().ok().map(|a| a.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    };
    let authority = server.split("://").nth(1).and_then(|r| r.split('/').next()).unwrap_or("");
    let with_port = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:443") };
    from("192.0.2.1:9")
        .or_else(|| from(&with_port))
        .map_or_else(|| vec![IpAddr::from([127, 0, 0, 1])], |ip| vec![ip])
}

/// Addresses as the status gives them.
pub fn node_addresses(config: &Config, ips: &[IpAddr]) -> Vec<NodeAddress> {
    let of = |type_: &str, address: String| NodeAddress { type_: type_.into(), address };
    let mut out: Vec<_> = ips.iter().map(|ip| of("InternalIP", ip.to_string())).collect();
    out.push(of("Hostname", config.node_name.clone()));
    out
}

/// The largest images, as the status gives them.
pub fn images(mut list: Vec<Image>, most: usize) -> Vec<ContainerImage> {
    list.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    list.into_iter()
        .take(most)
        .map(|i| {
            let names: Vec<String> = i.repo_digests.into_iter().chain(i.repo_tags).take(MAX_NAMES).collect();
            ContainerImage {
                names: Some(names).filter(|n| !n.is_empty()),
                size_bytes: i64::try_from(i.size).ok(),
            }
        })
        .collect()
}
