//! The fleet as it should be, kept in memory: two hosts of one job each, with runs, promises, keys and backups. It knows nothing of SQL.

use std::collections::{BTreeMap, BTreeSet};

use coord_shared::ids::{BackupId, HostId, JobId, RunId};
use coord_shared::level::Level;
use coord_shared::run::{Disposition, RunKind, RunState};
use uuid::Uuid;

use super::act::{Act, Answer, Message};
use super::run::{Fate, LEASE, Place, RETRY, Run, Try};
use super::story::{Brought, Deed, Pick, Saying, Sender, Which};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backup {
    pub(super) id: BackupId,
    pub(super) run: RunId,
    pub(super) attempt: u32,
    pub(super) job: usize,
    pub(super) ordinal: i64,
    pub(super) level: Level,
}

/// The fleet as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) hosts: [HostId; 2],
    pub(super) jobs: [JobId; 2],
    pub(super) sessions: [u64; 2],
    pub(super) due: [Option<u8>; 2],
    pub(super) ordinals: [i64; 2],
    pub(super) runs: BTreeMap<RunId, Run>,
    pub(super) promised: BTreeMap<(usize, u8), RunId>,
    pub(super) keys: BTreeMap<(usize, u8), RunId>,
    pub(super) backups: Vec<Backup>,
    ids: u128,
}

impl Model {
    /// Two hosts of one job each, connected for the first time.
    pub(super) fn new(hosts: [HostId; 2], jobs: [JobId; 2]) -> Model {
        Model {
            hosts,
            jobs,
            sessions: [1; 2],
            due: [None; 2],
            ordinals: [0; 2],
            runs: BTreeMap::new(),
            promised: BTreeMap::new(),
            keys: BTreeMap::new(),
            backups: Vec::new(),
            ids: 0,
        }
    }

    /// The deed, about what is there. `None`: there is nothing that it could be about.
    pub(super) fn resolve(&mut self, deed: Deed) -> Option<Act> {
        self.ids += 1;
        let run = RunId::from_uuid(Uuid::from_u128(self.ids));
        Some(match deed {
            Deed::Ask { job, kind } => Act::Ask { run, job, kind },
            Deed::AskOnce { job, key, full } => Act::AskOnce { run, job, key, level: full.then_some(Level::Full) },
            Deed::Promise { job, instant } => Act::Promise { run, job, instant },
            Deed::Due { job, instant, next, stale, missed, together } => {
                let seen = if stale { Some(next + 100) } else { self.due[job] };
                Act::Due { run, job, seen, instant, next, missed, together }
            }
            Deed::Claim { hosts, old_session } => {
                let older = u64::from(old_session);
                let chosen = (0..2).filter(|host| hosts[*host]);
                Act::Claim { sessions: chosen.map(|host| (host, self.sessions[host] - older)).collect() }
            }
            Deed::Hold { sender, finished } => Act::Hold { message: self.message(sender)?, finished },
            Deed::Beat { sender } => Act::Beat { message: self.message(sender)? },
            Deed::Keep { sender } => {
                let Message { run, attempt, .. } = self.message(sender)?;
                Act::Keep { run, attempt }
            }
            Deed::Report { sender, saying } => Act::Report { message: self.message(sender)?, saying },
            Deed::Commit { sender, brought } => self.commit_of(self.message(sender)?, brought),
            Deed::Cancel { run } => Act::Cancel { run: self.pick(run, false)? },
            Deed::Retry { run } => Act::Retry { run: self.pick(run, false)? },
            Deed::Reap => Act::Reap,
            Deed::Connect { host, stale } => Act::Connect { host, seen: self.sessions[host] - u64::from(stale) },
            Deed::Pass { half_hours } => Act::Pass { half_hours },
        })
    }

    /// A run that has a row, or one that its host may have begun before it has one.
    fn pick(&self, pick: Pick, promised: bool) -> Option<RunId> {
        let promised = self.promised.values().filter(|run| promised && !self.runs.contains_key(run));
        let all: Vec<RunId> = self.runs.keys().chain(promised).copied().collect();
        let is_open = |run: &&RunId| self.runs.get(*run).is_none_or(Run::is_open);
        let open: Vec<RunId> = all.iter().filter(is_open).copied().collect();
        let runs = if pick.open && !open.is_empty() { open } else { all };
        (!runs.is_empty()).then(|| runs[usize::from(pick.nth) % runs.len()])
    }

    fn job_of(&self, run: RunId) -> usize {
        let promised = || self.promised.iter().find(|(_, id)| **id == run).map(|((job, _), _)| *job);
        self.runs.get(&run).map(|run| run.job).or_else(promised).unwrap()
    }

    fn message(&self, sender: Sender) -> Option<Message> {
        let run = self.pick(sender.run, true)?;
        let own = self.job_of(run);
        let host = if sender.stranger { 1 - own } else { own };
        let newest = self.runs.get(&run).map_or(0, Run::newest);
        let attempt = match sender.which {
            Which::Newest => newest.max(1),
            Which::Older => newest.saturating_sub(1),
            Which::Next => newest + 1,
        };
        let said = self
            .runs
            .get(&run)
            .and_then(|run| run.reports.iter().filter(|(of, _)| *of == attempt).map(|(_, sequence)| *sequence).max());
        let sequence = said.map_or(1, |said| said + u64::from(!sender.again));
        Some(Message { host, session: self.sessions[host] - u64::from(sender.old_session), run, attempt, sequence })
    }

    fn commit_of(&self, message: Message, brought: Brought) -> Act {
        let job = self.job_of(message.run);
        let name = (message.run.uuid().as_u128() << 16) | u128::from(message.attempt << 1);
        let used = brought.used_ordinal && self.ordinals[job] > 0;
        let newest = self.backups.iter().rfind(|backup| backup.job == job).map(|backup| backup.id);
        Act::Commit {
            message,
            backup: BackupId::from_uuid(Uuid::from_u128(name | u128::from(brought.other))),
            ordinal: self.ordinals[job].cast_unsigned() + u64::from(!used),
            same_as: newest.filter(|_| brought.unchanged),
        }
    }

    /// Does it, and answers as the catalog should.
    pub(super) fn apply(&mut self, act: &Act) -> Answer {
        match act {
            Act::Ask { run, job, kind } => self.ask(*run, *job, *kind),
            Act::AskOnce { run, job, key, level } => self.ask_once(*run, *job, *key, *level),
            Act::Promise { run, job, instant } => {
                if !self.has_run(*job, *instant) {
                    self.promised.entry((*job, *instant)).or_insert(*run);
                }
                Answer::Promised(self.promised.get(&(*job, *instant)).copied())
            }
            Act::Due { run, job, seen, instant, next, missed, together: _ } => {
                if *seen != self.due[*job] {
                    return Answer::Changed;
                }
                self.due[*job] = Some(*next);
                Answer::Scheduled(self.insert_due(*run, (*job, *instant), *missed).into_iter().collect())
            }
            Act::Claim { sessions } => self.claim(sessions),
            Act::Hold { message, finished } => Answer::Disposed(self.hold(message, *finished)),
            Act::Beat { message } => self.beat(message),
            Act::Keep { run, attempt } => {
                let run = self.runs.get_mut(run).filter(|run| run.newest() == *attempt);
                if let Some(Place::Held(RunState::Leased, left, _)) = run.map(|run| &mut run.place) {
                    *left = LEASE;
                }
                Answer::Passed
            }
            Act::Report { message, saying } => self.whole(|model| model.report(message, *saying)),
            Act::Commit { message, backup, ordinal, same_as } => {
                let level = if same_as.is_some() { Level::Differential } else { Level::Full };
                self.whole(|model| model.commit(message, *backup, (ordinal.cast_signed(), level)))
            }
            Act::Cancel { run } => self.cancel(*run),
            Act::Retry { run } => match &mut self.run(*run).place {
                Place::Waits(wait) if *wait > 0 => {
                    *wait = 0;
                    Answer::Hurried(true)
                }
                Place::Waits(_) | Place::Held(..) | Place::Over(_) => Answer::Hurried(false),
            },
            Act::Reap => self.reap(),
            Act::Connect { host, seen } => {
                if *seen != self.sessions[*host] {
                    return Answer::Changed;
                }
                self.sessions[*host] += 1;
                self.hears_of(*host);
                Answer::Opened(self.sessions[*host])
            }
            Act::Pass { half_hours } => {
                let passed = i32::from(*half_hours);
                for run in self.runs.values_mut() {
                    match &mut run.place {
                        Place::Waits(left) => *left = (*left - passed).max(0),
                        Place::Held(_, left, _) => *left -= passed,
                        Place::Over(_) => {}
                    }
                }
                Answer::Passed
            }
        }
    }

    /// All of it or nothing.
    fn whole(&mut self, act: impl FnOnce(&mut Model) -> Result<Answer, Answer>) -> Answer {
        let mut after = self.clone();
        match act(&mut after) {
            Ok(answer) => {
                *self = after;
                answer
            }
            Err(answer) => answer,
        }
    }

    fn run(&mut self, id: RunId) -> &mut Run {
        self.runs.get_mut(&id).unwrap()
    }

    fn open_backup(&self, job: usize) -> Option<RunId> {
        let is_open = |run: &Run| run.kind == RunKind::Backup && run.job == job && run.is_open();
        self.runs.iter().find(|(_, run)| is_open(run)).map(|(id, _)| *id)
    }

    fn has_run(&self, job: usize, instant: u8) -> bool {
        self.runs.values().any(|run| run.job == job && run.instant == Some(instant))
    }

    fn ask(&mut self, id: RunId, job: usize, kind: RunKind) -> Answer {
        if kind == RunKind::Backup && self.open_backup(job).is_some() {
            return Answer::Occupied;
        }
        self.runs.insert(id, Run::new(kind, job, None, Place::Waits(0)));
        Answer::New(id)
    }

    fn ask_once(&mut self, id: RunId, job: usize, key: Option<u8>, level: Option<Level>) -> Answer {
        if let Some(known) = key.and_then(|key| self.keys.get(&(job, key))) {
            return Answer::Known(*known);
        }
        let open = self.open_backup(job);
        if let Some(open) = open.filter(|open| level.is_some() && self.runs[open].level != level) {
            return Answer::Other(open);
        }
        let run = open.unwrap_or(id);
        if open.is_none() {
            self.runs.insert(id, Run { level, ..Run::new(RunKind::Backup, job, None, Place::Waits(0)) });
        }
        if let Some(key) = key {
            self.keys.insert((job, key), run);
        }
        if open.is_some() { Answer::Open(run) } else { Answer::New(run) }
    }

    /// The run of an instant, unless it has one.
    fn insert_due(&mut self, id: RunId, (job, instant): (usize, u8), missed: bool) -> Option<(RunId, RunState)> {
        if self.has_run(job, instant) {
            return None;
        }
        let id = self.promised.get(&(job, instant)).copied().unwrap_or(id);
        let is_missed = missed || self.open_backup(job).is_some();
        let place = if is_missed { Place::Over(RunState::Missed) } else { Place::Waits(0) };
        let run = Run::new(RunKind::Backup, job, Some(instant), place);
        let state = run.shown().state;
        self.runs.insert(id, run);
        Some((id, state))
    }

    fn claim(&mut self, sessions: &[(usize, u64)]) -> Answer {
        let mut claimed = BTreeSet::new();
        for (host, session) in sessions.iter().filter(|(host, session)| self.sessions[*host] == *session) {
            if self.runs.values().any(|run| run.job == *host && run.waits_for_its_host()) {
                continue;
            }
            for (id, run) in self.runs.iter_mut().filter(|(_, run)| run.job == *host && run.place == Place::Waits(0)) {
                run.tries.push(Try { session: *session, begun: false, fate: Fate::GoesOn });
                run.place = Place::Held(RunState::Leased, LEASE, *session);
                claimed.insert((*id, run.newest(), self.hosts[*host]));
            }
        }
        Answer::Claimed(claimed)
    }

    /// A promised run gets its row when its host tells of it.
    fn adopt(&mut self, id: RunId, host: usize) {
        let promise = self.promised.iter().find(|(_, run)| **run == id).map(|(instant, _)| *instant);
        let Some(instant) = promise.filter(|(job, _)| *job == host) else { return };
        if self.insert_due(id, instant, false).is_some() {
            self.run(id).level = Some(Level::Full);
        }
    }

    /// The host's run.
    fn of_host(&mut self, id: RunId, host: usize) -> Option<&mut Run> {
        self.runs.get_mut(&id).filter(|run| run.job == host)
    }

    /// Extends the lease of what is simply held. Answers whether it is to be cancelled.
    fn extend(&mut self, message: &Message) -> Option<bool> {
        let is_newest = self.sessions[message.host] == message.session;
        let run = self.of_host(message.run, message.host).filter(|_| is_newest)?;
        let Place::Held(_, left, session) = &mut run.place else { return None };
        if u32::try_from(run.tries.len()).unwrap() != message.attempt {
            return None;
        }
        (*left, *session) = (LEASE, message.session);
        Some(run.cancelling)
    }

    fn hold(&mut self, message: &Message, finished: bool) -> Disposition {
        match self.extend(message) {
            Some(_) if finished => return Disposition::Report,
            Some(true) => return Disposition::Abort,
            Some(false) => return Disposition::Continue,
            None => {}
        }
        self.adopt(message.run, message.host);
        let Some(run) = self.of_host(message.run, message.host) else {
            return if finished { Disposition::Forget } else { Disposition::Abort };
        };
        let disposition = run.disposition(message.attempt, finished);
        let is_queued = matches!(run.place, Place::Waits(_));
        if disposition == Disposition::Continue || (disposition == Disposition::Report && is_queued) {
            run.work(message.attempt, message.session, None).unwrap();
        }
        disposition
    }

    fn hears_of(&mut self, host: usize) {
        self.runs.values_mut().filter(|run| run.job == host).for_each(|run| run.unheard = false);
    }

    fn beat(&mut self, message: &Message) -> Answer {
        let is_newest = self.sessions[message.host] == message.session;
        if is_newest {
            self.hears_of(message.host);
        }
        Answer::Beaten(is_newest, self.extend(message))
    }

    fn report(&mut self, message: &Message, saying: Saying) -> Result<Answer, Answer> {
        let Message { host, session, run: id, attempt, sequence } = *message;
        self.adopt(id, host);
        let run = self.of_host(id, host).ok_or(Answer::NotFound)?;
        if !run.reports.insert((attempt, sequence)) {
            return Err(Answer::Repeated(run.shown()));
        }
        let taken = match saying {
            Saying::Started | Saying::StartedByPlan => run.work(attempt, session, Some(RunState::Running)),
            Saying::Sealed => run.work(attempt, session, Some(RunState::Verifying)),
            Saying::Scanned | Saying::Warned => run.work(attempt, session, None),
            Saying::Succeeded if run.kind == RunKind::Backup => return Err(Answer::Impossible),
            Saying::Succeeded if run.place == Place::Over(RunState::Succeeded) && run.newest() == attempt => Ok(()),
            Saying::Succeeded => run.succeed(attempt, session),
            Saying::Failed { retryable, waits } => {
                let wait = if waits { RETRY } else { 0 };
                run.fail(attempt, session, (Fate::Failed, retryable.then_some(wait)))
            }
            Saying::Stopped => run.fail(attempt, session, (Fate::Stopped, Some(0))),
        };
        taken.map_err(|_| Answer::Refused)?;
        if saying == Saying::Warned {
            run.notes.insert((attempt, sequence));
        }
        Ok(Answer::Taken(run.shown()))
    }

    fn commit(
        &mut self,
        message: &Message,
        backup: BackupId,
        (ordinal, level): (i64, Level),
    ) -> Result<Answer, Answer> {
        let Message { host, session, run: id, attempt, sequence } = *message;
        self.adopt(id, host);
        let stored = self.backups.iter().find(|backup| backup.run == id).cloned();
        let occupied = self.backups.iter().any(|backup| backup.job == host && backup.ordinal == ordinal);
        let run = self.of_host(id, host).filter(|run| run.kind == RunKind::Backup).ok_or(Answer::NotFound)?;
        if let Some(stored) = stored.filter(|stored| stored.attempt == attempt) {
            let is_same = stored.id == backup;
            return Err(if is_same { Answer::AlreadyThere(stored.ordinal) } else { Answer::OtherBackup(stored.id) });
        }
        run.succeed(attempt, session).map_err(|_| Answer::Refused)?;
        if occupied {
            return Err(Answer::Occupied);
        }
        run.reports.insert((attempt, sequence));
        (run.backup, run.level) = (Some(backup), Some(level));
        self.ordinals[host] = self.ordinals[host].max(ordinal);
        self.backups.push(Backup { id: backup, run: id, attempt, job: host, ordinal, level });
        Ok(Answer::Committed(ordinal))
    }

    fn cancel(&mut self, id: RunId) -> Answer {
        let run = self.run(id);
        let before = run.shown();
        match &mut run.place {
            Place::Waits(_) => run.place = Place::Over(RunState::Cancelled),
            Place::Held(_, left, _) => {
                *left = (*left).max(0);
                run.cancelling = true;
            }
            Place::Over(RunState::Cancelled) => {}
            Place::Over(_) => return Answer::Refused,
        }
        let after = run.shown();
        if after == before { Answer::Unchanged(after) } else { Answer::Updated(after) }
    }

    fn reap(&mut self) -> Answer {
        let mut reaped = BTreeSet::new();
        for (id, run) in &mut self.runs {
            if matches!(run.place, Place::Held(_, left, _) if left <= 0) {
                run.tries.last_mut().unwrap().fate = Fate::Lapsed;
                run.give_up(Some(0));
                run.unheard = true;
                reaped.insert((*id, run.newest(), run.shown().state));
            }
        }
        Answer::Reaped(reaped)
    }
}
