//! The command line of Belljar: submits builds, brings artifacts and evidence home, verifies them.
//!
//! * [`run`] is the whole way of one build: [`manifest`] → [`source`] → [`deps`] → [`target`] → [`submission`] →
//!   [`watch`] → [`home`].
//! * [`image`] takes root file systems into the store and names them in a `belljar.lock`.
//! * [`verbs`] are parts of that way for builds of a daemon, [`audit`] tells a build's story.
//! * [`store`] is about what is kept, and how the rest goes.
//! * [`layout`] is the image that became of outputs.
//! * [`embedded`] starts all processes where no daemon runs.
//! * [`exit`] says what exit statuses mean, [`report`] what `--json` prints.

mod address;
mod audit;
mod cli;
mod client;
mod deps;
mod doctor;
mod embedded;
mod error;
mod exit;
#[cfg(test)]
mod fake;
mod fetch;
mod home;
mod image;
mod key;
mod layout;
mod log;
mod manifest;
mod patience;
mod random;
mod regular;
mod report;
mod run;
mod session;
mod signals;
mod source;
mod steps;
mod store;
mod submission;
mod target;
mod terminal;
mod upload;
mod verbs;
mod verify;
mod watch;
mod write;

use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;

use crate::cli::{Audit, Cli, Command, Image, Key, Store};
use crate::error::Error;
use crate::terminal::Terminal;

fn main() -> ExitCode {
    let arguments = Cli::parse();
    let mut terminal = Terminal::new();
    let done = match &arguments.command {
        Command::Run(run) => run::run(run, &mut terminal),
        Command::Image { command } => match command {
            Image::Import(import) => image::import(import, &mut terminal),
            Image::Pull(pull) => image::pull(pull, &mut terminal),
            Image::Push(push) => image::push(push, &mut terminal),
            Image::List(list) => image::list(list),
            Image::BuildDebian(build) => image::build_debian(build, &mut terminal),
        },
        Command::Submit(submit) => verbs::submit(submit, &mut terminal),
        Command::Watch(watch) => verbs::watch(watch, &mut terminal),
        Command::List(list) => verbs::list(list, &mut terminal),
        Command::Show(show) => verbs::show(show, &mut terminal),
        Command::Logs(logs) => verbs::logs(logs, &mut terminal),
        Command::Cancel(cancel) => verbs::cancel(cancel, &mut terminal),
        Command::Fetch(fetch) => verbs::fetch(fetch, &mut terminal),
        Command::Audit {
            command: Audit::Show(show),
        } => audit::show(show, &mut terminal),
        Command::Store { command } => match command {
            Store::Status(status) => store::status(status, &mut terminal),
            Store::Gc(gc) => store::gc(gc, &mut terminal),
            Store::Scrub(scrub) => store::scrub(scrub, &mut terminal),
            Store::Pin(pin) => store::pin(pin, &mut terminal),
            Store::Unpin(unpin) => store::unpin(unpin, &mut terminal),
        },
        Command::Verify(verify) => verify::run(verify),
        Command::Key {
            command: Key::Public(public),
        } => key::public(public),
        Command::Doctor(doctor) => doctor::run(doctor, &mut terminal),
        Command::Completions(completions) => verbs::completions(completions),
        Command::Man(man) => verbs::man(man),
    };
    let code = done.unwrap_or_else(|error| failed(&error, arguments.command.json(), &mut terminal));
    ExitCode::from(code)
}

/// Tells what went wrong.
fn failed(error: &Error, wants_json: bool, terminal: &mut Terminal) -> u8 {
    terminal.error(&error.to_string());
    for cause in error.causes() {
        terminal.detail(&format!("because: {cause}"));
    }
    if let Some(hint) = error.hint() {
        terminal.detail(&format!("hint: {hint}"));
    }
    if wants_json {
        let told = json(&report::Failed::new(error), false).and_then(|text| {
            terminal::result(&text).map_err(|e| Error::Process("write to standard output", e))
        });
        if let Err(second) = told {
            terminal.error(&second.to_string());
        }
    }
    error.code()
}

/// A report as JSON text, which a terminal may get.
fn json(report: &impl Serialize, pretty: bool) -> Result<String, Error> {
    let text = if pretty {
        serde_json::to_string_pretty(report)
    } else {
        serde_json::to_string(report)
    };
    let text = text.map_err(|e| Error::Process("write JSON", e.into()))?;
    Ok(terminal::escaped(&text))
}

/// Runs a few calls to a daemon.
fn block_on<T>(calls: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .map_err(|e| Error::Process("start the runtime", e))?
        .block_on(calls)
}
