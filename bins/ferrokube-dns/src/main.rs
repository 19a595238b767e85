//! The cluster DNS server's program.

use dns::Options;
use std::process::ExitCode;
use telemetry::daemon;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NAME: &str = "ferrokube-dns";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match daemon::options(NAME, include_str!("flags.txt"), option_env!("FERROKUBE_COMMIT"), |o: &Options| o.v)
    {
        Ok(options) => daemon::end(NAME, dns::run(options, daemon::shutdown()).await),
        Err(code) => code,
    }
}
