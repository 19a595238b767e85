//! Large answers are sent as gzip to who takes it: objects, lists, tables, documents; never watches, logs or what is
//! passed on.

use crate::body::{Body, BodyError};
use crate::list_body::ListBody;
use crate::negotiate::Format;
use crate::respond;
use crate::verbs::internal;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue, VARY};
use http::{HeaderMap, Response};
use std::io::Write;

/// Less is not worth the work.
const THRESHOLD: usize = 128 << 10;
/// More takes much longer and saves little.
const LEVEL: Compression = Compression::new(1);

/// Whether the client takes gzip.
pub fn is_accepted(headers: &HeaderMap) -> bool {
    let all = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|v| v.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let quality = |q: &str| q.strip_prefix("q=").is_none_or(|q| q.parse::<f32>().is_ok_and(|q| q > 0.0));
        parts.next() == Some("gzip") && parts.all(quality)
    })
}

/// Compresses an answer that is large.
pub fn gzip(mut response: Response<Body>) -> Response<Body> {
    if response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let mut encoder = GzEncoder::new(Vec::new(), LEVEL);
    let body = match std::mem::replace(response.body_mut(), Body::empty()) {
        Body::Full(Some(bytes)) if bytes.len() > THRESHOLD => {
            match encoder.write_all(&bytes).and_then(|()| encoder.finish()) {
                Ok(smaller) => smaller.into(),
                Err(e) => return respond::status(&internal(e), Format::Json),
            }
        }
        Body::List(mut list) => {
            let mut start = Vec::new();
            while start.len() <= THRESHOLD {
                match list.frame() {
                    Some(Ok(frame)) => start.extend_from_slice(&frame),
                    Some(Err(e)) => return respond::status(&internal(e), Format::Json),
                    None => {
                        *response.body_mut() = start.into();
                        return response;
                    }
                }
            }
            Body::Compressed(Box::new(Compressed { encoder, start, list, done: false }))
        }
        other => {
            *response.body_mut() = other;
            return response;
        }
    };
    *response.body_mut() = body;
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

/// A list, compressed while it is written.
pub struct Compressed {
    encoder: GzEncoder<Vec<u8>>,
    start: Vec<u8>,
    list: ListBody,
    done: bool,
}

impl Compressed {
    /// Whether all of it is written.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The next frame. An error can't be answered any more: the body breaks off.
    pub fn frame(&mut self) -> Option<Result<Bytes, BodyError>> {
        while !self.done {
            let written = self.step();
            self.done |= written.is_err();
            match written {
                Err(e) => return Some(Err(e)),
                Ok(()) if self.encoder.get_ref().is_empty() => {}
                Ok(()) => return Some(Ok(std::mem::take(self.encoder.get_mut()).into())),
            }
        }
        None
    }

    fn step(&mut self) -> Result<(), BodyError> {
        let start = std::mem::take(&mut self.start);
        self.encoder.write_all(&start)?;
        match self.list.frame() {
            Some(frame) => self.encoder.write_all(&frame?)?,
            None => {
                self.encoder.try_finish()?;
                self.done = true;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use http_body_util::BodyExt;
    use std::io::Read;

    #[test]
    fn who_takes_it() {
        for (text, takes) in [
            ("", false),
            ("gzip", true),
            ("br, gzip;q=0.5", true),
            ("gzip;q=0", false),
            ("deflate", false),
            ("*", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, text.parse().unwrap());
            assert_eq!(is_accepted(&headers), takes, "{text}");
        }
    }

    #[tokio::test]
    async fn only_what_is_large() {
        for (size, smaller) in [(THRESHOLD, false), (THRESHOLD + 1, true)] {
            let response = gzip(respond::bytes(200, "application/json", vec![b'a'; size]));
            assert_eq!(response.headers().contains_key(CONTENT_ENCODING), smaller);
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            let mut plain = Vec::new();
            match smaller {
                true => drop(GzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap()),
                false => plain.extend_from_slice(&bytes),
            }
            assert_eq!(plain, vec![b'a'; size]);
        }
    }
}
