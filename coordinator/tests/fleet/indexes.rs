//! Indexes as hosts send them: a scripted agent over real mTLS, with blocks made by hand.

use coord_archive::block::encode_one;
use coord_archive::codec::{Codec, Compressor};
use coord_archive::digest::Digest;
use coord_archive::entry::{Attributes, Entry, Flags, Identity, Kind};
use coord_shared::api::agent_service_client::AgentServiceClient;
use coord_shared::api::coordinator_message::Message as ToAgent;
use coord_shared::api::operator_service_client::OperatorServiceClient;
use coord_shared::api::run_report::Event;
use coord_shared::api::{self, Disposition};
use coord_shared::fault::Fault;
use coord_shared::ids::{BackupId, InstanceId};
use coordinator::catalog::{Backup, Searchable, ShortDigest};
use tonic::transport::Channel;

use super::runs::{POLICY, Script, apply, backup_of, dial, finished, hello, start_backup};
use super::support::{Fleet, Member, wait_for};

pub fn entry(path: &[u8], kind: Kind) -> Entry {
    Entry {
        path: path.to_vec(),
        kind,
        flags: Flags::default(),
        size: 0,
        attributes: Attributes { mode: 0o644, ..Attributes::default() },
        identity: Identity::default(),
        link_target: Vec::new(),
        device: (0, 0),
        link_group: 0,
        data_ranges: None,
        digest: (kind == Kind::File).then(|| Digest::of(path)),
        pieces: Vec::new(),
        content: None,
    }
}

fn put_number(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A block as FORMAT.md says: the number of records, then each with its length.
pub fn block(entries: &[Entry]) -> Vec<u8> {
    let mut raw = Vec::new();
    put_number(&mut raw, entries.len());
    for entry in entries {
        let mut record = Vec::new();
        encode_one(entry, &mut record);
        put_number(&mut raw, record.len());
        raw.extend(record);
    }
    compressed(&raw)
}

/// A block of files in one folder of a long name, each of which takes some bytes in it and all of its path in memory.
fn bomb(folder: &[u8], files: usize) -> Vec<u8> {
    let (mut raw, mut shared) = (Vec::new(), 0);
    put_number(&mut raw, files);
    for number in 0..files {
        let path = [folder, format!("/{number:06}").as_bytes()].concat();
        let mut whole = Vec::new();
        encode_one(&entry(&path, Kind::File), &mut whole);
        let after_path = whole.windows(path.len()).position(|window| window == path).unwrap() + path.len();
        let mut record = Vec::new();
        put_number(&mut record, shared);
        put_number(&mut record, path.len() - shared);
        record.extend(&path[shared..]);
        record.extend(&whole[after_path..]);
        put_number(&mut raw, record.len());
        raw.extend(record);
        shared = folder.len();
    }
    compressed(&raw)
}

fn compressed(raw: &[u8]) -> Vec<u8> {
    let mut stored = Vec::new();
    Compressor::new(Codec::Zstd, 1).unwrap().compress(raw, &mut stored).unwrap();
    stored
}

/// A host that backs up what its operator asks for, and sends what the test says is the index.
pub struct Sender {
    pub fleet: Fleet,
    pub admin: Channel,
    pub member: Member,
    pub agent: Script,
    pub client: AgentServiceClient<Channel>,
}

impl Sender {
    pub async fn start() -> Sender {
        let fleet = Fleet::start().await;
        let (admin, member) = (fleet.admin().await, fleet.agent("one").await);
        apply(&admin, POLICY).await;
        let agent = dial(&fleet, &member, hello(InstanceId::random())).await.unwrap();
        let client = AgentServiceClient::new(member.tls.connect(&fleet.main).await.unwrap());
        Sender { fleet, admin, member, agent, client }
    }

    /// A full backup whose index has one block.
    pub async fn back_up(&mut self) -> BackupId {
        self.back_up_in(1).await
    }

    /// The same with an index of so many blocks.
    pub async fn back_up_in(&mut self, blocks: u64) -> BackupId {
        start_backup(&self.admin, api::Level::Full).await;
        let order = self.agent.order().await;
        let mut done = finished(&backup_of(&order));
        if let Event::Finished(api::Finished { result: Some(api::finished::Result::Backup(result)), .. }) = &mut done {
            result.sealed.as_mut().unwrap().index_blocks = blocks;
        }
        assert_eq!(self.agent.report(&order, 1, done).await, Disposition::Forget);
        backup_of(&order).backup_id.parse().unwrap()
    }

    async fn send(&mut self, backup: BackupId, stored: Vec<u8>) -> Result<api::IndexProgress, Fault> {
        let codec = api::Codec::Zstd.into();
        let block = api::IndexBlock { backup_id: backup.to_string(), number: 0, stored, codec, last: true };
        let answer = self.client.upload_index(tokio_stream::once(block)).await;
        answer.map(tonic::Response::into_inner).map_err(Fault::from)
    }

    pub async fn backup(&self, id: BackupId) -> Backup {
        self.fleet.catalog.backup(id).await.unwrap().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_cannot_be_taken_in_is_given_up_at_once_and_stands_in_nobody_s_way() {
    let mut host = Sender::start().await;
    let deep = vec![&b"d"[..]; 2049].join(&b'/');
    let lost = host.back_up().await;
    let answer = host.send(lost, block(&[entry(b"", Kind::Folder), entry(&deep, Kind::File)])).await.unwrap();
    assert!(answer.complete, "it need not be sent again");
    let found = host.backup(lost).await;
    assert_eq!(found.searchable, Searchable::NotSearchable);
    assert!(found.searchable_reason.contains("more than 2048 folders deep"), "{}", found.searchable_reason);

    let next = host.back_up().await;
    let deepest = &deep[..deep.len() - 2];
    host.send(next, block(&[entry(b"", Kind::Folder), entry(deepest, Kind::File)])).await.unwrap();
    let searchable = || async { (host.backup(next).await.searchable == Searchable::Searchable).then_some(()) };
    wait_for("the next backup to be searchable", searchable).await;
    let job = host.backup(next).await;
    let found = host.fleet.catalog.find_path(job.job, job.seq, deepest).await.unwrap().unwrap();
    assert_eq!(found.digest, Some(ShortDigest::from(&Digest::of(deepest))));
    host.fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_block_that_would_fill_the_memory_is_not_decoded() {
    let mut host = Sender::start().await;
    let folder = vec![&[b'n'; 250][..]; 240].join(&b'/');
    let backup = host.back_up().await;
    let stored = bomb(&folder, 1200);
    assert!(stored.len() < 100 << 10, "{} bytes", stored.len());
    assert!(host.send(backup, stored).await.unwrap().complete);
    let found = host.backup(backup).await;
    assert!(found.searchable_reason.contains("too large together"), "{}", found.searchable_reason);

    let next = host.back_up().await;
    host.send(next, bomb(&folder, 10)).await.unwrap();
    let searchable = || async { (host.backup(next).await.searchable == Searchable::Searchable).then_some(()) };
    wait_for("an honest block of long paths", searchable).await;
    host.fleet.stop().await;
}

impl Sender {
    /// The next time that the coordinator asks by itself, and not in answer to a report.
    async fn asked_for(&mut self) -> api::IndexWanted {
        let by_itself = |message| match message {
            ToAgent::IndexWanted(wanted) if wanted.location.is_some() => Some(wanted),
            _ => None,
        };
        self.agent.wait(by_itself).await
    }

    async fn excuse(&mut self, backup: BackupId, unavailable: &str, for_good: bool) {
        let backup_id = backup.to_string();
        let request = api::IndexProgressRequest { backup_id, unavailable: unavailable.into(), for_good };
        self.client.get_index_progress(request).await.unwrap();
    }

    async fn change(&self, statement: &str) {
        let (client, connection) = tokio_postgres::connect(&self.fleet.url, tokio_postgres::NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        client.batch_execute(statement).await.unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
    }

    async fn reason_of(&self, backup: BackupId) -> String {
        let given_up = || async {
            let found = self.backup(backup).await;
            (found.searchable == Searchable::NotSearchable).then_some(found.searchable_reason)
        };
        wait_for("the index to be given up", given_up).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_given_up_after_a_day_of_asking_and_not_because_its_host_was_away() {
    let mut host = Sender::start().await;
    let backup = host.back_up().await;
    host.change("UPDATE backups SET committed_at = now() - INTERVAL '30 days'").await;
    let wanted = host.asked_for().await;
    assert_eq!(wanted.backup_id, backup.to_string());
    assert_eq!(wanted.location.unwrap().key, format!("one/web/{backup}.tar.zst"));
    assert_eq!(host.backup(backup).await.searchable, Searchable::Pending, "a month late, it may still come");

    host.excuse(backup, "its disk is not mounted", false).await;
    assert_eq!(host.backup(backup).await.searchable, Searchable::Pending);
    host.change("UPDATE index_asks SET asked_for = INTERVAL '25 hours', asked_at = now() - INTERVAL '1 hour'").await;
    let why = host.reason_of(backup).await;
    assert_eq!(why, "one was asked for its index for a day and did not send it; it says: its disk is not mounted");
    let shown = api::GetBackupRequest { backup: backup.to_string() };
    let shown = OperatorServiceClient::new(host.admin.clone()).get_backup(shown).await.unwrap().into_inner();
    assert_eq!((shown.searchable, shown.searchable_reason), (false, why));
    host.fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_whose_archive_is_damaged_is_given_up_when_its_host_says_so() {
    let mut host = Sender::start().await;
    let lost = host.back_up().await;
    host.excuse(lost, "the archive is damaged", true).await;
    assert_eq!(host.reason_of(lost).await, "the host cannot send its index: the archive is damaged");
    let next = host.back_up().await;
    host.send(next, block(&[entry(b"", Kind::Folder)])).await.unwrap();
    let searchable = || async { (host.backup(next).await.searchable == Searchable::Searchable).then_some(()) };
    wait_for("the next backup to be searchable", searchable).await;
    host.fleet.stop().await;
}
