//! `cargo fleet-sim`: thousands of agents in one process, against a real coordinator on a real Postgres, over real mutual TLS and the
//! real protocol. Only what a host does by itself is made up: its scan, its archive and the time that they take.
//!
//! What is measured is measured from outside: at the agents, in the catalog's own timestamps and in `/proc`. Each figure stands beside
//! what is required of it, and the command fails when one is missed.

pub mod agent;
pub mod crowd;
pub mod entries;
pub mod figures;
pub mod gauge;
pub mod ground;
pub mod identity;
pub mod report;
pub mod scene;
pub mod work;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use self::crowd::Crowd;
use self::ground::Ground;
use self::report::Report;
use self::scene::Scene;

/// Worker threads of the simulated hosts.
const WORKERS: usize = 2;

/// What to simulate.
#[derive(Clone, Debug, Parser)]
#[command(name = "fleet-sim", about = "Thousands of simulated agents against one real coordinator")]
pub struct Options {
    /// How many agents. The requirements are for 10,000; with fewer, what is required of memory and of runs shrinks alike.
    #[arg(long, default_value_t = 10_000)]
    pub agents: usize,
    /// How many of them reconnect at once.
    #[arg(long, default_value_t = 2_000)]
    pub reconnecting: usize,
    /// How many files the large host has.
    #[arg(long, default_value_t = 10_000_000)]
    pub files: u64,
    /// How long the fleet is watched while it is idle, and while it works, in seconds.
    #[arg(long, default_value_t = 60)]
    pub watch_s: u64,
    /// Only these scenes, in the order of the list.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Scene>,
    /// Seed of everything that is random.
    #[arg(long)]
    pub seed: Option<u64>,
}

impl Options {
    /// The scenes to play.
    #[must_use]
    pub fn scenes(&self) -> Vec<Scene> {
        let all = Scene::value_variants().iter().copied();
        all.filter(|scene| self.only.is_empty() || self.only.contains(scene)).collect()
    }
}

/// Plays the scenes and prints what they came to. Fails when a figure is missed or a scene could not be played.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    let played = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(play(options)));
    match played {
        Ok(report) => {
            println!("{report}");
            if report.is_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("fleet-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn play(options: &Options) -> anyhow::Result<Report> {
    let seed = options.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    eprintln!("seed {seed}");
    let ground = Ground::start().await?;
    let mut report = Report::new(options, seed);
    let scenes = options.scenes();
    let crowded = scenes.iter().any(|scene| scene.has_a_crowd());
    let mut crowd = if crowded { Some(Crowd::gather(&ground, options.agents, seed).await?) } else { None };
    for (number, scene) in scenes.iter().enumerate() {
        // Whom no later scene needs takes no processor from it.
        if !scenes.iter().skip(number).any(|scene| scene.has_a_crowd())
            && let Some(crowd) = crowd.take()
        {
            crowd.leave().await;
        }
        eprintln!("== {}", scene.title());
        report.add(scene.play(&ground, crowd.as_ref(), options).await?);
    }
    if let Some(crowd) = crowd {
        crowd.leave().await;
    }
    ground.stop().await?;
    Ok(report)
}
