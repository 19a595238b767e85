//! `/logs/`: the node's own log files.

use crate::blocking;
use crate::config::Config;
use crate::streaming::{Body, text};
use futures::StreamExt;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use tokio_util::io::ReaderStream;

const ROOT: &str = "/var/log";

/// What is at a path below the root, and the names in it if it is a directory. A pipe or device is neither.
fn look(relative: &Path) -> io::Result<(File, Option<Vec<String>>)> {
    use std::os::fd::AsRawFd;
    let opened = sys::mount::open_beneath(Path::new(ROOT), relative, false)?;
    let kind = opened.metadata()?.file_type();
    if kind.is_file() {
        return Ok((opened, None));
    }
    if !kind.is_dir() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let entries = std::fs::read_dir(format!("/proc/self/fd/{}", opened.as_raw_fd()))?.flatten();
    let mut names: Vec<String> = entries
        .map(|e| {
            let slash = if e.file_type().is_ok_and(|t| t.is_dir()) { "/" } else { "" };
            format!("{}{slash}", e.file_name().to_string_lossy())
        })
        .collect();
    names.sort();
    Ok((opened, Some(names)))
}

/// A file below /var/log, or what is in a directory there.
pub(super) async fn serve(config: &Config, path: &str) -> Response<Body> {
    if !config.enable_system_logs {
        return text(StatusCode::METHOD_NOT_ALLOWED, "logs endpoint is disabled.\n");
    }
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
    let relative = if decoded.is_empty() { "." } else { decoded.as_str() };
    // no link in there may lead elsewhere
    let relative = PathBuf::from(relative);
    let found = blocking::quick(move || look(&relative)).await.and_then(|r| r);
    let Ok((opened, names)) = found else {
        return text(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    use std::os::fd::AsRawFd;
    let through = format!("/proc/self/fd/{}", opened.as_raw_fd());
    if let Some(names) = names {
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
