//! Frames of streams: SPDY's, in pieces of any size, and messages of WebSockets.
#![no_main]
use bytes::BytesMut;
use kubelet::streaming::spdy::{Decoder, Encoder};
use kubelet::streaming::websocket::{self, Framing};
use libfuzzer_sys::fuzz_target;
use tokio_tungstenite::tungstenite::Message;

fuzz_target!(|data: &[u8]| {
    let [piece, frames @ ..] = data else { return };
    let (mut decoder, Ok(mut encoder)) = (Decoder::default(), Encoder::new()) else { return };
    'all: for piece in frames.chunks(usize::from(*piece).max(1)) {
        decoder.feed(piece);
        loop {
            match decoder.decode() {
                Ok(Some(frame)) => {
                    let _ = encoder.encode(&frame, &mut BytesMut::new());
                }
                Ok(None) => break,
                Err(_) => break 'all,
            }
        }
    }
    for framing in [Framing::Binary, Framing::Base64] {
        websocket::read(framing, Message::Binary(frames.to_vec().into()));
        if let Ok(text) = std::str::from_utf8(frames) {
            websocket::read(framing, Message::Text(text.into()));
        }
    }
});
