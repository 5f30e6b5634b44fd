//! `coordctl login | logout | whoami`: as whom the coordinator is asked. Login redeems an operator's token and writes the context.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use coord_shared::api::{GetVersionRequest, ListUsersRequest};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::tls::PeerIdentity;
use coord_shared::token::Token;
use coord_shared::wire;
use serde_json::json;

use crate::client::{self, answer, request};
use crate::context::{Choice, Context, ContextEntry, Locked, Pems, read_config};
use crate::failure::Failure;
use crate::output::Output;
use crate::session::{Answers, Place, Session};
use crate::shown;

/// Longest token file, in bytes.
const MAX_TOKEN_BYTES: u64 = 4096;
/// The context of somebody who has one.
const DEFAULT_CONTEXT: &str = "default";

/// Logs in with a token from `coordinator operator-token` or `coordctl token create --kind operator`.
///
/// --endpoint names the enrolment listener; the coordinator says where its main listener is.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// File with the token; - reads standard input.
    #[arg(long, value_name = "FILE", env = "COORDCTL_TOKEN_FILE", hide_env_values = true)]
    token_file: PathBuf,
    /// The context to write; without it that of --context or COORDCTL_CONTEXT, else default.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Say what would be written, redeem no token.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Of what.
#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// The context; without it that of --context or COORDCTL_CONTEXT, else the current one.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Say what would be removed, remove nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Runs it.
pub async fn run(args: &LoginArgs, choice: &Choice, out: Output) -> Result<(), Failure> {
    let Some(enrol) = &choice.endpoint else {
        return Err(Failure::usage(
            "no coordinator is named",
            "add --endpoint HOST:PORT, the enrolment listener (7444 by default)",
        ));
    };
    let token = read_token(&args.token_file)?;
    let token: Token = token.trim().parse().map_err(|error| {
        Failure::usage(
            format!("{} holds no token: {error}", args.token_file.display()),
            "coordinator operator-token prints one",
        )
    })?;
    let path = choice.path()?;
    let name = args.name.as_deref().or(choice.context.as_deref()).unwrap_or(DEFAULT_CONTEXT);
    if args.dry_run {
        let config = path.display();
        return out.dry_run(&format!("redeem the token {} at {enrol}, and write context {name} to {config}", token.id));
    }
    let (key, csr_pem) = client::new_key()?;
    let joined = client::redeem(enrol, &token, csr_pem).await?;
    let locked = Locked::wait(&path)?;
    let protected = locked.entry(name)?.is_some_and(|before| before.protected);
    let entry = ContextEntry {
        endpoints: joined.endpoints.clone(),
        enrol_endpoints: vec![enrol.clone()],
        protected,
        ..ContextEntry::default()
    };
    locked.save(name, &entry, &Pems { ca: &joined.ca_pem, certificate: &joined.certificate_pem, key: &key })?;
    out.talk(&format!("logged in to fleet {} as {}; context {name} in {}", joined.fleet, joined.name, path.display()));
    if locked.config()?.current == name {
        out.talk("next: coordctl status");
    } else {
        out.talk(&format!("next: coordctl context use {name}, or --context {name}"));
    }
    Ok(())
}

/// Runs `logout`.
pub fn logout(args: &LogoutArgs, choice: &Choice, answers: Answers, out: &Output) -> Result<(), Failure> {
    let path = choice.path()?;
    let config = read_config(&path)?;
    let name = args.name.as_deref().or(choice.context.as_deref()).unwrap_or(&config.current);
    let entry = config.get(name, &path)?;
    if entry.is_logged_out() {
        out.talk(&format!("context {name} is logged out already"));
        return Ok(());
    }
    let what = format!("remove certificate and key of context {name}: only a token of an admin logs in again");
    if args.dry_run {
        return out.dry_run(&what);
    }
    answers.moderate(Place { context: name, protected: entry.protected }, &what, "")?;
    Locked::wait(&path)?.forget_credentials(name)?;
    out.talk(&format!("logged out: context {name} has no certificate and no key any more"));
    out.talk(&format!("next: coordctl login --name {name} --token-file - --endpoint HOST:PORT"));
    Ok(())
}

/// Runs `whoami`: who the coordinator takes the caller for, and what they may do.
pub async fn whoami(session: &mut Session, context: &Context) -> Result<(), Failure> {
    let version = answer(session.client.get_version(request(GetVersionRequest {})).await)?;
    let users = answer(session.client.list_users(request(ListUsersRequest {})).await)?.users;
    let who = PeerIdentity::from_pem(&context.certificate_pem)
        .map_err(|error| Failure::configuration(error.to_string(), "coordctl login writes a new one"))?;
    let user = users.into_iter().find(|user| user.name == who.id).ok_or_else(|| {
        let fault = Fault::new(ErrorCode::NotFound, format!("fleet {} has no user {}", version.fleet, who.id));
        Failure::Fault(fault.with_hint("coordctl user list"))
    })?;
    if session.out.is_json() {
        return session.out.json(&json!({
            "name": user.name,
            "role": user.role,
            "fleet": version.fleet,
            "context": context.name,
            "endpoints": context.entry.endpoints,
            "certificate_not_after": who.not_after.to_string(),
        }));
    }
    session.out.facts(&[
        ("user", user.name),
        ("role", user.role),
        ("fleet", version.fleet),
        ("context", context.name.clone()),
        ("endpoints", context.entry.endpoints.join(", ")),
        ("certificate ends", shown::instant(wire::to_us(who.not_after))),
    ])
}

fn read_token(path: &PathBuf) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().take(MAX_TOKEN_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_TOKEN_BYTES).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display()), ""))?;
    Ok(text)
}
