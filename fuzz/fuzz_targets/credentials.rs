//! Who somebody claims to be: token files, bearer tokens, bootstrap tokens, certificates.
#![no_main]
use api::GroupResource;
use api::read::{Held, ObjectReader};
use auth::authn::token_file::TokenFile;
use auth::authn::{Tokens, bootstrap_token, certificate};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use std::any::Any;
use std::sync::{Arc, OnceLock};

struct Object(Bytes, OnceLock<Arc<dyn Any + Send + Sync>>);

impl Held for Object {
    fn json(&self) -> &Bytes {
        &self.0
    }
    fn typed(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>> {
        &self.1
    }
}

/// A cluster whose every object is what was put in.
struct Same(Bytes);

impl Same {
    fn object(&self) -> Arc<dyn Held> {
        Arc::new(Object(self.0.clone(), OnceLock::new()))
    }
}

impl ObjectReader for Same {
    fn get(&self, _: &GroupResource, _: &str, _: &str) -> Option<Arc<dyn Held>> {
        Some(self.object())
    }
    fn list(&self, _: &GroupResource, _: Option<&str>) -> Vec<Arc<dyn Held>> {
        vec![self.object()]
    }
    fn select(&self, _: &GroupResource, _: &str, _: &str) -> Vec<Arc<dyn Held>> {
        vec![self.object()]
    }
    fn generation(&self, _: &GroupResource) -> u64 {
        0
    }
}

fuzz_target!(|data: &[u8]| {
    let _ = certificate::user(data);
    let (token, object) = ferrokube_fuzz::two(data);
    let Ok(token) = std::str::from_utf8(token) else { return };
    let reader = Same(object.to_vec().into());
    let _ = bootstrap_token::user(token, &reader);
    let mut tokens = Tokens::default();
    tokens.bootstrap = true;
    let _ = tokens.authenticate(token, &reader);
    let _ = pki::jwt::Verifier::default().verify(token);
    let _ = TokenFile::parse(token);
});
