//! Runs the programs that speak to the kernel.

use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A program that waits for a lock that never comes free is ended.
const LIMIT: Duration = Duration::from_secs(60);

/// Why a program's work is not done.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started, written to or waited for.
    #[error("{0}: {1}")]
    Io(&'static str, std::io::Error),
    /// It took too long.
    #[error("{0}: no answer within a minute")]
    Timeout(&'static str),
    /// It said no.
    #[error("{0}: {1}: {2}")]
    Failed(&'static str, std::process::ExitStatus, String),
}

/// Runs a program to its end and returns what it printed.
pub async fn run(program: &'static str, args: &[&str], input: &str) -> Result<String, CommandError> {
    let io = |e| CommandError::Io(program, e);
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(io)?;
    let mut stdin = child.stdin.take();
    let write = async {
        if let Some(stdin) = &mut stdin {
            stdin.write_all(input.as_bytes()).await?;
        }
        drop(stdin);
        Ok::<_, std::io::Error>(())
    };
    // What it prints is read while it is written to: neither side waits for the other.
    let both = async { tokio::join!(write, child.wait_with_output()) };
    let (written, output) =
        tokio::time::timeout(LIMIT, both).await.map_err(|_| CommandError::Timeout(program))?;
    let output = output.map_err(io)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(CommandError::Failed(program, output.status, said.trim().replace('\n', "; ")));
    }
    written.map_err(io)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
