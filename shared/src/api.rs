//! The wire contract, generated from `proto/coord/v1`. The comments of the .proto files are its documentation.

#![expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::large_enum_variant,
    reason = "generated code: its documentation and shapes are those of the .proto files"
)]

tonic::include_proto!("coord.v1");

/// The contract itself, as a serialized `FileDescriptorSet`: tests walk it, so that no RPC is forgotten.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/coord.v1.descriptors"));
