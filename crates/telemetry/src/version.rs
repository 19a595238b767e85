//! Which Kubernetes this is, and of which source: one answer for `--version`, `/version`, nodes, metrics and clients' names.

use std::sync::OnceLock;

/// As upstream writes its own; what follows `+` tells the two apart.
pub const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"), "+ferrokube");
/// The first part of [`VERSION`].
pub const MAJOR: &str = env!("CARGO_PKG_VERSION_MAJOR");
/// The second.
pub const MINOR: &str = env!("CARGO_PKG_VERSION_MINOR");

static COMMIT: OnceLock<&'static str> = OnceLock::new();

/// What is known of the program that runs.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    /// [`VERSION`].
    pub version: &'static str,
    /// The commit that was built; empty where nobody said.
    pub commit: &'static str,
    /// As Go names it: `linux`, and `amd64` or `arm64`.
    pub platform: (&'static str, &'static str),
}

/// Says of which commit the program was built. The first word counts.
pub fn set_commit(commit: Option<&'static str>) {
    let _ = COMMIT.set(commit.unwrap_or_default());
}

/// The version of the program that runs.
pub fn get() -> Version {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Version {
        version: VERSION,
        commit: COMMIT.get().copied().unwrap_or_default(),
        platform: (std::env::consts::OS, architecture),
    }
}
