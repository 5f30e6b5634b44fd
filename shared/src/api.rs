//! The wire contract, generated from `proto/coord/v1`. The comments of the .proto files are its documentation.

#![expect(
    missing_docs,
    clippy::large_enum_variant,
    clippy::doc_lazy_continuation,
    reason = "generated code: its documentation and shapes are those of the .proto files"
)]

tonic::include_proto!("coord.v1");
