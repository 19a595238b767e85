//! Facts about the machine.

use std::io;

/// Kernel names, as uname(1) prints them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// For example `6.1.0`.
    pub release: String,
    /// The machine's name.
    pub hostname: String,
    /// The architecture under the name Go has for it, such as `amd64`.
    pub architecture: String,
}

/// Asks the kernel for its names.
pub fn kernel() -> Kernel {
    let u = rustix::system::uname();
    let architecture = match u.machine().to_string_lossy().as_ref() {
        "x86_64" => "amd64".into(),
        "aarch64" => "arm64".into(),
        other => other.to_owned(),
    };
    Kernel {
        release: u.release().to_string_lossy().into_owned(),
        hostname: u.nodename().to_string_lossy().into_owned(),
        architecture,
    }
}

/// Bytes of memory the machine has.
pub fn memory_bytes() -> u64 {
    let i = rustix::system::sysinfo();
    (i.totalram as u64).saturating_mul(u64::from(i.mem_unit))
}

/// Processors that are online, whatever this process may use.
pub fn processors() -> usize {
    std::fs::read_to_string("/proc/cpuinfo")
        .map(|text| text.lines().filter(|l| l.starts_with("processor")).count())
        .ok()
        .filter(|n| *n > 0)
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()))
}

/// Sets how eagerly the kernel ends this process when memory runs out.
pub fn set_oom_score_adj(score: i32) -> io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", score.to_string())
}

/// What this process makes is for its owner and, to read, its group.
pub fn close_umask() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
}

/// Ends a process at once; one that is gone already is no error.
pub fn kill(pid: i32) -> io::Result<()> {
    let pid = Some(pid).filter(|p| *p > 1).and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Ends all processes of a group at once.
pub fn kill_group(leader: u32) -> io::Result<()> {
    let pid = i32::try_from(leader).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::kill_process_group(pid, rustix::process::Signal::KILL)?)
}
