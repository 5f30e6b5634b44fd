//! `coordctl token create | list | revoke`.

use std::cmp::Reverse;
use std::collections::HashMap;

use clap::{Args, Subcommand, ValueEnum};
use coord_shared::api::{self, CreateTokenRequest, ListTokensRequest, RevokeTokenRequest};
use coord_shared::duration;
use serde_json::json;

use super::listing::{DEFAULT_LIMIT, bounds, cut};
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
    List(ListArgs),
    /// Make a token useless.
    Revoke {
        /// Id, or a unique beginning of it.
        id: String,
        /// Say what would be revoked, revoke nothing.
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
}

/// What to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Made at or after this time.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Made before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// At most so many, the first in order; 0: all.
    #[arg(long, default_value_t = DEFAULT_LIMIT)]
    limit: usize,
    /// In this order.
    #[arg(long, default_value = "made")]
    sort: TokenOrder,
}

/// Orders of a list of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenOrder {
    /// The newest first.
    Made,
    /// What ends next first.
    Ends,
    /// By state, then the newest first.
    State,
}

impl TokenOrder {
    fn sort(self, list: &mut [api::Token]) {
        match self {
            TokenOrder::Made => list.sort_by_key(|token| Reverse(token.created_at_us)),
            TokenOrder::Ends => list.sort_by_key(|token| token.expires_at_us),
            TokenOrder::State => list.sort_by(|a, b| (&a.state, b.created_at_us).cmp(&(&b.state, a.created_at_us))),
        }
    }
}

async fn list(session: &mut Session, args: &ListArgs) -> Result<(), Failure> {
    let bounds = bounds(session, args.since.as_deref(), args.until.as_deref())?;
    let mut list = answer(session.client.list_tokens(request(ListTokensRequest {})).await)?.tokens;
    list.retain(|token| bounds.hold(token.created_at_us));
    args.sort.sort(&mut list);
    cut(&session.out, &mut list, args.limit);
    if session.out.is_json() { session.out.json(&form::tokens(&list)) } else { table(&session.out, &list) }
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
        TokenCommand::List(args) => list(session, args).await,
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
