//! The kubelet's program.

use kubelet::{Config, Flags};
use std::process::ExitCode;
use telemetry::daemon;

const NAME: &str = "kubelet";

// Pods are many and each does little: two threads serve them all, and each further one costs memory.
#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let flags = match daemon::options(
        NAME,
        include_str!("flags.txt"),
        option_env!("FERROKUBE_COMMIT"),
        |f: &Flags| f.v,
    ) {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    match Config::load(&flags) {
        Ok(config) => {
            let _ = rustls::crypto::ring::default_provider().install_default();
            daemon::end(NAME, kubelet::run(config, daemon::shutdown()).await)
        }
        Err(e) => daemon::end(NAME, Err(e)),
    }
}
