//! Probes and lifecycle hooks of a container.

use super::Scope;
use crate::check::{self, OneOf, list, required, text};
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, PodOS, Probe, SleepAction, TCPSocketAction,
};

pub(super) fn validate(scope: &Scope<'_>, c: &Container, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let grace = scope.spec.termination_grace_period_seconds;
    if let Some(lifecycle) = &c.lifecycle {
        let at = at.child("lifecycle");
        for (name, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
            let Some(h) = hook else { continue };
            let handler = Handler {
                exec: h.exec.as_ref(),
                http: h.http_get.as_ref(),
                tcp: h.tcp_socket.as_ref(),
                grpc: None,
                sleep: h.sleep.as_ref(),
            };
            handler.validate(grace, at.child(name), errors);
        }
        if let Some(signal) = &lifecycle.stop_signal {
            stop_signal(signal, scope.spec.os.as_ref(), at.child("stopSignal"), errors);
        }
    }
    let must_succeed_once = |p: &Probe, at: FieldPath<'_>, errors: &mut FieldErrors| {
        let threshold = p.success_threshold.unwrap_or(0);
        if threshold != 1 {
            errors.invalid(at.child("successThreshold"), &threshold, "must be 1");
        }
    };
    if let Some(p) = &c.liveness_probe {
        probe(p, grace, at.child("livenessProbe"), errors);
        must_succeed_once(p, at.child("livenessProbe"), errors);
    }
    if let Some(p) = &c.readiness_probe {
        let at = at.child("readinessProbe");
        probe(p, grace, at, errors);
        if let Some(seconds) = p.termination_grace_period_seconds {
            let why = "must not be set for readinessProbes";
            errors.invalid(at.child("terminationGracePeriodSeconds"), &seconds, why);
        }
    }
    if let Some(p) = &c.startup_probe {
        probe(p, grace, at.child("startupProbe"), errors);
        must_succeed_once(p, at.child("startupProbe"), errors);
    }
}

fn probe(p: &Probe, grace: Option<i64>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let handler = Handler {
        exec: p.exec.as_ref(),
        http: p.http_get.as_ref(),
        tcp: p.tcp_socket.as_ref(),
        grpc: p.grpc.as_ref(),
        sleep: None,
    };
    handler.validate(grace, at, errors);
    for (name, value) in [
        ("initialDelaySeconds", p.initial_delay_seconds),
        ("timeoutSeconds", p.timeout_seconds),
        ("periodSeconds", p.period_seconds),
        ("successThreshold", p.success_threshold),
        ("failureThreshold", p.failure_threshold),
    ] {
        check::not_negative(value, at.child(name), errors);
    }
    if let Some(seconds) = p.termination_grace_period_seconds.filter(|s| *s <= 0) {
        errors.invalid(at.child("terminationGracePeriodSeconds"), &seconds, "must be greater than 0");
    }
}

/// What a probe or a hook does.
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http: Option<&'a HTTPGetAction>,
    tcp: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

impl Handler<'_> {
    fn validate(&self, grace: Option<i64>, at: FieldPath<'_>, errors: &mut FieldErrors) {
        let mut one = OneOf::new(at, "may not specify more than 1 handler type");
        if let Some(exec) = self.exec
            && one.first("exec", errors)
            && list(&exec.command).is_empty()
        {
            errors.required(at.child("exec").child("command"), "");
        }
        if let Some(get) = self.http
            && one.first("httpGet", errors)
        {
            http_get(get, at.child("httpGet"), errors);
        }
        if let Some(tcp) = self.tcp
            && one.first("tcpSocket", errors)
        {
            check::port(&tcp.port, at.child("tcpSocket").child("port"), errors);
        }
        if let Some(grpc) = self.grpc
            && one.first("grpc", errors)
        {
            check::port_number(grpc.port, at.child("grpc").child("port"), errors);
        }
        if let Some(sleep) = self.sleep
            && one.first("sleep", errors)
            && let Some(grace) = grace.filter(|g| !(0..=*g).contains(&sleep.seconds))
        {
            let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
            errors.invalid(at.child("sleep"), &sleep.seconds, why);
        }
        one.required("must specify a handler type", errors);
    }
}

fn http_get(get: &HTTPGetAction, at: FieldPath<'_>, errors: &mut FieldErrors) {
    required(text(&get.path), at.child("path"), errors);
    check::port(&get.port, at.child("port"), errors);
    check::one_of(text(&get.scheme), &["HTTP", "HTTPS"], at.child("scheme"), errors);
    for header in list(&get.http_headers) {
        errors.all_invalid(at.child("httpHeaders"), &header.name, names::http_header_name(&header.name));
    }
}

/// Signals of Linux, sorted as messages list them.
const SIGNALS: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

fn stop_signal(signal: &str, os: Option<&PodOS>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    match os.map(|os| os.name.as_str()) {
        None => errors.forbidden(at, "may not be set for containers with empty `spec.os.name`"),
        Some("windows") => check::one_of(signal, &["SIGKILL", "SIGTERM"], at, errors),
        Some("linux") => check::one_of(signal, SIGNALS, at, errors),
        Some(_) => {}
    }
}
