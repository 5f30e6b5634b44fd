//! The records of the journal, as protocol buffer messages: fields and kinds are only ever added.

use coord_shared::api;

/// One record.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Record {
    /// What happened; `None` is a kind of a later version, which is passed over.
    #[prost(oneof = "Body", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9")]
    pub body: Option<Body>,
}

/// What happened.
#[derive(Clone, PartialEq, prost::Oneof)]
#[expect(clippy::large_enum_variant, reason = "records are written and read one by one")]
pub enum Body {
    /// An attempt was taken on.
    #[prost(message, tag = "1")]
    Accepted(api::RunOrder),
    /// A report was made; it is sent until it is acknowledged.
    #[prost(message, tag = "2")]
    Reported(api::RunReport),
    /// The coordinator has a report.
    #[prost(message, tag = "3")]
    Acknowledged(Acknowledged),
    /// An attempt is over, for both ends.
    #[prost(message, tag = "4")]
    Closed(Closed),
    /// A job's highest ordinal.
    #[prost(message, tag = "5")]
    Ordinal(api::JobOrdinal),
    /// A backup was made here.
    #[prost(message, tag = "6")]
    Backup(RememberedBackup),
    /// A backup's index is in the catalog, or its archive is gone.
    #[prost(message, tag = "7")]
    Forgotten(Forgotten),
    /// An attempt that was taken on was begun by this host itself, from its plan.
    #[prost(message, tag = "8")]
    FromPlan(BegunFromPlan),
    /// Runs of which an attempt was taken on some time.
    #[prost(message, tag = "9")]
    Taken(Taken),
}

/// See [`Body::Acknowledged`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Acknowledged {
    /// The run.
    #[prost(string, tag = "1")]
    pub run_id: String,
    /// Its attempt.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    /// The report's sequence.
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
}

/// See [`Body::Closed`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Closed {
    /// The run.
    #[prost(string, tag = "1")]
    pub run_id: String,
    /// Its attempt.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
}

/// See [`Body::Backup`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct RememberedBackup {
    /// The policy.
    #[prost(string, tag = "1")]
    pub policy_id: String,
    /// Its name.
    #[prost(string, tag = "2")]
    pub policy_name: String,
    /// Where the archive is, with digest, level and the backup's id.
    #[prost(message, optional, tag = "3")]
    pub location: Option<api::ArchiveLocation>,
    /// The backup's ordinal.
    #[prost(uint64, tag = "4")]
    pub ordinal: u64,
    /// End of reading, microseconds since the epoch.
    #[prost(int64, tag = "5")]
    pub captured_at_us: i64,
    /// The catalog may not have the index yet.
    #[prost(bool, tag = "6")]
    pub index_unsent: bool,
}

/// See [`Body::Forgotten`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Forgotten {
    /// The backup.
    #[prost(string, tag = "1")]
    pub backup_id: String,
    /// The archive itself is gone; otherwise only its index needs no sending any more.
    #[prost(bool, tag = "2")]
    pub archive_gone: bool,
}

/// See [`Body::FromPlan`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct BegunFromPlan {
    /// The run.
    #[prost(string, tag = "1")]
    pub run_id: String,
    /// Its attempt.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    /// How it came about.
    #[prost(message, optional, tag = "3")]
    pub how: Option<api::FromPlan>,
    /// Why its level.
    #[prost(string, tag = "4")]
    pub level_reason: String,
}

/// See [`Body::Taken`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Taken {
    /// Their ids, in the order in which they were first taken on.
    #[prost(string, repeated, tag = "1")]
    pub run_ids: Vec<String>,
}
