//! The kubelet daemon: flags, configuration, signals; the rest is the `kubelet` crate.

use clap::Parser;
use kubelet::{Config, Flags};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let flags = Flags::parse();
    telemetry::init(flags.v);
    let config = match Config::load(&flags) {
        Ok(c) => c,
        Err(e) => return fail(&e),
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    // pods are many and each does little: two threads serve them all, and each further one costs memory
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime {
        Ok(runtime) => match runtime.block_on(kubelet::run(config, stopped())) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => fail(&e),
        },
        Err(e) => fail(&e),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(c) = cause {
        text = format!("{text}: {c}");
        cause = c.source();
    }
    eprintln!("kubelet: {text}");
    ExitCode::FAILURE
}

/// Done when the process is asked to stop.
async fn stopped() {
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut term), Ok(mut int)) => tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        },
        _ => std::future::pending().await,
    }
}
