//! The kubelet's program.

use kubelet::{Config, Flags};
use std::process::ExitCode;
use telemetry::daemon;

const NAME: &str = "kubelet";

fn main() -> ExitCode {
    // Pods are many and each does little: two threads serve them all, and each further one costs memory.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(run());
            // what is stuck in the kernel is not waited for
            runtime.shutdown_background();
            code
        }
        Err(e) => daemon::end(NAME, Err(e)),
    }
}

async fn run() -> ExitCode {
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
