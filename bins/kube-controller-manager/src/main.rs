//! The controller manager's program.

use controllers::Options;
use std::process::ExitCode;
use telemetry::daemon;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NAME: &str = "kube-controller-manager";

#[tokio::main]
async fn main() -> ExitCode {
    match daemon::options(NAME, include_str!("flags.txt"), option_env!("FERROKUBE_COMMIT"), |o: &Options| o.v)
    {
        Ok(options) => daemon::end(NAME, controllers::run(options, daemon::shutdown()).await),
        Err(code) => code,
    }
}
