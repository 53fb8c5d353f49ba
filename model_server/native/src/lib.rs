//! What the model server does natively: HTTP/2 by the `h2` crate, driven without a socket, and plain HTTP/1.1 heads.
//!
//! `engine` is plain Rust; `python`, behind the feature of that name, is what Python sees of it.

pub mod budget;
pub mod columns;
pub mod engine;
pub mod head;
pub mod message;
pub mod numbers;
pub mod pipe;
#[cfg(feature = "python")]
mod python;
