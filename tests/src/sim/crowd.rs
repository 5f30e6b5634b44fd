//! The simulated agents together: joined, connected, cut off, counted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use coord_shared::api::RunOrder;
use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinHandle, JoinSet};

use super::agent::Agent;
use super::entries::mixed;
use super::figures::Samples;
use super::ground::Ground;
use super::identity::Member;
use super::work::Temper;

/// Joins under way at once.
const JOINS_AT_ONCE: usize = 32;
/// How long the whole crowd may take to connect for the first time.
const GATHERING: Duration = Duration::from_secs(600);
/// How often something is looked at that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Hosts that join with one token, and have its label `batch`.
pub const BATCH: usize = 1000;
/// How a host's runs go unless a scene says otherwise.
const TEMPER: Temper = Temper { takes: Duration::from_secs(2), failing: 0 };

/// What all agents have in common, and where they note what they see.
pub struct Shared {
    endpoint: Mutex<String>,
    temper: Mutex<Temper>,
    /// Sessions whose Hello was answered and that are not over.
    pub connected: AtomicUsize,
    /// Sessions whose Hello was answered, in all.
    pub greeted: AtomicU64,
    notes_beats: AtomicBool,
    beats: Mutex<Beats>,
    /// When each attempt was ordered, by run and attempt, each time it was.
    orders: Mutex<HashMap<(String, u32), Vec<Timestamp>>>,
    faults: Mutex<HashMap<String, u64>>,
}

impl Shared {
    fn new(endpoint: String) -> Arc<Self> {
        Arc::new(Self {
            endpoint: Mutex::new(endpoint),
            temper: Mutex::new(TEMPER),
            connected: AtomicUsize::new(0),
            greeted: AtomicU64::new(0),
            notes_beats: AtomicBool::new(false),
            beats: Mutex::default(),
            orders: Mutex::default(),
            faults: Mutex::default(),
        })
    }

    /// Where to connect.
    #[must_use]
    pub fn endpoint(&self) -> String {
        locked(&self.endpoint, |endpoint| endpoint.clone())
    }

    /// How runs go now.
    #[must_use]
    pub fn temper(&self) -> Temper {
        locked(&self.temper, |temper| *temper)
    }

    /// A heartbeat was answered after so long, with progress or of a host that does nothing.
    pub fn beat(&self, after: Duration, progress: bool) {
        if self.notes_beats.load(Ordering::Relaxed) {
            locked(&self.beats, |beats| {
                beats.all.add(after);
                if progress {
                    beats.with_progress.add(after);
                }
            });
        }
    }

    /// An attempt was ordered.
    pub fn ordered(&self, order: &RunOrder) {
        let key = (order.run_id.clone(), order.attempt);
        locked(&self.orders, |orders| orders.entry(key).or_default().push(Timestamp::now()));
    }

    /// Something went wrong at an agent.
    pub fn note(&self, error: &anyhow::Error) {
        locked(&self.faults, |faults| *faults.entry(format!("{error:#}")).or_default() += 1);
    }
}

/// How long heartbeats took.
#[derive(Debug, Default)]
pub struct Beats {
    /// All of them.
    pub all: Samples,
    /// Those of hosts that work.
    pub with_progress: Samples,
}

fn locked<T, R>(lock: &Mutex<T>, act: impl FnOnce(&mut T) -> R) -> R {
    act(&mut lock.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The crowd.
pub struct Crowd {
    /// What its agents share.
    pub shared: Arc<Shared>,
    cuts: Vec<Arc<Notify>>,
    tasks: Vec<JoinHandle<()>>,
    /// How long it took to join, all of them.
    pub joined_in: Duration,
}

impl Crowd {
    /// Joins so many hosts and waits until all of their agents are connected.
    ///
    /// # Errors
    /// A host cannot join, or not all are connected in time.
    pub async fn gather(ground: &Ground, agents: usize, seed: u64) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let members = join(ground, agents).await?;
        let joined_in = begun.elapsed();
        eprintln!("{agents} hosts joined in {joined_in:.1?}");
        let shared = Shared::new(ground.main()?);
        let mut crowd = Self { shared, cuts: Vec::new(), tasks: Vec::new(), joined_in };
        for (number, member) in members.into_iter().enumerate() {
            let cut = Arc::new(Notify::new());
            let agent = Agent::new(member, Arc::clone(&crowd.shared), Arc::clone(&cut), mixed(seed, number as u64));
            crowd.cuts.push(cut);
            crowd.tasks.push(tokio::spawn(agent.live()));
        }
        let connected_in = crowd.wait_until_connected(GATHERING).await?;
        eprintln!("{agents} agents connected in {connected_in:.1?}");
        Ok(crowd)
    }

    /// How many agents there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.tasks.len()
    }

    /// Waits until every agent has a session. Answers how long that took.
    ///
    /// # Errors
    /// Some have none after `patience`; what they saw is in the error.
    pub async fn wait_until_connected(&self, patience: Duration) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        while self.shared.connected.load(Ordering::Relaxed) < self.size() {
            if begun.elapsed() >= patience {
                let connected = self.shared.connected.load(Ordering::Relaxed);
                bail!("{connected} of {} agents are connected after {patience:?}; {}", self.size(), self.faults());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(begun.elapsed())
    }

    /// Waits until so many sessions have been greeted in all. Answers how long that took.
    ///
    /// # Errors
    /// They were not after `patience`.
    pub async fn wait_until_greeted(&self, wanted: u64, patience: Duration) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        while self.shared.greeted.load(Ordering::Relaxed) < wanted {
            let greeted = self.shared.greeted.load(Ordering::Relaxed);
            ensure!(begun.elapsed() < patience, "{greeted} of {wanted} sessions after {patience:?}; {}", self.faults());
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(begun.elapsed())
    }

    /// Breaks the connections of the first `count` agents.
    pub fn cut(&self, count: usize) {
        self.cuts.iter().take(count).for_each(|cut| cut.notify_one());
    }

    /// Where a new coordinator listens.
    pub fn moves_to(&self, endpoint: String) {
        locked(&self.shared.endpoint, |known| *known = endpoint);
    }

    /// How runs go from now on.
    pub fn set_temper(&self, temper: Temper) {
        locked(&self.shared.temper, |known| *known = temper);
    }

    /// Notes how long heartbeats take, from now on.
    pub fn note_beats(&self) {
        locked(&self.shared.beats, |beats| *beats = Beats::default());
        self.shared.notes_beats.store(true, Ordering::Relaxed);
    }

    /// What was noted since.
    #[must_use]
    pub fn beats(&self) -> Beats {
        self.shared.notes_beats.store(false, Ordering::Relaxed);
        locked(&self.shared.beats, std::mem::take)
    }

    /// The orders that were received since the last time that this was asked.
    #[must_use]
    pub fn orders(&self) -> HashMap<(String, u32), Vec<Timestamp>> {
        locked(&self.shared.orders, std::mem::take)
    }

    /// What went wrong at agents, and how often: the most frequent first.
    #[must_use]
    pub fn faults(&self) -> String {
        let mut faults: Vec<(String, u64)> = locked(&self.shared.faults, std::mem::take).into_iter().collect();
        faults.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
        let said: Vec<String> = faults.iter().take(5).map(|(what, count)| format!("{count} times {what}")).collect();
        if said.is_empty() { "no agent saw a fault".to_owned() } else { said.join("; ") }
    }

    /// Ends every agent.
    pub async fn leave(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        for task in self.tasks {
            // Aborted, as it was asked to be.
            let _aborted = task.await;
        }
    }
}

async fn join(ground: &Ground, agents: usize) -> anyhow::Result<Vec<Member>> {
    let mut tokens = Vec::new();
    for batch in 0..agents.div_ceil(BATCH) {
        tokens.push(ground.token(BATCH, &["crowd=yes", &format!("batch={batch}")]).await?);
    }
    let slots = Arc::new(Semaphore::new(JOINS_AT_ONCE));
    let mut joins = JoinSet::new();
    for number in 0..agents {
        let (slots, endpoint) = (Arc::clone(&slots), ground.enrolment().to_owned());
        let token = tokens[number / BATCH].clone();
        joins.spawn(async move {
            let _slot = slots.acquire_owned().await?;
            Member::join(&endpoint, &token, format!("sim-{number:05}")).await
        });
    }
    let mut members = Vec::with_capacity(agents);
    while let Some(joined) = joins.join_next().await {
        members.push(joined??);
    }
    Ok(members)
}
