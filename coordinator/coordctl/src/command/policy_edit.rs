//! `coordctl policy edit`: the text of a policy in the operator's editor, and back. What is applied is what was begun from: a version that
//! came meanwhile is not overwritten. Whatever goes wrong, the text that was written stays, and its place is said.

use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use coord_shared::api::{self, GetPolicyRequest, LintPolicyRequest, PolicyFile, PolicyFiles};
use coord_shared::fault::{ErrorCode, Fault};

use super::policy::{read, refuse_findings, say};
use super::policy_change::{all_told, applied, differs, name, only_news, planned, warn};
use crate::client::{answer, request};
use crate::failure::Failure;
use crate::session::{Session, is_yes};
use crate::{complete, completer};

/// What to edit.
#[derive(Debug, Args)]
pub struct EditArgs {
    /// The policy's name.
    #[arg(add = completer(complete::policies))]
    policy: String,
    /// Say what the edited text would change, change nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Runs it.
pub async fn run(session: &mut Session, args: &EditArgs) -> Result<(), Failure> {
    may_ask(session, args)?;
    let editor = editor()?;
    let message = GetPolicyRequest { policy: args.policy.clone(), host: String::new() };
    let policy = answer(session.client.get_policy(request(message)).await)?;
    let draft = Draft::new(&policy)?;
    match edit(session, args, &policy, &draft, &editor).await {
        Ok(()) => draft.remove(),
        Err(failure) => Err(draft.kept(failure, &policy)),
    }
}

/// An editor is there for somebody; and what was written must not fail for want of an answer that could have been given before.
fn may_ask(session: &Session, args: &EditArgs) -> Result<(), Failure> {
    let instead = "coordctl policy show, then coordctl policy apply -f FILE";
    if session.no_input {
        return Err(Failure::usage("--no-input opens no editor", instead));
    }
    if args.dry_run || session.yes || io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::usage("there is no terminal to ask whether to apply the text", format!("--yes; or {instead}")))
}

async fn edit(
    session: &mut Session,
    args: &EditArgs,
    policy: &api::Policy,
    draft: &Draft,
    editor: &str,
) -> Result<(), Failure> {
    let toml = loop {
        open(editor, &draft.path).await?;
        let toml = read(&draft.path)?;
        if toml == policy.toml {
            session.out.talk("the text is as it was: nothing was changed");
            return Ok(());
        }
        let lint = answer(session.client.lint_policy(request(LintPolicyRequest { toml: toml.clone() })).await)?;
        if lint.errors.is_empty() {
            break toml;
        }
        if !again(session, &lint)? {
            return refuse_findings(session, &lint);
        }
    };
    let path = draft.path.display().to_string();
    let files = vec![PolicyFile { path, toml, if_version: policy.version }];
    let files = PolicyFiles { files, ..PolicyFiles::default() };
    let told = answer(session.client.diff_policies(request(files.clone())).await)?;
    same_name(&told, policy)?;
    if args.dry_run {
        return applied(session, &told, true, " (dry run: nothing was changed)");
    }
    warn(session, &told.policies);
    let what = format!("policy {} becomes what the text says", policy.name);
    if differs(&told) {
        session.moderate(&what, &planned(&told))?
    } else {
        session.change(&what)?
    }
    let files = PolicyFiles { plan_digest: told.plan_digest.clone(), ..files };
    let mut done = answer(session.client.apply_policies(request(files)).await)?;
    only_news(session, &mut done.policies, &told.policies);
    if session.out.is_json() { applied(session, &done, true, "") } else { all_told(session, &done, "") }
}

/// Tells what is wrong with the text, and asks whether to edit it again. Where nobody can be asked, the answer is no.
fn again(session: &Session, lint: &api::PolicyLint) -> Result<bool, Failure> {
    if session.yes || !io::stdin().is_terminal() {
        return Ok(false);
    }
    say(session, "error", &lint.errors);
    let mut prompt = io::stderr();
    write!(prompt, "edit it again? [y/N] ")?;
    prompt.flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(is_yes(&line))
}

/// The text is of the policy that was asked for, and of nothing else.
fn same_name(told: &api::AppliedPolicies, policy: &api::Policy) -> Result<(), Failure> {
    let [only] = told.policies.as_slice() else {
        return Err(Failure::usage(
            "the text is no policy",
            "the fleet's defaults are applied with coordctl policy apply",
        ));
    };
    if name(only) == policy.name {
        return Ok(());
    }
    let message = format!("the text is of a policy {}, not of {}: a policy keeps its name", name(only), policy.name);
    Err(Failure::usage(message, "coordctl policy apply makes it a policy of its own"))
}

/// The command that opens a text, from the environment.
fn editor() -> Result<String, Failure> {
    let said =
        ["VISUAL", "EDITOR"].iter().filter_map(std::env::var_os).map(|value| value.to_string_lossy().into_owned());
    said.into_iter().find(|editor| !editor.trim().is_empty()).ok_or_else(|| {
        Failure::usage(
            "neither VISUAL nor EDITOR is set",
            "EDITOR=nano coordctl policy edit POLICY; or policy show, then policy apply",
        )
    })
}

/// Opens the text and waits until the editor ends. The shell splits the editor's words, as others who read these variables do.
async fn open(editor: &str, path: &Path) -> Result<(), Failure> {
    let failed = |why: String| {
        let fault = Fault::new(ErrorCode::Io, format!("the editor {editor:?} {why}"));
        Failure::Fault(fault.with_hint("VISUAL or EDITOR names another"))
    };
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{editor} \"$@\""), editor]).arg(path);
    // The connection lives on meanwhile, however long that takes.
    let ended = tokio::task::spawn_blocking(move || command.status()).await.map_err(io::Error::other);
    let status = ended.flatten().map_err(|error| failed(format!("could not be started: {error}")))?;
    if status.success() { Ok(()) } else { Err(failed(format!("ended with {status}"))) }
}

/// The text on its way: a file that only its owner reads.
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn new(policy: &api::Policy) -> Result<Draft, Failure> {
        let stamp = jiff::Timestamp::now().as_nanosecond();
        let path = std::env::temp_dir().join(format!("coordctl-{}-{stamp}.toml", policy.name));
        let failed = |error: io::Error| {
            Failure::Fault(Fault::new(ErrorCode::Io, format!("cannot write {}: {error}", path.display())))
        };
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        file.write_all(policy.toml.as_bytes()).map_err(failed)?;
        Ok(Draft { path })
    }

    fn remove(&self) -> Result<(), Failure> {
        std::fs::remove_file(&self.path).map_err(|error| {
            let fault = Fault::new(ErrorCode::Io, format!("cannot remove {}: {error}", self.path.display()));
            Failure::Fault(fault.with_hint("remove it by hand"))
        })
    }

    /// The failure, with where the text is. A text that says what the policy says is not worth keeping.
    fn kept(&self, failure: Failure, policy: &api::Policy) -> Failure {
        if read(&self.path).is_ok_and(|text| text == policy.toml) {
            return match self.remove() {
                Ok(()) => failure,
                Err(other) => other,
            };
        }
        let path = self.path.display();
        match failure {
            Failure::Fault(fault) => {
                let before = if fault.hint.is_empty() { String::new() } else { format!("{}; ", fault.hint) };
                let kept = format!("{before}your text is kept: coordctl policy apply -f {path}");
                Failure::Fault(fault.with_hint(kept))
            }
            other => other,
        }
    }
}
