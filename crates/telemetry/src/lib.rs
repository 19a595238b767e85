//! How every daemon speaks to the person who runs it: flags, version, logs on standard error, how it ends.
//! Start at [`init`]; [`daemon`] is what their programs share.

pub mod daemon;
pub mod version;

use tracing_subscriber::EnvFilter;

/// How a line of the log is written (`--logging-format`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Starts logging for a daemon at upstream's verbosity `v` (the `-v` flag: 0 to 2 is information,
/// 4 and above debug, 8 and above trace). `RUST_LOG` overrides it. Calling it twice is harmless.
pub fn init(v: u8) {
    init_as(v, Format::Text);
}

/// The same in a format.
pub fn init_as(v: u8, format: Format) {
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
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(true);
    let _ = match format {
        Format::Text => log.try_init(),
        Format::Json => log.json().flatten_event(true).try_init(),
    };
}
