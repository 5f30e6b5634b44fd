//! Reading rows by column name, and numbers into and out of the signed columns of SQL.

use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::error::{CatalogError, Result};

/// A column's value as the type wanted.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: &'static str) -> Result<T> {
    row.try_get(column).map_err(|source| CatalogError::Unreadable { column, source: Box::new(source) })
}

/// A word of ours.
pub(super) fn word<T>(row: &Row, column: &'static str) -> Result<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: &str = get(row, column)?;
    text.parse().map_err(|source: T::Err| CatalogError::Unreadable { column, source: Box::new(source) })
}

/// A word of ours, or NULL.
pub(super) fn optional_word<T>(row: &Row, column: &'static str) -> Result<Option<T>>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: Option<&str> = get(row, column)?;
    text.map(str::parse)
        .transpose()
        .map_err(|source: T::Err| CatalogError::Unreadable { column, source: Box::new(source) })
}

/// A number that is never negative.
pub(super) fn count(row: &Row, column: &'static str) -> Result<u64> {
    let value: i64 = get(row, column)?;
    u64::try_from(value).map_err(|source| CatalogError::Unreadable { column, source: Box::new(source) })
}

/// A small number that is never negative.
pub(super) fn small(row: &Row, column: &'static str) -> Result<u32> {
    let value: i32 = get(row, column)?;
    u32::try_from(value).map_err(|source| CatalogError::Unreadable { column, source: Box::new(source) })
}

/// Thirty-two bytes.
pub(super) fn digest(row: &Row, column: &'static str) -> Result<[u8; 32]> {
    let bytes: &[u8] = get(row, column)?;
    bytes.try_into().map_err(|source| CatalogError::Unreadable { column, source: Box::new(source) })
}

/// A JSON column as a record.
pub(super) fn json<T: DeserializeOwned>(row: &Row, column: &'static str) -> Result<T> {
    let value: serde_json::Value = get(row, column)?;
    serde_json::from_value(value).map_err(|source| CatalogError::Unreadable { column, source: Box::new(source) })
}

/// A JSON column as a record, or NULL.
pub(super) fn optional_json<T: DeserializeOwned>(row: &Row, column: &'static str) -> Result<Option<T>> {
    let value: Option<serde_json::Value> = get(row, column)?;
    value
        .map(serde_json::from_value)
        .transpose()
        .map_err(|source| CatalogError::Unreadable { column, source: Box::new(source) })
}

/// A record for a JSON column.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(CatalogError::Json)
}

/// For a bigint column.
pub(super) fn big(value: u64, what: &'static str) -> Result<i64> {
    i64::try_from(value).map_err(|_| CatalogError::OutOfRange { what })
}

/// For an integer column.
pub(super) fn int<T>(value: T, what: &'static str) -> Result<i32>
where
    i32: TryFrom<T>,
{
    i32::try_from(value).map_err(|_| CatalogError::OutOfRange { what })
}

/// A duration for `interval` arithmetic, in seconds.
pub(super) fn seconds(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64()
}
