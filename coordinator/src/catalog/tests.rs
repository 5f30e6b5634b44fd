//! The catalog on a real PostgreSQL.

mod schema;
