//! How every daemon speaks to the person who runs it: flags, logs on standard error, how it ends.
//! Start at [`init`]; [`daemon`] is what their programs share.

pub mod daemon;

use tracing_subscriber::EnvFilter;

/// Starts logging for a daemon at upstream's verbosity `v` (the `-v` flag: 0 to 2 is information,
/// 4 and above debug, 8 and above trace). `RUST_LOG` overrides it. Calling it twice is harmless.
pub fn init(v: u8) {
    let level = match v {
        0..=3 => "info",
        4..=7 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new(format!(
            "{level},h2=warn,hyper=warn,hyper_util=warn,rustls=warn,tower=warn,tonic=warn"
        ))
    });
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(true)
        .try_init();
}
