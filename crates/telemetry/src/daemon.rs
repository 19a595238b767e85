//! What the programs of all daemons have in common: flags, signals, how they end.

use clap::Parser;
use std::fmt::Display;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Reads the flags and starts the log at their verbosity. `upstream` lists the flags of upstream's daemon of this
/// name, one a line, with `?` after those that need no value: what we have no use for is taken and said to be
/// without effect, so that upstream's units and manifests start ours. Where there is nothing to go on with, the
/// code to exit with: one line said why.
pub fn options<O: Parser>(name: &str, upstream: &str, verbosity: fn(&O) -> u8) -> Result<O, ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|a| a == "--version" || a == "--version=true") {
        println!("Kubernetes v{}", env!("CARGO_PKG_VERSION"));
        return Err(ExitCode::SUCCESS);
    }
    match parse::<O>(name, upstream, args) {
        Ok((options, idle)) => {
            crate::init(verbosity(&options));
            if !idle.is_empty() {
                tracing::warn!("flags without effect in this daemon: {}", idle.join(" "));
            }
            Ok(options)
        }
        Err(e) if e.use_stderr() => {
            let text = e.to_string();
            // The rest of the message is help.
            Err(fail(name, &text.lines().next().unwrap_or_default().trim_start_matches("error: ")))
        }
        Err(e) => {
            let _ = e.print();
            Err(ExitCode::SUCCESS)
        }
    }
}

/// The options, and the names of the flags that have no effect.
fn parse<O: Parser>(name: &str, upstream: &str, args: Vec<String>) -> Result<(O, Vec<String>), clap::Error> {
    // As Go's flags: the last one counts, and `_` is as good as `-`.
    let command = O::command().name(name.to_string()).args_override_self(true);
    let ours = |flag: &str| command.get_arguments().any(|a| a.get_long() == Some(flag));
    let (mut kept, mut idle) = (vec![name.to_string()], Vec::new());
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let Some(long) = arg.strip_prefix("--").filter(|l| !l.is_empty()) else {
            kept.push(arg);
            continue;
        };
        let (flag, value) = long.split_once('=').map_or((long, None), |(f, v)| (f, Some(v)));
        let flag = flag.replace('_', "-");
        let known = upstream.lines().find(|l| l.trim_end_matches('?') == flag);
        match known {
            Some(known) if !ours(&flag) => {
                if value.is_none() && !known.ends_with('?') {
                    args.next();
                }
                idle.push(format!("--{flag}"));
            }
            _ => kept.push(value.map_or_else(|| format!("--{flag}"), |v| format!("--{flag}={v}"))),
        }
    }
    let mut matches = command.try_get_matches_from(kept)?;
    Ok((O::from_arg_matches_mut(&mut matches)?, idle))
}

/// Is cancelled with SIGTERM or SIGINT; a second one ends the program at once. To be called within the runtime.
pub fn shutdown() -> CancellationToken {
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return;
        };
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        cancel.cancel();
        // Who asks twice does not want to wait for what is being ended.
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        std::process::exit(1);
    });
    token
}

/// What the program exits with; a failure is said in one line, with what caused it.
pub fn end<E: std::error::Error>(name: &str, result: Result<(), E>) -> ExitCode {
    let Err(e) = result else { return ExitCode::SUCCESS };
    let (mut text, mut cause) = (e.to_string(), e.source());
    while let Some(c) = cause {
        // Some errors repeat what caused them.
        if !text.contains(&c.to_string()) {
            text = format!("{text}: {c}");
        }
        cause = c.source();
    }
    fail(name, &text)
}

fn fail(name: &str, text: &dyn Display) -> ExitCode {
    eprintln!("{name}: {text}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Parser)]
    struct Options {
        #[arg(long)]
        ours: Option<String>,
    }

    #[test]
    fn flags_of_upstream() {
        let parse = |args: &[&str]| {
            parse::<Options>("x", "theirs\nquiet?\nours\n", args.iter().map(|a| a.to_string()).collect())
                .map(|(o, idle)| (o.ours, idle.join(" ")))
                .map_err(|e| e.to_string())
        };
        let both = (Some("b".to_string()), "--theirs --quiet --theirs".to_string());
        assert_eq!(parse(&["--theirs", "1", "--ours=a", "--quiet", "--ours", "b", "--theirs=2"]), Ok(both));
        assert!(parse(&["--nobodys=1"]).unwrap_err().contains("--nobodys"));
        assert!(parse(&["stray"]).is_err());
    }
}
