//! What is asked over plain HTTP, by machines that look after this process. Nothing of it is secret, and nothing can be changed by it.

pub mod health;
