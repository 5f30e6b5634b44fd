//! The life of runs against a small model of it, with a coordinator that loses its database between any two statements.
//!
//! Each story is a list of steps over two coordinators (`lifecycle/story`). A model in memory (`lifecycle/model`) says what each step
//! comes to and what it leaves. Where the connection was cut in a step, it came to everything or to nothing: the database tells which, and
//! what the caller was told must not contradict it. An error that says that nothing was written is believed only if nothing was.
//!
//! `FAULT_SEED` tells one story again, `FAULT_SEEDS` says how many there are (docs/FAULTS.md has the long form).

mod act;
mod model;
mod relay;
mod run;
mod seen;
mod stage;
mod story;

use std::fmt::Write as _;

use fleet_tests::faults::seed;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use act::{Act, Answer};
use relay::{Cut, Passed, Spot};
use seen::Lines;
use stage::{Stage, Told};
use story::{Loss, Step};

use crate::catalog::testing::with_config;

/// Stories of the short form.
const STORIES: u64 = 40;
/// Shorter stories that are tried to find why one fails.
const MOST_TRIES: usize = 200;

/// What was seen in all stories.
#[derive(Debug, Default)]
struct Figures {
    steps: u64,
    /// Cuts after which all of the step was there, and after which nothing was.
    done: u64,
    undone: u64,
    /// Steps that were there, and whose caller did not know.
    in_doubt: u64,
    /// Steps that found a connection closed that had been cut before.
    refused: u64,
    commits: u64,
    reaped: u64,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    ToAll,
    ToNothing,
}

/// What is known of a step before it is judged.
struct Deposition<'a> {
    act: &'a Act,
    expected: Answer,
    told: &'a Told,
    passed: Passed,
    /// The coordinator's connection was cut in its step before: it may not have seen yet that it is closed. Then it fails, having done
    /// nothing, and says so.
    was_cut: bool,
    before: Lines,
    after: Lines,
    seen: &'a Lines,
}

impl Deposition<'_> {
    /// What the step came to, or what is wrong with it.
    fn judge(&self) -> Result<Came, String> {
        let (all, nothing) = (*self.seen == self.after, *self.seen == self.before);
        let failed = |error| Err(format!("it failed: {error:?}"));
        match self.told {
            Told::Answer(answer) if *answer == self.expected && all => Ok(Came::ToAll),
            // A claim whose answer was lost is read again, and may have come to nothing.
            Told::Answer(Answer::Claimed(runs)) if runs.is_empty() && self.passed.cut && nothing => Ok(Came::ToNothing),
            Told::Answer(answer) => {
                let difference = self.instead_of(&self.after);
                Err(format!(
                    "it answered {answer:?} instead of {:?}, and the database has\n{difference}",
                    self.expected
                ))
            }
            Told::Nothing(error) | Told::Perhaps(error) if !self.passed.cut && !self.was_cut => failed(error),
            Told::Defect(error) => failed(error),
            Told::Nothing(_) | Told::Perhaps(_) if nothing => Ok(Came::ToNothing),
            Told::Perhaps(_) if all => Ok(Came::ToAll),
            Told::Perhaps(_) => Err(format!("of it, the database has only\n{}", self.instead_of(&self.after))),
            Told::Nothing(_) => Err(format!(
                "it said that nothing was written, and the database has\n{}",
                self.instead_of(&self.before)
            )),
        }
    }

    /// What the database has, and has not, instead of these.
    fn instead_of(&self, lines: &Lines) -> String {
        let has = self.seen.difference(lines).map(|line| format!("    {line}\n"));
        has.chain(lines.difference(self.seen).map(|line| format!("    not: {line}\n"))).collect()
    }
}

fn cut_of(loss: Option<Loss>, act: &Act) -> Option<Cut> {
    let Loss { place, side, stays_away } = loss?;
    let nth = |place: u8| Spot::Nth(1 + usize::from(place) * act.longest() / 256);
    Some(Cut { spot: place.map_or(Spot::Commit, nth), side, stays_away })
}

/// Tells a story. An error says what went wrong, after which steps.
async fn tell(stage: &mut Stage, story: &[Step], figures: &mut Figures) -> Result<(), String> {
    let mut model = stage.set().await;
    let mut was_cut = [false; 2];
    let mut told_so_far = String::new();
    for step in story {
        let Some(act) = model.resolve(step.deed) else { continue };
        let cut = cut_of(step.loss, &act);
        let before = seen::expected(&model);
        let mut after = model.clone();
        let expected = after.apply(&act);
        let (told, passed) = stage.perform(step.coordinator, &act, cut).await;
        let (seen, broken) = stage.look().await;
        let cut = cut.filter(|_| passed.cut);
        writeln!(told_so_far, "coordinator {}: {act:?}\n    cut: {cut:?}, told: {told:?}", step.coordinator).unwrap();
        if !broken.is_empty() {
            return Err(format!("{told_so_far}A rule is broken: {broken:#?}"));
        }
        let deposition = Deposition {
            act: &act,
            expected,
            told: &told,
            passed,
            was_cut: was_cut[step.coordinator],
            before,
            after: seen::expected(&after),
            seen: &seen,
        };
        let came = deposition.judge().map_err(|wrong| format!("{told_so_far}Wrong: {wrong}"))?;
        figures.count(&deposition, came);
        was_cut[step.coordinator] = passed.cut;
        if came == Came::ToAll {
            model = after;
        }
    }
    Ok(())
}

impl Figures {
    fn count(&mut self, deposition: &Deposition<'_>, came: Came) {
        self.steps += 1;
        let (told, changes) = (deposition.told, deposition.after != deposition.before);
        match (came, deposition.passed.cut) {
            (Came::ToAll, true) if changes => self.done += 1,
            (Came::ToNothing, true) if changes => self.undone += 1,
            (Came::ToNothing, false) => self.refused += 1,
            (Came::ToAll | Came::ToNothing, _) => {}
        }
        if matches!(told, Told::Perhaps(_)) && came == Came::ToAll && changes {
            self.in_doubt += 1;
        }
        if came == Came::ToAll && changes {
            self.commits += u64::from(matches!(deposition.act, Act::Commit { .. }));
            self.reaped += u64::from(matches!(deposition.act, Act::Reap));
        }
    }
}

/// The seeds of this run.
fn seeds() -> std::ops::Range<u64> {
    match seed::number(seed::VARIABLE) {
        Some(seed) => seed..seed + 1,
        None => 0..seed::number("FAULT_SEEDS").unwrap_or(STORIES),
    }
}

fn runner(seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

#[tokio::test]
async fn the_life_of_a_run_is_as_the_model_says_wherever_a_coordinator_loses_its_database() {
    with_config(async |config| {
        let (mut stage, mut figures) = (Stage::new(config).await, Figures::default());
        let seeds = seeds();
        let stories = seeds.end - seeds.start;
        for seed in seeds {
            println!("FAULT_SEED={seed}");
            let mut tree = story::story().new_tree(&mut runner(seed)).unwrap();
            let Err(mut wrong) = tell(&mut stage, &tree.current(), &mut figures).await else { continue };
            // The shortest story that goes wrong is the one to read.
            let mut goes_on = tree.simplify();
            for _ in 0..MOST_TRIES {
                if !goes_on {
                    break;
                }
                goes_on = match tell(&mut stage, &tree.current(), &mut Figures::default()).await {
                    Ok(()) => tree.complicate(),
                    Err(shorter) => {
                        wrong = shorter;
                        tree.simplify()
                    }
                };
            }
            panic!("the story of FAULT_SEED={seed} goes wrong, in short:\n{wrong}");
        }
        println!("{stories} stories: {figures:?}");
        if stories >= STORIES {
            // The stories go everywhere.
            let Figures { done, undone, in_doubt, commits, reaped, .. } = figures;
            let least = [done, undone, in_doubt, commits, reaped].into_iter().min().unwrap_or_default();
            assert!(least >= stories / 5, "{figures:?}");
        }
        stage.leave();
    })
    .await;
}
