//! The native engine of the model server's gRPC side: HTTP/2 by the `h2` crate, driven without a socket.
//!
//! `engine` is plain Rust; `python`, behind the feature of that name, is what Python sees of it.

pub mod budget;
pub mod engine;
pub mod message;
pub mod pipe;
#[cfg(feature = "python")]
mod python;
