//! What is played with the simulated fleet: each scene asks one question of the coordinator and answers with figures.

mod beats;
mod catalog;
mod due;
mod idle;
mod reconnect;

use clap::ValueEnum;

use super::Options;
use super::crowd::Crowd;
use super::ground::Ground;
use super::report::Figure;

/// A scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scene {
    /// All are connected, and nothing happens.
    Idle,
    /// All are connected, some work and beat with progress.
    Beats,
    /// Many reconnect at once.
    Reconnect,
    /// Every host has a run that is due, spread over a minute; then all at one instant.
    Due,
    /// One host has a great many files.
    Catalog,
}

impl Scene {
    /// What it is about.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Idle => "everybody is connected and nothing happens",
            Self::Beats => "hosts work and beat with progress",
            Self::Reconnect => "many reconnect at once",
            Self::Due => "every host has a run due",
            Self::Catalog => "one host has a great many files",
        }
    }

    /// Whether it needs the crowd.
    #[must_use]
    pub fn has_a_crowd(self) -> bool {
        self != Self::Catalog
    }

    /// Plays it.
    ///
    /// # Errors
    /// It could not be played to its end.
    pub async fn play(self, ground: &Ground, crowd: Option<&Crowd>, options: &Options) -> anyhow::Result<Vec<Figure>> {
        match (self, crowd) {
            (Self::Idle, Some(crowd)) => idle::play(ground, crowd, options).await,
            (Self::Beats, Some(crowd)) => beats::play(ground, crowd, options).await,
            (Self::Reconnect, Some(crowd)) => reconnect::play(ground, crowd, options).await,
            (Self::Due, Some(crowd)) => due::play(ground, crowd).await,
            (Self::Catalog, _) => catalog::play(ground, options).await,
            (Self::Idle | Self::Beats | Self::Reconnect | Self::Due, None) => Ok(Vec::new()),
        }
    }
}
