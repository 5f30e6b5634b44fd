//! A fleet of one host and one policy, and the shortest way to a committed backup.

use std::collections::BTreeMap;
use std::time::Duration;

use coord_archive::digest::Digest;
use coord_archive::entry::{Attributes, ContentRef, Entry, Flags, Identity, Kind};
use coord_shared::ids::{
    Attempt, BackupId, CoordinatorId, Generation, HostId, InstanceId, JobId, Ordinal, PolicyId, RunId, Seq,
    SessionNumber, TokenId,
};
use coord_shared::level::Level;
use coord_shared::run::RunKind;
use coord_shared::tls::PeerKind;
use jiff::Timestamp;

use crate::catalog::{
    AskedRun, Beat, Catalog, CheckRecord, Codec, Commit, Committed, HostFacts, JobFilter, JoinOutcome, Left,
    NewCertificate, NewHost, NewPolicyVersion, NewToken, OpenSession, OpenedSession, Relabelled, Relabelling,
    SealedBackup, TokenKind, UnchangedBackup, VersionOrigin,
};

pub(super) const LEASE: Duration = Duration::from_secs(30);

/// A host with a session and one job.
#[derive(Clone)]
pub(super) struct Fleet {
    pub(super) catalog: Catalog,
    pub(super) coordinator: CoordinatorId,
    pub(super) host: HostId,
    pub(super) policy: PolicyId,
    pub(super) job: JobId,
    pub(super) session: SessionNumber,
}

pub(crate) fn new_certificate(subject: &str, kind: PeerKind, generation: u32) -> NewCertificate {
    NewCertificate {
        serial: uuid::Uuid::new_v4().simple().to_string(),
        kind,
        subject: subject.to_owned(),
        generation: Generation(generation),
        public_key_sha256: *blake3::hash(uuid::Uuid::new_v4().as_bytes()).as_bytes(),
        pem: "pem".to_owned(),
        not_after: Timestamp::now() + jiff::SignedDuration::from_hours(24),
    }
}

pub(crate) async fn agent_token(catalog: &Catalog, uses: u32) -> TokenId {
    let id = TokenId::random();
    let token = NewToken {
        id,
        secret_sha256: [7; 32],
        kind: TokenKind::Agent,
        labels: BTreeMap::from([("env".to_owned(), "test".to_owned())]),
        host_name: None,
        operator: None,
        uses,
        created_by: "ada".to_owned(),
        lives: Duration::from_secs(600),
    };
    catalog.create_token(&token).await.unwrap();
    id
}

pub(crate) fn new_host(id: HostId, name: &str) -> NewHost {
    NewHost { id, name: name.to_owned(), labels: BTreeMap::new(), facts: HostFacts::default() }
}

/// What a coordinator says of itself that has nothing to say.
pub(super) fn beat_of(id: CoordinatorId) -> Beat<'static> {
    static NO_DUTIES: BTreeMap<&str, u64> = BTreeMap::new();
    Beat { id, endpoints: &[], enrol_endpoints: &[], version: "1", sessions: 0, duties: &NO_DUTIES, draining: false }
}

impl Fleet {
    /// Gives the host these labels instead of those that it has; its policy selects it as before.
    pub(super) async fn relabel(&self, after: BTreeMap<String, String>) -> Relabelled {
        let before = self.catalog.host(self.host).await.unwrap().unwrap().labels;
        let jobs = vec![(self.policy, JobId::random())];
        let new = Relabelling { host: self.host, before, after, jobs, reschedules: true };
        self.catalog.relabel_host(&new).await.unwrap()
    }

    pub(super) async fn new(catalog: &Catalog) -> Fleet {
        let (host, coordinator) = (HostId::random(), CoordinatorId::random());
        let token = agent_token(catalog, 1).await;
        let certificate = new_certificate(&host.to_string(), PeerKind::Agent, 1);
        let joined = catalog.join_host(token, &new_host(host, &format!("h-{}", host.short())), &certificate).await;
        assert_eq!(joined.unwrap(), JoinOutcome::Joined);
        let policy = NewPolicyVersion {
            name: format!("p-{}", host.short()),
            toml: "name = 'p'".to_owned(),
            spec: serde_json::json!({}),
            applied_by: "ada".to_owned(),
            hosts: vec![host],
            new_job_ids: vec![JobId::random()],
            origin: VersionOrigin::Applied,
            equals: None,
            renew: false,
            expected: None,
        };
        let policy = catalog.apply_policy(&policy).await.unwrap().policy.id;
        let jobs = catalog.jobs(JobFilter { host: Some(host), ..JobFilter::default() }).await.unwrap();
        let none = Duration::ZERO;
        catalog.beat_coordinator(beat_of(coordinator), none, Duration::from_secs(60)).await.unwrap();
        let mut fleet =
            Fleet { catalog: catalog.clone(), coordinator, host, policy, job: jobs[0].id, session: SessionNumber(0) };
        fleet.session = fleet.connect().await;
        fleet
    }

    /// Opens the next session.
    pub(super) async fn connect(&self) -> SessionNumber {
        let session = OpenSession {
            host: self.host,
            seen: self.catalog.host_session(self.host).await.unwrap().number,
            instance: InstanceId::random(),
            coordinator: self.coordinator,
            facts: HostFacts::default(),
            archive_folder: b"/archives".to_vec(),
            archive_store: None,
            clock_offset_us: 0,
        };
        match self.catalog.open_session(&session).await.unwrap() {
            OpenedSession::Opened(number) => number,
            OpenedSession::Changed(other) => panic!("{other:?}"),
        }
    }

    /// A run that waits to be claimed.
    pub(super) async fn ask(&self, kind: RunKind) -> RunId {
        let asked = AskedRun {
            id: RunId::random(),
            kind,
            host: self.host,
            job: Some(self.job),
            asked_by: "ada".to_owned(),
            level: None,
            spec: serde_json::json!({}),
            priority: 0,
        };
        self.catalog.ask_run(&asked).await.unwrap().id
    }

    /// The host is heard of.
    pub(super) async fn beats(&self) {
        assert!(self.catalog.touch_session(self.host, self.session, 0).await.unwrap());
    }

    pub(super) async fn claim(&self) -> Option<(RunId, Attempt)> {
        let claimed = self.catalog.claim_runs(&[(self.host, self.session)], LEASE, 1).await.unwrap();
        claimed.first().map(|claimed| (claimed.run, claimed.attempt))
    }

    pub(super) fn commit_of(&self, run: RunId, attempt: Attempt, ordinal: u64, left: Left) -> Commit {
        let captured = Timestamp::from_second(1_700_000_000 + 60 * ordinal.cast_signed()).unwrap();
        Commit {
            host: self.host,
            session: self.session,
            run,
            attempt,
            sequence: 9,
            backup: BackupId::random(),
            ordinal: Ordinal(ordinal),
            started_at: captured,
            captured_at: captured,
            clock_offset_us: 0,
            left,
            checks: vec![CheckRecord { name: "digest".to_owned(), passed: true, detail: String::new() }],
            verify_ms: 1,
            warnings_total: 0,
            left_out: Vec::new(),
            level_reason: None,
        }
    }

    /// A run asked for, claimed and committed.
    pub(super) async fn back_up(&self, ordinal: u64, left: Left) -> BackupId {
        self.ask(RunKind::Backup).await;
        let (run, attempt) = self.claim().await.unwrap();
        let commit = self.commit_of(run, attempt, ordinal, left);
        let outcome = self.catalog.commit_backup(&commit).await.unwrap();
        assert_eq!(outcome, Committed::Committed(Seq(ordinal.cast_signed())));
        commit.backup
    }

    /// Stages a whole index, in blocks of `size` entries, and takes in what can be taken in.
    pub(super) async fn ingest(&self, backup: BackupId, entries: &[Entry], size: usize) {
        let Some(mut intake) = self.catalog.index_intake(backup, self.host).await.unwrap() else { return };
        for (number, block) in entries.chunks(size).enumerate() {
            intake.store_block(number as u64, block).await.unwrap();
        }
    }
}

pub(super) fn sealed(level: Level, base: Option<BackupId>, blocks: usize) -> Left {
    Left::Sealed(Box::new(SealedBackup {
        level,
        base,
        location_folder: b"/archives".to_vec(),
        location_key: "h/p/x.tar.zst".to_owned(),
        archive_digest: Digest::of(uuid::Uuid::new_v4().as_bytes()),
        stored_bytes: 1000,
        codec: Codec::Zstd,
        selection_digest: vec![1; 32],
        entries: 1,
        files: 1,
        content_bytes: 1,
        source_files: 1,
        source_bytes: 1,
        changed_files: 1,
        changed_bytes: 1,
        removed: 0,
        index_blocks: blocks as u64,
        unreadable: 0,
        changed_while_read: 0,
        scan_ms: 1,
        pack_ms: 1,
        seal_ms: 1,
        effort: None,
    }))
}

pub(super) fn unchanged(newest: BackupId) -> Left {
    Left::Unchanged(UnchangedBackup { newest, source_files: 1, source_bytes: 1, scan_ms: 1 })
}

/// An entry with what a test cares for.
pub(super) fn entry(path: &[u8], kind: Kind) -> Entry {
    Entry {
        path: path.to_vec(),
        kind,
        flags: Flags(0),
        size: 0,
        attributes: Attributes { mode: 0o755, ..Attributes::default() },
        identity: Identity::default(),
        link_target: Vec::new(),
        device: (0, 0),
        link_group: 0,
        data_ranges: None,
        digest: None,
        pieces: Vec::new(),
        content: None,
    }
}

/// A file with content.
pub(super) fn file(path: &[u8], content: &[u8]) -> Entry {
    Entry {
        size: content.len() as u64,
        digest: Some(Digest::of(content)),
        content: Some(ContentRef { frame: 0, frame_offset: 0, frame_length: 1, offset: 0 }),
        ..entry(path, Kind::File)
    }
}
