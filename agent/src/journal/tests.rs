//! The journal against crashes at every byte, flipped bits, and its own compaction.

#![expect(clippy::unwrap_used, reason = "tests")]

use coord_shared::api::{self, run_report};
use proptest::prelude::*;

use super::*;

fn order(run: &str) -> Body {
    Body::Accepted(api::RunOrder { run_id: run.into(), attempt: 1, ..Default::default() })
}

fn report(run: &str, sequence: u64, event: run_report::Event) -> Body {
    Body::Reported(api::RunReport { run_id: run.into(), attempt: 1, sequence, event: Some(event) })
}

fn story() -> Vec<Body> {
    let location = api::ArchiveLocation { backup_id: "b1".into(), key: "web-1/srv/x".into(), ..Default::default() };
    let sealed = api::Sealed { backup_id: "b1".into(), location: Some(location.clone()), ..Default::default() };
    vec![
        order("r1"),
        report("r1", 1, run_report::Event::Started(api::Started { started_at_us: 7, ..Default::default() })),
        Body::Ordinal(api::JobOrdinal { policy_id: "p1".into(), ordinal: 3 }),
        report("r1", 2, run_report::Event::Sealed(sealed)),
        Body::Acknowledged(Acknowledged { run_id: "r1".into(), attempt: 1, sequence: 1 }),
        Body::Backup(RememberedBackup {
            policy_id: "p1".into(),
            location: Some(location),
            index_unsent: true,
            ..Default::default()
        }),
        report("r1", 3, run_report::Event::Finished(api::Finished { warnings_total: 2, ..Default::default() })),
        order("r2"),
        Body::Acknowledged(Acknowledged { run_id: "r1".into(), attempt: 1, sequence: 3 }),
        Body::Closed(Closed { run_id: "r2".into(), attempt: 1 }),
        Body::Forgotten(Forgotten { backup_id: "b1".into(), archive_gone: false }),
    ]
}

fn memories(bodies: &[Body]) -> Vec<Memory> {
    let mut memory = Memory::default();
    let mut all = vec![memory.clone()];
    for body in bodies {
        memory.apply(&Record { body: Some(body.clone()) });
        all.push(memory.clone());
    }
    all
}

#[test]
fn what_was_appended_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(folder.path()).unwrap();
    for body in story() {
        journal.append(body).unwrap();
    }
    let before = journal.memory().clone();
    drop(journal);
    let (journal, recovery) = Journal::open(folder.path()).unwrap();
    assert_eq!(*journal.memory(), before);
    assert_eq!(recovery, Recovery { records: story().len() as u64, cut_bytes: 0 });
    let held = journal.memory().attempt(&AttemptKey::new("r1", 1)).unwrap();
    assert_eq!((held.sequence, held.unacknowledged.len()), (3, 1));
    assert!(held.sealed.is_some() && held.finished.is_some());
}

#[test]
fn a_crash_at_any_byte_keeps_every_record_before_it_and_the_journal_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(folder.path()).unwrap();
    let mut ends = vec![journal.segment.length()];
    for body in story() {
        journal.append(body).unwrap();
        ends.push(journal.segment.length());
    }
    let states = memories(&story());
    let whole = std::fs::read(folder.path().join("00000001.log")).unwrap();
    for cut in usize::try_from(ends[0]).unwrap()..=whole.len() {
        let torn = tempfile::tempdir().unwrap();
        std::fs::write(torn.path().join("00000001.log"), &whole[..cut]).unwrap();
        let survivors = ends.iter().filter(|end| **end <= cut as u64).count() - 1;
        let (mut journal, recovery) = Journal::open(torn.path()).unwrap();
        assert_eq!(*journal.memory(), states[survivors], "cut at {cut}");
        assert_eq!(recovery.records, survivors as u64);
        journal.append(order("r9")).unwrap();
        drop(journal);
        let (journal, recovery) = Journal::open(torn.path()).unwrap();
        assert_eq!(recovery.cut_bytes, 0, "cut at {cut}");
        assert!(journal.memory().attempt(&AttemptKey::new("r9", 1)).is_some());
    }
}

#[test]
fn a_flipped_bit_never_invents_a_record() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(folder.path()).unwrap();
    for body in story() {
        journal.append(body).unwrap();
    }
    let states = memories(&story());
    let whole = std::fs::read(folder.path().join("00000001.log")).unwrap();
    for at in 8..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let torn = tempfile::tempdir().unwrap();
        std::fs::write(torn.path().join("00000001.log"), &bytes).unwrap();
        let (journal, recovery) = Journal::open(torn.path()).unwrap();
        assert!(recovery.cut_bytes > 0, "byte {at}");
        assert_eq!(*journal.memory(), states[usize::try_from(recovery.records).unwrap()], "byte {at}");
    }
}

#[test]
fn a_zeroed_tail_is_no_row_of_records() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(folder.path()).unwrap();
    journal.append(order("r1")).unwrap();
    let path = folder.path().join("00000001.log");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend([0; 4096]);
    std::fs::write(&path, bytes).unwrap();
    let (_, recovery) = Journal::open(folder.path()).unwrap();
    assert_eq!(recovery, Recovery { records: 1, cut_bytes: 4096 });
}

#[test]
fn compaction_forgets_nothing_that_counts() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(folder.path()).unwrap();
    for body in story() {
        journal.append(body).unwrap();
    }
    let notes = vec![api::PathNote { path: vec![7; 2000], ..Default::default() }; 50];
    for sequence in 4..40 {
        let warnings = api::Warnings { notes: notes.clone() };
        journal.append(report("r1", sequence, run_report::Event::Warnings(warnings))).unwrap();
        journal.append(Body::Acknowledged(Acknowledged { run_id: "r1".into(), attempt: 1, sequence })).unwrap();
    }
    assert!(journal.segment.length() < COMPACT_BYTES, "it was compacted");
    let before = journal.memory().clone();
    drop(journal);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the old segment is gone");
    let (journal, _) = Journal::open(folder.path()).unwrap();
    assert_eq!(*journal.memory(), before);
    assert_eq!(journal.memory().attempt(&AttemptKey::new("r1", 1)).unwrap().sequence, 39);
}

#[test]
fn a_foreign_file_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("00000001.log"), b"something else").unwrap();
    assert!(matches!(Journal::open(folder.path()), Err(SegmentError::Foreign { .. })));
    assert_eq!(std::fs::read(folder.path().join("00000001.log")).unwrap(), b"something else");
}

proptest! {
    #[test]
    fn the_compact_records_give_the_same_memory(picks in proptest::collection::vec(0usize..11, 0..60)) {
        let story = story();
        let mut memory = Memory::default();
        for pick in picks {
            memory.apply(&Record { body: Some(story[pick].clone()) });
        }
        let mut again = Memory::default();
        for record in memory.records() {
            again.apply(&record);
        }
        prop_assert_eq!(again, memory);
    }
}
