//! `/logs/`: the node's own log files.

use crate::config::Config;
use crate::streaming::{Body, text};
use futures::StreamExt;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use std::path::Path;
use tokio_util::io::ReaderStream;

const ROOT: &str = "/var/log";

/// A file below /var/log, or what is in a directory there.
pub(super) async fn serve(config: &Config, path: &str) -> Response<Body> {
    if !config.enable_system_logs {
        return text(StatusCode::METHOD_NOT_ALLOWED, "logs endpoint is disabled.\n");
    }
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
    let relative = if decoded.is_empty() { "." } else { decoded.as_str() };
    // no link in there may lead elsewhere
    let Ok(opened) = sys::mount::open_beneath(Path::new(ROOT), Path::new(relative), false) else {
        return text(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    use std::os::fd::AsRawFd;
    let through = format!("/proc/self/fd/{}", opened.as_raw_fd());
    if opened.metadata().is_ok_and(|m| m.is_dir()) {
        let mut names: Vec<String> = std::fs::read_dir(&through)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| {
                format!("{}{}", e.file_name().to_string_lossy(), if e.path().is_dir() { "/" } else { "" })
            })
            .collect();
        names.sort();
        let escape = |s: &str| s.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&#34;");
        let lines: String = names.iter().map(|n| format!("<a href=\"{0}\">{0}</a>\n", escape(n))).collect();
        let mut r = text(StatusCode::OK, format!("<!doctype html>\n<pre>\n{lines}</pre>\n"));
        r.headers_mut().insert("content-type", HeaderValue::from_static("text/html; charset=utf-8"));
        return r;
    }
    match tokio::fs::File::open(through).await {
        Ok(f) => {
            let frames = ReaderStream::with_capacity(f, 32 << 10).map(|r| r.map(Frame::data));
            let mut r = Response::new(BodyExt::boxed(StreamBody::new(frames)));
            r.headers_mut().insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
            r
        }
        Err(_) => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}
