//! Configuration files: the kubelet's and the scheduler's.
#![no_main]
use clap::Parser;
use kubelet::config::{Config, Flags, KubeletConfiguration};
use libfuzzer_sys::fuzz_target;
use std::path::Path;
use std::sync::LazyLock;

static FLAGS: LazyLock<Flags> = LazyLock::new(|| Flags::parse_from(["kubelet"]));
static OPTIONS: LazyLock<scheduler::config::Options> =
    LazyLock::new(|| scheduler::config::Options::parse_from(["kube-scheduler"]));

fuzz_target!(|text: &str| {
    if let Ok(file) = KubeletConfiguration::parse(text, "f") {
        let _ = Config::resolve(&FLAGS, file, Path::new("/"));
    }
    let _ = scheduler::config::Config::parse(text, Path::new("f"), &OPTIONS);
});
