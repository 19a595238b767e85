//! A connection: well when it is taken.

use super::Outcome;

/// Connects and hangs up.
pub async fn probe(host: &str, port: u16) -> Outcome {
    match tokio::net::TcpStream::connect((host, port)).await {
        Ok(connection) => {
            // thousands of probes must not leave their ports waiting
            let _ = connection.set_zero_linger();
            Outcome::Success
        }
        Err(e) => Outcome::Failure(format!("dial tcp {}: connect: {}", join(host, port), reason(&e))),
    }
}

/// Host and port, with brackets around IPv6.
pub fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// An I/O error as Go words it.
pub fn reason(e: &std::io::Error) -> String {
    match e.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
        std::io::ErrorKind::TimedOut => "i/o timeout".into(),
        std::io::ErrorKind::HostUnreachable => "no route to host".into(),
        _ => e.to_string(),
    }
}
