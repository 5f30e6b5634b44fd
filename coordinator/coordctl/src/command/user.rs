//! `coordctl user list | disable`.

use std::cmp::Reverse;

use clap::{Args, Subcommand, ValueEnum};
use coord_shared::api::{self, DisableUserRequest, ListUsersRequest};
use coord_shared::fault::{ErrorCode, Fault};

use super::listing::{DEFAULT_LIMIT, bounds, cut};
use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Align::Left;
use crate::session::Session;
use crate::{json, shown};

/// Who may operate the fleet.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// List users with their roles.
    List(ListArgs),
    /// Put a user out for good.
    ///
    /// Their certificates count for nothing from the next call on, nor do tokens that were made for them or by them. Their name is not
    /// given again.
    Disable {
        /// Name.
        user: String,
        /// The user's name, instead of typing it.
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
        /// Say what would change, change nothing.
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
}

/// What to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// There since this time or later.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// There since before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// At most so many, the first in order; 0: all.
    #[arg(long, default_value_t = DEFAULT_LIMIT)]
    limit: usize,
    /// In this order.
    #[arg(long, default_value = "name")]
    sort: UserOrder,
}

/// Orders of a list of users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UserOrder {
    /// By name.
    Name,
    /// By role, then name.
    Role,
    /// The newest first.
    Since,
    /// Whose certificate ends next first; those without one last.
    Ends,
}

impl UserOrder {
    fn sort(self, list: &mut [api::User]) {
        match self {
            UserOrder::Name => list.sort_by(|a, b| a.name.cmp(&b.name)),
            UserOrder::Role => list.sort_by(|a, b| (&a.role, &a.name).cmp(&(&b.role, &b.name))),
            UserOrder::Since => list.sort_by_key(|user| Reverse(user.created_at_us)),
            UserOrder::Ends => {
                list.sort_by_key(|user| (user.certificate_not_after_us == 0, user.certificate_not_after_us));
            }
        }
    }
}

async fn list(session: &mut Session, args: &ListArgs) -> Result<(), Failure> {
    let bounds = bounds(session, args.since.as_deref(), args.until.as_deref())?;
    let mut list = answer(session.client.list_users(request(ListUsersRequest {})).await)?.users;
    list.retain(|user| bounds.hold(user.created_at_us));
    args.sort.sort(&mut list);
    cut(&session.out, &mut list, args.limit);
    if session.out.is_json() {
        return session.out.json(&json::users(&list));
    }
    let columns = [("user", Left), ("role", Left), ("state", Left), ("since", Left), ("certificate ends", Left)];
    session.out.table(&columns, list.iter().map(row).collect(), "no users")
}

/// Runs it.
pub async fn run(session: &mut Session, command: &UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::List(args) => list(session, args).await,
        UserCommand::Disable { user, confirm, dry_run } => {
            let list = answer(session.client.list_users(request(ListUsersRequest {})).await)?.users;
            let found = list.iter().find(|found| found.name == *user).ok_or_else(|| {
                let fault = Fault::new(ErrorCode::NotFound, format!("there is no user {user}"));
                Failure::Fault(fault.with_hint("coordctl user list shows them"))
            })?;
            let what = format!(
                "{user} ({}, {}) is put out for good: their certificates end, and tokens made for them or by them",
                found.role, found.state
            );
            if *dry_run {
                return session.out.dry_run(&what);
            }
            session.confirm(user, confirm.as_deref(), &what)?;
            let message = DisableUserRequest { user: user.clone() };
            let found = answer(session.client.disable_user(request(message)).await)?;
            session.out.talk(&format!("{} ({}) is {}", found.name, found.role, found.state));
            session.out.talk("next: coordctl user list");
            if session.out.is_json() { session.out.json(&json::user(&found)) } else { Ok(()) }
        }
    }
}

fn row(user: &api::User) -> Vec<String> {
    vec![
        user.name.clone(),
        user.role.clone(),
        user.state.clone(),
        shown::instant(user.created_at_us),
        shown::instant(user.certificate_not_after_us),
    ]
}
