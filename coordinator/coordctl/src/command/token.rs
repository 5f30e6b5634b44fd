//! `coordctl token create | list | revoke`.

use std::collections::HashMap;

use clap::{Args, Subcommand, ValueEnum};
use coord_shared::api::{self, CreateTokenRequest, ListTokensRequest, RevokeTokenRequest};
use coord_shared::duration;
use serde_json::json;

use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Align::{Left, Right};
use crate::output::Output;
use crate::session::Session;
use crate::{json as form, shown};

/// Single-use secrets with which hosts and operators join.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make one; it is shown once.
    Create(CreateArgs),
    /// List tokens, never their secrets.
    List,
    /// Make a token useless.
    Revoke {
        /// Id, or a unique beginning of it.
        id: String,
        /// Say what would be revoked, revoke nothing.
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
}

/// What the token is good for.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Who joins with it.
    #[arg(long, default_value = "agent")]
    kind: KindWord,
    /// A label for hosts that join with it; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// How long it lives.
    #[arg(long, default_value = "1h", value_name = "DURATION")]
    ttl: String,
    /// How often it may be used.
    #[arg(long, default_value_t = 1)]
    uses: u32,
    /// The name that the host must take.
    #[arg(long, default_value = "")]
    host: String,
    /// For operators: the user's name.
    #[arg(long, default_value = "")]
    user: String,
    /// For operators: the role.
    #[arg(long, default_value = "", value_parser = ["", "viewer", "restorer", "operator", "admin"])]
    role: String,
    /// Say what would be made, make nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Kinds of peers that join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KindWord {
    /// A host's agent.
    Agent,
    /// A person or script.
    Operator,
}

/// Runs it.
pub async fn run(session: &mut Session, command: &TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::Create(args) => create(session, args).await,
        TokenCommand::List => {
            let list = answer(session.client.list_tokens(request(ListTokensRequest {})).await)?.tokens;
            if session.out.is_json() {
                return session.out.json(&form::tokens(&list));
            }
            table(&session.out, &list)
        }
        TokenCommand::Revoke { id, dry_run } => {
            let what = format!("revoke token {id}");
            if *dry_run {
                let list = answer(session.client.list_tokens(request(ListTokensRequest {})).await)?.tokens;
                let found =
                    list.iter().filter(|token| token.id.starts_with(id.as_str())).map(|token| row(token).join(" "));
                let found = found.collect::<Vec<_>>().join("; ");
                return session
                    .out
                    .dry_run(&format!("{what}: {}", if found.is_empty() { "there is none" } else { &found }));
            }
            session.change(&what)?;
            let token = answer(session.client.revoke_token(request(RevokeTokenRequest { id: id.clone() })).await)?;
            session.out.talk(&format!("token {} is {}", shown::short(&token.id), token.state));
            if session.out.is_json() { session.out.json(&form::token(&token)) } else { Ok(()) }
        }
    }
}

async fn create(session: &mut Session, args: &CreateArgs) -> Result<(), Failure> {
    let ttl = duration::parse(&args.ttl).and_then(|ttl| u32::try_from(ttl.as_secs()).ok());
    let ttl_s = ttl.ok_or_else(|| Failure::usage(format!("{:?} is no duration", args.ttl), "write 30m, 1h or 2d"))?;
    let mut labels = HashMap::new();
    for label in &args.labels {
        let (key, value) = label
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("{label:?} is no label"), "write --label KEY=VALUE"))?;
        labels.insert(key.to_owned(), value.to_owned());
    }
    let kind = match args.kind {
        KindWord::Agent => "agent",
        KindWord::Operator => "operator",
    };
    let who = if args.user.is_empty() { &args.host } else { &args.user };
    let what = format!("a token with which {kind} {who} joins, good for {} use(s) within {}", args.uses, args.ttl);
    if args.dry_run {
        return session.out.dry_run(&what);
    }
    session.change(&what)?;
    let message = CreateTokenRequest {
        kind: kind.to_owned(),
        ttl_s,
        uses: args.uses,
        labels,
        user: args.user.clone(),
        role: args.role.clone(),
        host: args.host.clone(),
    };
    let created = answer(session.client.create_token(request(message)).await)?;
    if session.out.is_json() {
        let token = created.token.as_ref().map(form::token);
        return session.out.json(&json!({
            "token": token,
            "secret_line": created.secret_line,
            "join_command": created.join_command,
        }));
    }
    session.out.print(&format!("{}\n", created.secret_line))?;
    session.out.talk(&format!("good for {} use(s) within {}; next, on the machine that joins:", args.uses, args.ttl));
    session.out.talk(&format!("  {}", created.join_command));
    Ok(())
}

/// The table of tokens.
pub fn table(out: &Output, list: &[api::Token]) -> Result<(), Failure> {
    let columns = [("token", Left), ("for", Left), ("state", Left), ("uses left", Right), ("ends", Left), ("by", Left)];
    let more = [("made", Left), ("labels", Left), ("id", Left)];
    let wide = |token: &api::Token| {
        let mut labels: Vec<String> = token.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        labels.sort();
        let more = [shown::instant(token.created_at_us), labels.join(","), token.id.clone()];
        row(token).into_iter().chain(more).collect()
    };
    out.wide_table(&columns, &more, list.iter().map(wide).collect(), "no tokens; coordctl token create makes one")
}

fn row(t: &api::Token) -> Vec<String> {
    vec![
        shown::short(&t.id).to_owned(),
        t.kind.clone(),
        t.state.clone(),
        t.uses_left.to_string(),
        shown::instant(t.expires_at_us),
        t.created_by.clone(),
    ]
}
