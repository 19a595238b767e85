//! A request's head: method, path, query, `Accept`, `Content-Type`.
#![no_main]
use apiserver::negotiate;
use apiserver::request::{self, Query};
use http::{HeaderMap, HeaderValue, Method, Uri, header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (path, accept) = ferrokube_fuzz::two(data);
    if let Ok(uri) = Uri::try_from(path) {
        let query = Query::parse(uri.query());
        let _ = (query.flag("watch"), query.number("limit"));
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let _ = request::read(&method, &uri, &query);
        }
    }
    if let Ok(value) = HeaderValue::from_bytes(accept) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, value.clone());
        headers.insert(header::CONTENT_TYPE, value);
        let _ = (negotiate::accept(&headers), negotiate::body_format(&headers));
    }
});
