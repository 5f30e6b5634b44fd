//! `coordctl context list | use | add | remove | show`: the contexts in the configuration file. No coordinator is asked.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::tls::{ClientTls, HeldIdentity, PeerIdentity, PeerKind};
use coord_shared::wire;
use serde_json::{Value, json};

use crate::context::{Choice, ConfigFile, ContextEntry, Locked, Pems, read_config, read_pem};
use crate::failure::Failure;
use crate::origin::{Origin, Origins};
use crate::output::Align::Left;
use crate::output::Output;
use crate::session::{Answers, Place};
use crate::{complete, completer, shown};

/// Coordinators to talk to, and as whom.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// List the contexts.
    List,
    /// Make a context the current one.
    Use {
        /// Its name.
        #[arg(add = completer(complete::contexts))]
        name: String,
        /// Say what would change, change nothing.
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Add a context for a certificate that is there already. coordctl login adds one for a token.
    Add(AddArgs),
    /// Remove a context, with its certificate and key.
    Remove {
        /// Its name.
        #[arg(add = completer(complete::contexts))]
        name: String,
        /// Say what would be removed, remove nothing.
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Show the settings in force, and where each comes from.
    ///
    /// A flag wins over the environment, that over the context, that over the default.
    Show {
        /// The context; without one, that which other commands would take.
        #[arg(add = completer(complete::contexts))]
        name: Option<String>,
    },
}

/// What to add.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Its name.
    name: String,
    /// Main listeners of the fleet's coordinators, tried in order.
    #[arg(required = true, value_name = "HOST:PORT")]
    endpoints: Vec<String>,
    /// Enrolment listeners, where the certificate is renewed; may be repeated.
    #[arg(long, value_name = "HOST:PORT")]
    enrol: Vec<String>,
    /// The fleet's authority, PEM; it is copied.
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// The operator's certificate, PEM; it is copied.
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Its key, PEM; it is copied.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Ask before every change.
    #[arg(long)]
    protected: bool,
    /// Say what would be added, add nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// How the command line was given.
#[derive(Debug, Clone, Copy)]
pub struct Given {
    /// Where the global options come from.
    pub origins: Origins,
    /// `--no-input` and `--yes`.
    pub answers: Answers,
}

/// Runs it.
pub fn run(command: &ContextCommand, choice: &Choice, given: Given, out: &Output) -> Result<(), Failure> {
    let path = choice.path()?;
    match command {
        ContextCommand::List => list(&path, out),
        ContextCommand::Use { name, dry_run } => {
            if *dry_run {
                let config = read_config(&path)?;
                config.get(name, &path)?;
                return out.dry_run(&format!("the current context: {} -> {name}", config.current));
            }
            Locked::wait(&path)?.select(name)?;
            out.talk(&format!("{name} is the current context"));
            out.talk("next: coordctl status");
            Ok(())
        }
        ContextCommand::Add(args) => add(args, &path, out),
        ContextCommand::Remove { name, dry_run } => {
            let entry = read_config(&path)?.get(name, &path)?.clone();
            let what = format!("remove context {name} ({}) with its certificate and key", entry.endpoints.join(", "));
            if *dry_run {
                return out.dry_run(&what);
            }
            given.answers.moderate(Place { context: name, protected: entry.protected }, &what, "")?;
            Locked::wait(&path)?.remove(name)?;
            out.talk(&format!("context {name} is removed"));
            Ok(())
        }
        ContextCommand::Show { name } => show(name.as_deref(), choice, given, out),
    }
}

/// Who a certificate says its owner is, where it can be read.
fn identity(entry: &ContextEntry, path: &Path) -> Option<PeerIdentity> {
    if entry.is_logged_out() {
        return None;
    }
    let entry = entry.clone().beside(path);
    PeerIdentity::from_pem(&read_pem(&entry.certificate).ok()?).ok()
}

fn document(name: &str, entry: &ContextEntry, config: &ConfigFile, path: &Path) -> Value {
    let who = identity(entry, path);
    json!({
        "name": name,
        "current": config.current == name,
        "endpoints": entry.endpoints,
        "enrol_endpoints": entry.enrol_endpoints,
        "protected": entry.protected,
        "fleet": who.as_ref().map(|who| who.fleet.clone()),
        "user": who.as_ref().map(|who| who.id.clone()),
        "certificate_not_after": who.as_ref().map(|who| who.not_after.to_string()),
    })
}

fn list(path: &Path, out: &Output) -> Result<(), Failure> {
    let config = read_config(path)?;
    if out.is_json() {
        let rows = config.contexts.iter().map(|(name, entry)| document(name, entry, &config, path));
        return out.json(&json!({ "contexts": rows.collect::<Value>() }));
    }
    let row = |(name, entry): (&String, &ContextEntry)| {
        let who = identity(entry, path);
        vec![
            name.clone(),
            if config.current == *name { "current".to_owned() } else { String::new() },
            who.as_ref().map_or_else(|| "logged out".to_owned(), |who| who.id.clone()),
            who.as_ref().map_or_else(String::new, |who| who.fleet.clone()),
            entry.endpoints.join(", "),
            if entry.protected { "yes".to_owned() } else { String::new() },
            who.as_ref().map_or_else(String::new, |who| shown::instant(wire::to_us(who.not_after))),
            entry.enrol_endpoints.join(", "),
        ]
    };
    let columns = [("context", Left), ("in use", Left), ("user", Left), ("fleet", Left), ("endpoints", Left)];
    let more = [("protected", Left), ("certificate ends", Left), ("enrolment", Left)];
    out.wide_table(&columns, &more, config.contexts.iter().map(row).collect(), "no contexts; coordctl login adds one")
}

fn add(args: &AddArgs, path: &Path, out: &Output) -> Result<(), Failure> {
    let (ca, certificate, key) = (read_pem(&args.ca)?, read_pem(&args.certificate)?, read_pem(&args.key)?);
    let refused = |error: &dyn std::fmt::Display| {
        let text = format!(
            "{}, {} and {} do not serve together: {error}",
            args.ca.display(),
            args.certificate.display(),
            args.key.display()
        );
        Failure::configuration(text, "coordctl login gets all three for a token")
    };
    let held = HeldIdentity::from_pem(&certificate, &key).map_err(|error| refused(&error))?;
    let who = held.identity().filter(|who| who.kind == PeerKind::Operator);
    let who = who.ok_or_else(|| refused(&"the certificate is not an operator's"))?;
    ClientTls::new(&ca, held).map_err(|error| refused(&error))?;
    let locked = Locked::wait(path)?;
    if locked.entry(&args.name)?.is_some() {
        let fault = Fault::new(ErrorCode::AlreadyExists, format!("there is a context {} already", args.name));
        return Err(fault.with_hint(format!("coordctl context remove {}, or another name", args.name)).into());
    }
    if args.dry_run {
        let endpoints = args.endpoints.join(", ");
        return out.dry_run(&format!("add context {}: {} of fleet {} at {endpoints}", args.name, who.id, who.fleet));
    }
    let entry = ContextEntry {
        endpoints: args.endpoints.clone(),
        enrol_endpoints: args.enrol.clone(),
        protected: args.protected,
        ..ContextEntry::default()
    };
    locked.save(&args.name, &entry, &Pems { ca: &ca, certificate: &certificate, key: &key })?;
    out.talk(&format!("context {}: {} of fleet {}", args.name, who.id, who.fleet));
    if args.enrol.is_empty() {
        out.talk(&format!("warning: without --enrol the certificate is not renewed; it ends {}", who.not_after));
    }
    if locked.config()?.current != args.name {
        out.talk(&format!("next: coordctl context use {}", args.name));
    }
    Ok(())
}

/// A setting: its name, its value, and who set it.
type Setting = (&'static str, String, String);

fn show(name: Option<&str>, choice: &Choice, given: Given, out: &Output) -> Result<(), Failure> {
    let path = choice.path()?;
    let config = read_config(&path)?;
    let chosen = name.map(str::to_owned).or_else(|| choice.context.clone()).unwrap_or_else(|| config.current.clone());
    let entry = config.get(&chosen, &path)?;
    let mut settings = of_context(&chosen, entry, &path, choice.endpoint.as_deref().map(|one| (one, given.origins)));
    let from =
        if name.is_some() { "argument" } else { from(given.origins.context, "--context", "COORDCTL_CONTEXT", FILE) };
    let config_from = from_default(given.origins.config, "--config", "COORDCTL_CONFIG");
    settings.insert(0, ("config", shown::safe(&path.to_string_lossy()), config_from.to_owned()));
    settings.insert(1, ("context", chosen.clone(), from.to_owned()));
    settings.extend(of_output(given, out));
    if out.is_json() {
        let settings = settings.iter().map(|(name, value, from)| json!({ "name": name, "value": value, "from": from }));
        let mut object = document(&chosen, entry, &config, &path);
        object["settings"] = settings.collect();
        return out.json(&object);
    }
    let rows = settings.into_iter().map(|(name, value, from)| vec![name.to_owned(), value, from]).collect();
    out.table(&[("setting", Left), ("value", Left), ("from", Left)], rows, "")
}

/// Where the name of the context comes from when nobody says it.
const FILE: &str = "current in the file";

const fn from(origin: Origin, flag: &'static str, variable: &'static str, otherwise: &'static str) -> &'static str {
    match origin {
        Origin::Flag => flag,
        Origin::Environment => variable,
        Origin::Unsaid => otherwise,
    }
}

const fn from_default(origin: Origin, flag: &'static str, variable: &'static str) -> &'static str {
    from(origin, flag, variable, "default")
}

/// What a context says; an endpoint that was given takes the place of its own.
fn of_context(name: &str, entry: &ContextEntry, path: &Path, endpoint: Option<(&str, Origins)>) -> Vec<Setting> {
    let who = identity(entry, path);
    let user = who.as_ref().map_or_else(|| "logged out".to_owned(), |who| format!("{} of fleet {}", who.id, who.fleet));
    let ends = who.as_ref().map_or_else(|| "-".to_owned(), |who| shown::instant(wire::to_us(who.not_after)));
    let file = |file: &Path| match entry.is_logged_out() {
        true => "-".to_owned(),
        false => shown::safe(&file.to_string_lossy()),
    };
    let beside = entry.clone().beside(path);
    let said = |name: &'static str, value: String| (name, value, String::new());
    let mut all = vec![
        said("endpoints", entry.endpoints.join(", ")),
        said("enrolment", entry.enrol_endpoints.join(", ")),
        said("user", user),
        said("certificate ends", ends),
        said("certificate", file(&beside.certificate)),
        said("key", file(&beside.key)),
        said("authority", shown::safe(&beside.ca.to_string_lossy())),
        said("protected", (if entry.protected { "yes" } else { "no" }).to_owned()),
    ];
    all.iter_mut().for_each(|setting| setting.2 = format!("context {name}"));
    if let Some((endpoint, origins)) = endpoint {
        let from = from_default(origins.endpoint, "--endpoint", "COORDCTL_ENDPOINT");
        all[0] = ("endpoints", endpoint.to_owned(), from.to_owned());
    }
    all
}

/// How results are written and questions asked.
fn of_output(given: Given, out: &Output) -> [Setting; 3] {
    let Origins { output, no_input, color, .. } = given.origins;
    let format = out.format.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    let asks = if given.answers.no_input { "never" } else { "on a terminal" };
    let colour = if out.colors.stdout { "on" } else { "off" };
    [
        ("output", format, from_default(output, "--output", "COORDCTL_OUTPUT").to_owned()),
        ("asks", asks.to_owned(), from_default(no_input, "--no-input", "COORDCTL_NO_INPUT").to_owned()),
        ("colour", colour.to_owned(), from_default(color, "--color", "COORDCTL_COLOR").to_owned()),
    ]
}
