//! The scheduler's program.

use scheduler::Options;
use std::process::ExitCode;
use telemetry::daemon;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NAME: &str = "kube-scheduler";

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    match daemon::options(NAME, include_str!("flags.txt"), option_env!("FERROKUBE_COMMIT"), |o: &Options| o.v)
    {
        Ok(options) => daemon::end(NAME, scheduler::run(options, daemon::shutdown()).await),
        Err(code) => code,
    }
}
