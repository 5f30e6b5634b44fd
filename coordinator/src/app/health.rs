//! Is this process alive, and is it of use? Alive: its duties turn; nothing outside of it can make it look dead, so that nobody restarts a
//! coordinator because its database is away. Ready: an agent or an operator that comes now is served.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::{App, chain};
use crate::catalog::SCHEMA_VERSION;
use crate::pulses::Pulses;

/// A catalog that takes longer to say which schema it has is of no use to those who wait.
const CATALOG_PATIENCE: Duration = Duration::from_secs(3);

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Whether it is as it should be.
    pub passed: bool,
    /// How it is.
    pub detail: String,
}

impl Check {
    fn passed(name: &str, detail: impl Into<String>) -> Check {
        Check { name: name.to_owned(), passed: true, detail: detail.into() }
    }

    fn failed(name: &str, detail: impl Into<String>) -> Check {
        Check { name: name.to_owned(), passed: false, detail: detail.into() }
    }
}

/// The health of a process, from before it serves to its end. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health {
    pulses: Pulses,
    app: Arc<OnceLock<Arc<App>>>,
}

impl Health {
    /// Of the process whose duties these are.
    pub fn new(pulses: Pulses) -> Health {
        Health { pulses, app: Arc::default() }
    }

    /// The process serves from now on.
    pub fn serves(&self, app: &Arc<App>) {
        // Only the composition root says so, and once.
        drop(self.app.set(Arc::clone(app)));
    }

    /// Whether every duty turned within its time.
    pub fn live(&self) -> Vec<Check> {
        let late = self.pulses.late();
        let mut checks: Vec<Check> = late
            .iter()
            .map(|late| {
                let detail = format!("did not turn for {} s; it has {} s", late.since.as_secs(), late.within.as_secs());
                Check::failed(late.name, detail)
            })
            .collect();
        let turn = |name: &&'static str| !late.iter().any(|late| *late.name == **name);
        checks.extend(self.pulses.names().iter().filter(|name| turn(name)).map(|name| Check::passed(name, "turns")));
        if self.app.get().is_none() {
            checks.push(Check::passed("start", "waiting for the catalog"));
        }
        checks
    }

    /// Whether agents and operators are served.
    pub async fn ready(&self) -> Vec<Check> {
        let Some(app) = self.app.get() else {
            return vec![Check::failed("catalog", "not reached since the start: is Postgres running?")];
        };
        let mut checks = catalog(app).await;
        checks.push(certificate(app));
        checks.push(match app.draining.why() {
            None => Check::passed("draining", "no"),
            Some(why) => Check::failed("draining", why),
        });
        checks
    }
}

async fn catalog(app: &App) -> Vec<Check> {
    let asked = Instant::now();
    let schema = match tokio::time::timeout(CATALOG_PATIENCE, app.catalog.schema()).await {
        Ok(Ok(schema)) => schema,
        Ok(Err(error)) => return vec![Check::failed("catalog", chain(&error))],
        Err(_) => {
            let detail = format!("no answer within {} s", CATALOG_PATIENCE.as_secs());
            return vec![Check::failed("catalog", detail)];
        }
    };
    let fits = schema.compatible_from <= SCHEMA_VERSION && schema.version >= SCHEMA_VERSION;
    let detail = format!(
        "version {}, for programs from {} on; this one is of {SCHEMA_VERSION}",
        schema.version, schema.compatible_from
    );
    vec![
        Check::passed("catalog", format!("answered in {} ms", asked.elapsed().as_millis())),
        Check { name: "schema".to_owned(), passed: fits, detail },
    ]
}

fn certificate(app: &App) -> Check {
    let ends = *app.certificate_ends.borrow();
    let detail = format!("ends {ends}");
    Check { name: "certificate".to_owned(), passed: ends > app.clock.now(), detail }
}
