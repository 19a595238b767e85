//! The service proxy's program.

use proxy::Options;
use std::process::ExitCode;
use telemetry::daemon;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NAME: &str = "kube-proxy";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match daemon::options(NAME, include_str!("flags.txt"), option_env!("FERROKUBE_COMMIT"), |o: &Options| o.v)
    {
        Ok(options) => daemon::end(NAME, proxy::run(options, daemon::shutdown()).await),
        Err(code) => code,
    }
}
