//! One host has a great many files: how fast they become searchable, what they take, and how long a folder's listing at a time takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use coord_shared::api::agent_message::Message as ToCoordinator;
use coord_shared::api::coordinator_message::Message as FromCoordinator;
use coord_shared::api::finished::Result as Outcome;
use coord_shared::api::operator_service_client::OperatorServiceClient;
use coord_shared::api::run_order::Task;
use coord_shared::api::run_report::Event;
use coord_shared::api::{self, At, BackupResult, Finished, ListFilesRequest, RunReport, Started};
use jiff::Timestamp;
use tonic::transport::Channel;

use super::super::Options;
use super::super::agent::{Link, send_index};
use super::super::entries::{FILES_PER_FOLDER, Index, Tree, mixed};
use super::super::figures::Samples;
use super::super::ground::Ground;
use super::super::identity::Member;
use super::super::report::Figure;
use super::super::work::{checks, sealed};

const LEAST_ENTRIES_A_SECOND: f64 = 150_000.0;
const MOST_BYTES: f64 = 175.0;
const MOST_LISTING_MS: f64 = 20.0;
/// Folders listed at each time.
const LISTINGS: u64 = 200;
/// One file in so many has changed in the differential.
const ONE_IN: u64 = 100;
const HOST: &str = "large";
const POLICY: &str = "large";
/// When to give up an index.
const PATIENCE: Duration = Duration::from_secs(1200);
const SEED: u64 = 2025;

pub(super) async fn play(ground: &Ground, options: &Options) -> anyhow::Result<Vec<Figure>> {
    let token = ground.token(1, &["size=large"]).await?;
    let member = Member::join(ground.enrolment(), &token, HOST.to_owned()).await?;
    let toml = format!(
        "name = \"{POLICY}\"\nhosts = \"size=large\"\nsources = [\"/srv\"]\nschedule = {{ cron = \"0 0 1 1 *\", zone = \"UTC\" }}\n"
    );
    ground.apply_policy(&toml).await?;
    let mut host =
        LargeHost { ground, link: Link::open(&member, &ground.main()?, Vec::new()).await?, backups: Vec::new() };
    let tree = Tree { seed: SEED, files: options.files, turn: 0, one_in: 0 };
    let begun = Instant::now();
    let index = Arc::new(tokio::task::spawn_blocking(move || tree.full()).await?);
    eprintln!("   an index of {} entries, {} MiB, made in {:.1?}", index.entries, index.bytes >> 20, begun.elapsed());

    let mut figures = vec![Figure::told("entries of one host", index.entries as f64, "")];
    let first = host.back_up(&index, "full").await?;
    let rate = index.entries as f64 / first.total().as_secs_f64();
    figures.push(Figure::at_least("new entries taken into the catalog", rate, LEAST_ENTRIES_A_SECOND, "/s"));
    figures.push(Figure::told("of that, blocks received", first.received.as_secs_f64(), "s"));
    figures.push(Figure::told("of that, merged", first.merged.as_secs_f64(), "s"));
    let versions = ground.count("SELECT count(*) FROM file_versions").await?;
    figures.extend(sizes(ground, versions).await?);
    figures.push(digest_search(ground).await?);

    let again = host.back_up(&index, "full").await?;
    let added = ground.count("SELECT count(*) FROM file_versions").await? - versions;
    figures.push(Figure::exactly("versions that an unchanged full adds", added, 0));
    figures.push(Figure::told("an unchanged full is taken in after", again.total().as_secs_f64(), "s"));

    let changed = Tree { turn: 1, one_in: ONE_IN, ..tree };
    let differential = Arc::new(tokio::task::spawn_blocking(move || changed.differential()).await?);
    let third = host.back_up(&differential, "differential").await?;
    let what = format!("a differential of {} entries is taken in after", differential.entries);
    figures.push(Figure::told(what, third.total().as_secs_f64(), "s"));
    figures.extend(host.list(tree).await?);
    Ok(figures)
}

/// What a version takes, by where it goes.
async fn sizes(ground: &Ground, versions: u64) -> anyhow::Result<Vec<Figure>> {
    // Each by itself: several in one message are one transaction, in which nothing is vacuumed.
    for statement in ["VACUUM ANALYZE file_versions", "VACUUM ANALYZE folders", "CHECKPOINT"] {
        ground.catalog.batch_execute(statement).await?;
    }
    let relation = |name: &'static str| async move {
        let bytes = ground.count(&format!("SELECT pg_total_relation_size('{name}')")).await?;
        anyhow::Ok(bytes as f64 / versions as f64)
    };
    let heap = ground.count("SELECT pg_relation_size('file_versions')").await? as f64 / versions as f64;
    let (file_versions, folders) = (relation("file_versions").await?, relation("folders").await?);
    let mut figures = vec![
        Figure::at_most(
            "a version takes, with folders, keys and digest search",
            file_versions + folders,
            MOST_BYTES,
            "bytes",
        ),
        Figure::told("of that, the row", heap, "bytes"),
        Figure::told("of that, folders and their keys", folders, "bytes"),
    ];
    let sql = "SELECT indexrelname::text, pg_relation_size(indexrelid)::bigint FROM pg_stat_user_indexes
               WHERE relname = 'file_versions' ORDER BY 1";
    for row in ground.catalog.query(sql, &[]).await? {
        let (name, bytes): (String, i64) = (row.get(0), row.get(1));
        figures.push(Figure::told(format!("of that, {name}"), bytes as f64 / versions as f64, "bytes"));
    }
    Ok(figures)
}

/// How long it takes to find where a content is, as the catalog asks for it.
async fn digest_search(ground: &Ground) -> anyhow::Result<Figure> {
    let sql = "SELECT digest_head FROM file_versions WHERE kind = 'f' LIMIT 20";
    let heads: Vec<i64> = ground.catalog.query(sql, &[]).await?.iter().map(|row| row.get(0)).collect();
    ensure!(!heads.is_empty(), "no digest to look for");
    ground.catalog.batch_execute("SET enable_seqscan = off").await?;
    let mut samples = Samples::default();
    for head in heads {
        let begun = Instant::now();
        let found = ground.count(&format!("SELECT count(*) FROM file_versions WHERE digest_head = {head}")).await?;
        samples.add(begun.elapsed());
        ensure!(found > 0, "a content that is there was not found");
    }
    ground.catalog.batch_execute("RESET enable_seqscan").await?;
    Ok(Figure::told("a content is found by its digest within", samples.per_mille(990).as_secs_f64() * 1000.0, "ms"))
}

/// How long an index took.
struct Taken {
    /// From the first block to the acknowledgement of the last.
    received: Duration,
    /// From there until its entries could be listed.
    merged: Duration,
}

impl Taken {
    fn total(&self) -> Duration {
        self.received + self.merged
    }
}

struct LargeHost<'a> {
    ground: &'a Ground,
    link: Link,
    /// Between them, something changed.
    backups: Vec<Timestamp>,
}

impl LargeHost<'_> {
    /// Backs up, sends the index and waits until it is searchable.
    async fn back_up(&mut self, index: &Arc<Index>, level: &str) -> anyhow::Result<Taken> {
        let job = format!("{HOST}/{POLICY}");
        self.ground
            .with_fleet(|fleet| {
                fleet.coordctl(&["job", "run", &job, "--level", level, "--detach"])?.success().map(drop)
            })
            .await?;
        let order = loop {
            if let FromCoordinator::Run(order) = self.link.next().await? {
                break order;
            }
        };
        let Some(Task::Backup(task)) = &order.task else { bail!("an order that is no backup") };
        let mut sequence = 0;
        let began = Timestamp::now().as_microsecond();
        let mut report = |event| {
            sequence += 1;
            let report =
                RunReport { run_id: order.run_id.clone(), attempt: order.attempt, sequence, event: Some(event) };
            ToCoordinator::Report(report)
        };
        self.link.send(report(Event::Started(Started { started_at_us: began, from_plan: None }))).await?;
        let ended = Timestamp::now().as_microsecond();
        let sealed = sealed(task, (index.entries, index.blocks.len() as u64), index.entries, (began, ended));
        let result = BackupResult { sealed: Some(sealed), checks: checks(), verify_ms: 50, ..BackupResult::default() };
        let finished = Finished {
            outcome: api::Outcome::Succeeded.into(),
            finished_at_us: ended,
            result: Some(Outcome::Backup(result)),
            ..Finished::default()
        };
        self.link.send(report(Event::Finished(finished))).await?;
        while !matches!(self.link.next().await?, FromCoordinator::IndexWanted(wanted) if wanted.backup_id == task.backup_id)
        {
        }
        let begun = Instant::now();
        send_index(self.link.client.clone(), task.backup_id.clone(), Arc::clone(index)).await?;
        let received = begun.elapsed();
        let searchable = format!(
            "SELECT count(*) FROM backups WHERE backup_id = '{}' AND searchable = 'searchable'",
            task.backup_id
        );
        self.ground.wait_for_count(&searchable, 1, PATIENCE).await?;
        let merged = begun.elapsed() - received;
        eprintln!("   {level}: received in {received:.1?}, merged in {merged:.1?}");
        self.backups.push(Timestamp::from_microsecond(ended)?);
        Ok(Taken { received, merged })
    }

    /// Lists folders at the time of each backup.
    async fn list(&self, tree: Tree) -> anyhow::Result<Vec<Figure>> {
        let mut operator = self.ground.operator().await?;
        let mut figures = Vec::new();
        for (number, at) in self.backups.iter().enumerate() {
            let mut samples = Samples::default();
            for listing in 0..LISTINGS {
                let folder = tree.folder(mixed(number as u64, listing) % tree.folders().saturating_sub(1).max(1));
                let begun = Instant::now();
                let files = list(&mut operator, folder, *at).await?;
                samples.add(begun.elapsed());
                ensure!(files == FILES_PER_FOLDER, "a folder of {FILES_PER_FOLDER} files was listed with {files}");
            }
            let what = format!("a folder at the time of backup {}, of a hundred listings 99", number + 1);
            let milliseconds = samples.per_mille(990).as_secs_f64() * 1000.0;
            figures.push(Figure::at_most(what, milliseconds, MOST_LISTING_MS, "ms"));
        }
        Ok(figures)
    }
}

async fn list(operator: &mut OperatorServiceClient<Channel>, folder: Vec<u8>, at: Timestamp) -> anyhow::Result<u64> {
    let at = At { at: Some(api::at::At::InstantUs(at.as_microsecond())) };
    let request = ListFilesRequest { host: HOST.to_owned(), path: folder, at: Some(at), ..ListFilesRequest::default() };
    let mut batches = operator.list_files(request).await.context("listing a folder")?.into_inner();
    let mut files = 0;
    while let Some(batch) = batches.message().await? {
        files += batch.files.iter().filter(|file| file.kind == "file").count() as u64;
    }
    Ok(files)
}
