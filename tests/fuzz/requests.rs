//! Requests as a client may send them, one a line: what is made of them, what the store does with it, and what the
//! answer says. What must hold is written in `src/http/pipeline_tests.rs`.
//!
//! The sources are taken in by their paths: the pure parts are a small program of their own, without the dependencies of
//! the rest, and that they can be shows that they are pure.

#![no_main]
#![allow(dead_code, unreachable_pub, unused_imports)]

mod http;
#[path = "../../src/store/mod.rs"]
mod store;

libfuzzer_sys::fuzz_target!(|data: &[u8]| http::pipeline_tests::run(data));
