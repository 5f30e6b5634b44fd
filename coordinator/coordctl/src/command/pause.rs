//! `coordctl fleet pause | resume`, and what those of hosts, policies and jobs share with it.

use clap::{Args, Subcommand};
use coord_shared::api::{
    self, EndPauseRequest, GetHostRequest, GetJobRequest, GetPolicyRequest, ListPausesRequest, SetPauseRequest,
};
use coord_shared::fault::{ErrorCode, Fault};

use crate::at::At;
use crate::client::{answer, request};
use crate::failure::Failure;
use crate::session::Session;
use crate::{json, shown};

/// The fleet as a whole.
#[derive(Debug, Subcommand)]
pub enum FleetCommand {
    /// Let no backup and no verification of the fleet begin, until a time or until it is resumed.
    ///
    /// What comes due meanwhile is missed with the pause as its reason, and made up for afterwards as each policy says (catch_up). What is
    /// going on goes on, what waits begins afterwards, and restores begin as ever. A fleet that is paused already is paused anew.
    Pause {
        #[command(flatten)]
        pause: PauseArgs,
    },
    /// End a pause of the fleet before its time. Hosts, policies and jobs that are paused themselves stay so.
    Resume {
        /// Say what would change, change nothing.
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
}

/// How long, and why.
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// Until this time, which is ahead (coordctl help time); without it, until it is resumed.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Why. Every run that is missed says so.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Say what would change, change nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// What is paused.
#[derive(Debug)]
pub enum Paused {
    /// Everything.
    Fleet,
    /// A host.
    Host(String),
    /// A policy.
    Policy(String),
    /// A host's policy.
    Job(String, String),
}

impl Paused {
    /// Host and policy, as the coordinator is asked.
    fn names(&self) -> (String, String) {
        match self {
            Paused::Fleet => (String::new(), String::new()),
            Paused::Host(host) => (host.clone(), String::new()),
            Paused::Policy(policy) => (String::new(), policy.clone()),
            Paused::Job(host, policy) => (host.clone(), policy.clone()),
        }
    }

    /// The pause of just this that is in force, if there is one. What does not exist is an error.
    async fn now(&self, session: &mut Session) -> Result<(Paused, Option<api::Pause>), Failure> {
        let known = match self {
            Paused::Fleet => Paused::Fleet,
            Paused::Host(host) => {
                let message = GetHostRequest { host: host.clone() };
                Paused::Host(answer(session.client.get_host(request(message)).await)?.name)
            }
            Paused::Policy(policy) => {
                let message = GetPolicyRequest { policy: policy.clone(), host: String::new() };
                Paused::Policy(answer(session.client.get_policy(request(message)).await)?.name)
            }
            Paused::Job(host, policy) => {
                let message = GetJobRequest { host: host.clone(), policy: policy.clone() };
                let job = answer(session.client.get_job(request(message)).await)?;
                Paused::Job(job.host, job.policy)
            }
        };
        let list = answer(session.client.list_pauses(request(ListPausesRequest {})).await)?.pauses;
        let names = known.names();
        let pause = list.into_iter().find(|pause| (&pause.host, &pause.policy) == (&names.0, &names.1));
        Ok((known, pause))
    }
}

/// Runs it.
pub async fn run(session: &mut Session, command: &FleetCommand) -> Result<(), Failure> {
    match command {
        FleetCommand::Pause { pause: args } => pause(session, &Paused::Fleet, args).await,
        FleetCommand::Resume { dry_run } => resume(session, &Paused::Fleet, *dry_run).await,
    }
}

/// Pauses something.
pub async fn pause(session: &mut Session, paused: &Paused, args: &PauseArgs) -> Result<(), Failure> {
    let until_us = match &args.until {
        None => 0,
        Some(text) => until(session, text)?,
    };
    let (known, before) = paused.now(session).await?;
    let (host, policy) = known.names();
    let would_be = api::Pause { host, policy, until_us, reason: args.reason.clone(), ..api::Pause::default() };
    let before = before.map_or_else(String::new, |pause| format!("; now {}", sentence(&pause)));
    let what = format!("pause {}{before}", sentence(&would_be));
    if args.dry_run {
        return session.out.dry_run(&what);
    }
    match known {
        Paused::Fleet | Paused::Policy(_) => session.moderate(&what, "")?,
        Paused::Host(_) | Paused::Job(_, _) => session.change(&what)?,
    }
    let message = SetPauseRequest {
        host: would_be.host,
        policy: would_be.policy,
        until_us,
        reason: would_be.reason,
        fleet: matches!(paused, Paused::Fleet),
    };
    let pause = answer(session.client.set_pause(request(message)).await)?;
    session.out.talk(&format!("paused: {}", sentence(&pause)));
    session.out.talk(&format!("next: {} ends it", resuming(&pause)));
    if session.out.is_json() { session.out.json(&json::pause(&pause)) } else { Ok(()) }
}

/// Ends a pause.
pub async fn resume(session: &mut Session, paused: &Paused, dry_run: bool) -> Result<(), Failure> {
    let (known, before) = paused.now(session).await?;
    let (host, policy) = known.names();
    let what = match before {
        Some(pause) => format!("resume {}", sentence(&pause)),
        None if dry_run => {
            let what = thing(&api::Pause { host, policy, ..api::Pause::default() });
            let fault = Fault::new(ErrorCode::NotNow, format!("{what} is not paused itself"));
            return Err(Failure::Fault(fault.with_hint("coordctl status says what is")));
        }
        // The coordinator says so.
        None => "resume what is not paused".to_owned(),
    };
    if dry_run {
        return session.out.dry_run(&what);
    }
    session.change(&what)?;
    let pause = answer(
        session
            .client
            .end_pause(request(EndPauseRequest { host, policy, fleet: matches!(paused, Paused::Fleet) }))
            .await,
    )?;
    session.out.talk(&format!("{} is resumed", thing(&pause)));
    session.out.talk("next: coordctl schedule --days 1");
    if session.out.is_json() { session.out.json(&json::pause(&pause)) } else { Ok(()) }
}

fn until(session: &Session, text: &str) -> Result<i64, Failure> {
    match session.at(Some(text))? {
        At::Instant(instant) => Ok(instant.as_microsecond()),
        At::Latest | At::Before(_) => {
            Err(Failure::usage(format!("{text:?} is no end of a pause"), "--until '2026-11-29 06:00'"))
        }
    }
}

fn thing(pause: &api::Pause) -> String {
    match (pause.host.as_str(), pause.policy.as_str()) {
        ("", "") => "the fleet".to_owned(),
        (host, "") => format!("host {host}"),
        ("", policy) => format!("policy {policy}"),
        (host, policy) => format!("job {host}/{policy}"),
    }
}

fn resuming(pause: &api::Pause) -> String {
    match (pause.host.as_str(), pause.policy.as_str()) {
        ("", "") => "coordctl fleet resume".to_owned(),
        (host, "") => format!("coordctl host resume {host}"),
        ("", policy) => format!("coordctl policy resume {policy}"),
        (host, policy) => format!("coordctl job resume {host}/{policy}"),
    }
}

/// A pause in one line.
pub fn sentence(pause: &api::Pause) -> String {
    let until = match pause.until_us {
        0 => "until it is resumed".to_owned(),
        us => format!("until {}", shown::instant(us)),
    };
    let by = if pause.by.is_empty() { String::new() } else { format!(", by {}", pause.by) };
    format!("{} {until}{by}: {}", thing(pause), pause.reason)
}

/// All that hold something back; empty: nothing does.
pub fn told(pauses: &[api::Pause]) -> String {
    pauses.iter().map(sentence).collect::<Vec<String>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::{resuming, sentence, told};
    use coord_shared::api::Pause;

    #[test]
    fn a_pause_says_what_is_paused_until_when_and_why_and_how_it_ends() {
        let pause = Pause { host: "web-1".into(), reason: "new disks".into(), by: "ada".into(), ..Pause::default() };
        assert_eq!(sentence(&pause), "host web-1 until it is resumed, by ada: new disks");
        assert_eq!(resuming(&pause), "coordctl host resume web-1");
        let job = Pause { policy: "web".into(), until_us: 1_700_000_000_000_000, ..pause.clone() };
        assert!(sentence(&job).starts_with("job web-1/web until 2023-11-1"), "{}", sentence(&job));
        assert_eq!(resuming(&Pause::default()), "coordctl fleet resume");
        assert_eq!(told(&[pause.clone(), pause]).matches("new disks").count(), 2);
    }
}
