//! `belljar doctor`: what this host offers for sandboxes, layer by layer.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use belljar_wire::{Layer, LayerVerdict};
use serde::Deserialize;

use crate::address::Address;
use crate::cli;
use crate::client::Client;
use crate::embedded;
use crate::error::Error;
use crate::exit;
use crate::report::{self, verdict};
use crate::target;
use crate::terminal::{self, Terminal, line, tame};

/// Who looks.
pub(crate) const SPAWNER: &str = "belljar-spawner";

/// What `belljar-spawner --probe --json` prints.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostReport {
    layers: Vec<ProbedLayer>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProbedLayer {
    name: String,
    found: String,
    verdict: ProbedVerdict,
    hint: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ProbedVerdict {
    Enforced,
    Lowered,
    Missing,
}

impl From<ProbedLayer> for Layer {
    fn from(layer: ProbedLayer) -> Self {
        Self {
            name: layer.name,
            found: layer.found,
            verdict: match layer.verdict {
                ProbedVerdict::Enforced => LayerVerdict::Enforced,
                ProbedVerdict::Lowered => LayerVerdict::Lowered,
                ProbedVerdict::Missing => LayerVerdict::Missing,
            },
            hint: layer.hint,
        }
    }
}

/// Asks a daemon, or else looks for itself. Gives the exit status that says whether builds can run.
///
/// # Errors
/// When nobody can tell.
pub(crate) fn run(arguments: &cli::Doctor, terminal: &mut Terminal) -> Result<u8, Error> {
    let daemon = target::running(&arguments.ask.whom)?;
    let (version, layers, can_build) = match &daemon {
        Some(socket) => {
            let server = crate::block_on(async {
                Ok(Client::connect(socket, None).await?.server_info().await?)
            })?;
            (server.version, server.layers, server.can_build)
        }
        None => (
            env!("CARGO_PKG_VERSION").to_owned(),
            probe(arguments, terminal)?,
            true,
        ),
    };
    let suffices = can_build
        && layers
            .iter()
            .all(|layer| layer.verdict != LayerVerdict::Missing);
    let text = if arguments.ask.json {
        crate::json(
            &report::Doctor::new(
                daemon.as_ref().map(Address::name),
                &version,
                suffices,
                &layers,
            ),
            false,
        )?
    } else {
        let conclusion = match (suffices, can_build) {
            (true, _) => "builds can run here",
            // It is a process of Belljar's own.
            (false, true) if daemon.is_some() => "builds wait here until what is missing is there",
            (false, _) => "builds are refused here",
        };
        format!("{}\n{conclusion}", table(&layers))
    };
    terminal::result(&text).map_err(|e| Error::Process("write to standard output", e))?;
    Ok(if suffices {
        exit::SUCCESS
    } else {
        exit::HOST_LACKS_LAYER
    })
}

/// Has the spawner look at this host, as embedded mode would run it.
fn probe(arguments: &cli::Doctor, terminal: &mut Terminal) -> Result<Vec<Layer>, Error> {
    let state = arguments.ask.whom.state();
    if arguments.cgroup_floor.is_none() && embedded::spawner_config(&state).is_file() {
        return of_state(&state);
    }
    let floor = arguments
        .cgroup_floor
        .map_or_else(embedded::host_floor, Into::into);
    terminal.phase(&format!(
        "no daemon answers; looking at this host with the cgroup floor `{floor}`"
    ));
    let (floor, nearest) = (floor.to_string(), nearest(&state));
    ask(&[
        "--cgroup-floor".as_ref(),
        floor.as_ref(),
        "--state".as_ref(),
        nearest.as_os_str(),
    ])
}

/// Has the spawner look at this host, as the configuration in a state directory has it.
///
/// # Errors
/// When it does not tell.
pub(crate) fn of_state(state: &Path) -> Result<Vec<Layer>, Error> {
    let config = embedded::spawner_config(state);
    ask(&["--config".as_ref(), config.as_os_str()])
}

fn ask(arguments: &[&OsStr]) -> Result<Vec<Layer>, Error> {
    let mut command = embedded::spawner_command(&embedded::program(SPAWNER)?);
    command
        .args(["--probe", "--json"])
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null());
    let output = command
        .output()
        .map_err(|e| Error::Process("start belljar-spawner", e))?;
    // Its exit status says what the report says; without a report, its complaints say why.
    let report: HostReport = serde_json::from_slice(&output.stdout).map_err(|e| {
        let said = String::from_utf8_lossy(&output.stderr);
        Error::Probe(if said.trim().is_empty() {
            e.to_string()
        } else {
            tame(said.trim())
        })
    })?;
    Ok(report.layers.into_iter().map(Into::into).collect())
}

/// The directory itself, or the first above it that is there: it would lie on the same file system.
fn nearest(state: &Path) -> &Path {
    state
        .ancestors()
        .find(|above| above.is_dir())
        .unwrap_or(Path::new("/"))
}

/// Columns, as wide as they need to be; hints on lines of their own.
fn table(layers: &[Layer]) -> String {
    let width = |of: fn(&Layer) -> &str| {
        layers
            .iter()
            .map(|layer| of(layer).chars().count())
            .max()
            .unwrap_or(0)
    };
    let (names, verdicts) = (
        width(|layer| &layer.name),
        width(|layer| verdict(layer.verdict)),
    );
    let rows = layers.iter().map(|layer| {
        let hint = if layer.hint.is_empty() {
            String::new()
        } else {
            format!("\n{:names$}  hint: {}", "", line(&layer.hint))
        };
        format!(
            "{:names$}  {:verdicts$}  {}{hint}",
            line(&layer.name),
            verdict(layer.verdict),
            line(&layer.found)
        )
    });
    rows.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_read_and_shown() {
        let printed = r#"{"layers":[{"name":"kernel","found":"6.18","verdict":"enforced","hint":""},
            {"name":"cgroup","found":"v1","verdict":"missing","hint":"mount v2"}]}"#;
        let report: HostReport = serde_json::from_str(printed).unwrap();
        let layers: Vec<Layer> = report.layers.into_iter().map(Into::into).collect();
        assert_eq!(
            table(&layers),
            "kernel  enforced  6.18\ncgroup  missing   v1\n        hint: mount v2"
        );
    }

    #[test]
    fn the_nearest_directory_is_there() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(nearest(&dir.path().join("a/b")), dir.path());
        assert_eq!(nearest(dir.path()), dir.path());
    }
}
