//! What the programs of all daemons have in common: flags, signals, how they end.

use crate::{Format, version};
use clap::Parser;
use std::fmt::Display;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Reads the flags and starts the log at their verbosity. `upstream` lists the flags of upstream's daemon of this
/// name, one a line ([`Listed`]). What we have no use for is taken and said to be without effect, so that upstream's units and
/// manifests start ours; but not where its silent lack would be dangerous. `commit` is that of the source that was built, if it is known
/// (`option_env!("FERROKUBE_COMMIT")`). Where there is nothing to go on with, the code to exit with: one line said why.
pub fn options<O: Parser>(
    name: &str,
    upstream: &str,
    commit: Option<&'static str>,
    verbosity: fn(&O) -> u8,
) -> Result<O, ExitCode> {
    version::set_commit(commit);
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(asked) = args.iter().find(|a| *a == "--version" || a.starts_with("--version=")) {
        match asked.split_once('=').map_or("true", |(_, v)| v) {
            "raw" => println!("{:?}", version::get()),
            "false" => {}
            _ => println!("Kubernetes {}", version::VERSION),
        }
        if asked != "--version=false" {
            return Err(ExitCode::SUCCESS);
        }
    }
    match parse::<O>(name, upstream, args) {
        Ok(Parsed { options, idle, format }) => {
            crate::init_as(verbosity(&options), format);
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

/// A line of a list of upstream's flags: `name`, `name?` for one that needs no value, and with `!` before it one that is refused unless
/// it has the value that it has by itself: `!name?=false`, or `!name` where only an empty value changes nothing.
struct Listed<'a> {
    name: &'a str,
    bare: bool,
    /// What may be asked for, if all else is refused.
    only: Option<&'a str>,
}

impl<'a> Listed<'a> {
    fn read(line: &'a str) -> Self {
        let refused = line.strip_prefix('!');
        let (name, only) = refused.unwrap_or(line).split_once('=').unwrap_or((refused.unwrap_or(line), ""));
        Listed { name: name.trim_end_matches('?'), bare: name.ends_with('?'), only: refused.map(|_| only) }
    }
}

/// What the command line says.
struct Parsed<O> {
    options: O,
    /// The names of the flags that have no effect.
    idle: Vec<String>,
    /// `--logging-format`, which all daemons have.
    format: Format,
}

fn parse<O: Parser>(name: &str, upstream: &str, args: Vec<String>) -> Result<Parsed<O>, clap::Error> {
    // As Go's flags: the last one counts, and `_` is as good as `-`.
    let mut command = O::command().name(name.to_string()).args_override_self(true);
    let ours = |flag: &str| O::command().get_arguments().any(|a| a.get_long() == Some(flag));
    let (mut kept, mut idle, mut format) = (vec![name.to_string()], Vec::new(), Format::Text);
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let Some(long) = arg.strip_prefix("--").filter(|l| !l.is_empty()) else {
            kept.push(arg);
            continue;
        };
        let (flag, value) = long.split_once('=').map_or((long, None), |(f, v)| (f, Some(v)));
        let flag = flag.replace('_', "-");
        match upstream.lines().map(Listed::read).find(|l| l.name == flag) {
            Some(listed) if !ours(&flag) => {
                let value = match value {
                    Some(value) => value.to_owned(),
                    None if listed.bare => "true".to_owned(),
                    None => args.next().unwrap_or_default(),
                };
                if flag == "logging-format" {
                    format = match value.as_str() {
                        "text" => Format::Text,
                        "json" => Format::Json,
                        _ => {
                            return Err(refused(
                                &mut command,
                                format!("--logging-format: {value:?} is neither text nor json"),
                            ));
                        }
                    };
                } else if let Some(only) = listed.only
                    && value != only
                {
                    let but = if only.is_empty() { String::new() } else { format!("; only {only:?} is") };
                    return Err(refused(&mut command, format!("--{flag}={value} is not supported yet{but}")));
                } else if listed.only.is_none() {
                    idle.push(format!("--{flag}"));
                }
            }
            _ => kept.push(value.map_or_else(|| format!("--{flag}"), |v| format!("--{flag}={v}"))),
        }
    }
    let mut matches = command.try_get_matches_from(kept)?;
    Ok(Parsed { options: O::from_arg_matches_mut(&mut matches)?, idle, format })
}

fn refused(command: &mut clap::Command, text: String) -> clap::Error {
    command.error(clap::error::ErrorKind::InvalidValue, text)
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
        const LIST: &str = "theirs\nquiet?\nours\n!guard?=false\n!file\nlogging-format\n";
        let parse = |args: &[&str]| {
            parse::<Options>("x", LIST, args.iter().map(|a| a.to_string()).collect())
                .map(|p| (p.options.ours, p.idle.join(" ")))
                .map_err(|e| e.to_string())
        };
        let both = (Some("b".to_string()), "--theirs --quiet --theirs".to_string());
        assert_eq!(parse(&["--theirs", "1", "--ours=a", "--quiet", "--ours", "b", "--theirs=2"]), Ok(both));
        assert!(parse(&["--nobodys=1"]).unwrap_err().contains("--nobodys"));
        assert!(parse(&["stray"]).is_err());
        // What is marked is taken only as it is by itself.
        assert_eq!(parse(&["--guard=false", "--file="]), Ok((None, String::new())));
        for (args, word) in [
            (&["--guard"][..], "--guard=true is not supported yet; only \"false\" is"),
            (&["--file", "/x"], "--file=/x is not supported yet"),
            (&["--logging-format=xml"], "neither text nor json"),
        ] {
            assert!(parse(args).unwrap_err().contains(word), "{args:?}");
        }
        assert_eq!(parse(&["--logging-format=json"]), Ok((None, String::new())));
    }
}
