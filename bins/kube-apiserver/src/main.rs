//! The API server's program.

use apiserver::Options;
use std::process::ExitCode;
use telemetry::daemon;

// Requests allocate much and briefly, on every thread: glibc's allocator keeps what it once had.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NAME: &str = "kube-apiserver";

#[tokio::main]
async fn main() -> ExitCode {
    match daemon::options(NAME, include_str!("flags.txt"), option_env!("FERROKUBE_COMMIT"), |o: &Options| o.v)
    {
        Ok(options) => daemon::end(NAME, apiserver::run(options, daemon::shutdown()).await),
        Err(code) => code,
    }
}
