//! `coordctl user list | disable`.

use clap::Subcommand;
use coord_shared::api::{self, DisableUserRequest, ListUsersRequest};
use coord_shared::fault::{ErrorCode, Fault};

use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Align::Left;
use crate::session::Session;
use crate::{json, shown};

/// Who may operate the fleet.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// List users with their roles.
    List,
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

/// Runs it.
pub async fn run(session: &mut Session, command: &UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::List => {
            let list = answer(session.client.list_users(request(ListUsersRequest {})).await)?.users;
            if session.out.is_json() {
                return session.out.json(&json::users(&list));
            }
            let columns =
                [("user", Left), ("role", Left), ("state", Left), ("since", Left), ("certificate ends", Left)];
            session.out.table(&columns, list.iter().map(row).collect(), "no users")
        }
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
