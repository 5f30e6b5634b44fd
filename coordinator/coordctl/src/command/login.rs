//! `coordctl login`: redeems an operator's token and writes the context.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use coord_shared::token::Token;

use crate::client;
use crate::context::{Choice, ContextEntry, Locked, Pems};
use crate::failure::Failure;
use crate::output::Output;

/// Longest token file, in bytes.
const MAX_TOKEN_BYTES: u64 = 4096;

/// Logs in with a token from `coordinator operator-token` or `coordctl token create --kind operator`.
///
/// --endpoint names the enrolment listener; the coordinator says where its main listener is.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// File with the token; - reads standard input.
    #[arg(long, value_name = "FILE", env = "COORDCTL_TOKEN_FILE", hide_env_values = true)]
    token_file: PathBuf,
    /// The context to write.
    #[arg(long, default_value = "default", value_name = "NAME")]
    name: String,
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
    let (key, csr_pem) = client::new_key()?;
    let joined = client::redeem(enrol, &token, csr_pem).await?;
    let path = choice.path()?;
    let locked = Locked::wait(&path)?;
    let protected = locked.entry(&args.name)?.is_some_and(|before| before.protected);
    let entry = ContextEntry {
        endpoints: joined.endpoints.clone(),
        enrol_endpoints: vec![enrol.clone()],
        protected,
        ..ContextEntry::default()
    };
    locked.save(&args.name, &entry, &Pems { ca: &joined.ca_pem, certificate: &joined.certificate_pem, key: &key })?;
    out.talk(&format!(
        "logged in to fleet {} as {}; context {} in {}",
        joined.fleet,
        joined.name,
        args.name,
        path.display()
    ));
    out.talk("next: coordctl status");
    Ok(())
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
