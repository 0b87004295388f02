use belljar_core::Outcome;
use belljar_wire::{BuildSummary, v1};

use super::print;
use crate::client::Client;
use crate::error::Error;
use crate::report;
use crate::session;
use crate::terminal::{self, Terminal};
use crate::watch::doing;
use crate::{cli, exit};

/// `belljar list`
///
/// # Errors
/// When the daemon does not tell.
pub(crate) fn list(arguments: &cli::List, terminal: &mut Terminal) -> Result<u8, Error> {
    let filter = filter(arguments);
    session::ask(
        &arguments.ask.whom,
        terminal,
        async |client: &Client, terminal: &mut Terminal| {
            let mut token = arguments.page_token.clone().unwrap_or_default();
            let mut builds: Vec<BuildSummary> = Vec::new();
            let limit = usize::try_from(arguments.limit).unwrap_or(usize::MAX);
            loop {
                let left = limit - builds.len();
                let request = v1::ListBuildsRequest {
                    page_size: i32::try_from(left).unwrap_or(i32::MAX),
                    page_token: token,
                    filter: filter.clone(),
                };
                let (page, next) = client.list(request).await?;
                builds.extend(page.into_iter().take(left));
                token = next;
                if token.is_empty() || builds.len() >= limit {
                    break;
                }
            }
            if arguments.ask.json {
                print(&crate::json(&report::List::new(&builds, &token), false)?)?;
            } else {
                print(&table(&builds))?;
                if !token.is_empty() {
                    terminal.note(&format!(
                        "there are more; go on with --page-token {token}, or take a larger --limit"
                    ));
                }
            }
            Ok(exit::SUCCESS)
        },
    )
}

/// What the options ask for, as the API has it.
fn filter(arguments: &cli::List) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let project = arguments.ask.whom.project.as_ref().map(ToString::to_string);
    let request_id = arguments.request_id.as_ref().map(ToString::to_string);
    let artifact = arguments.artifact.as_ref().map(|digest| digest.to_hex());
    let options = [
        ("project =", &project),
        ("state =", &arguments.build_state),
        ("outcome =", &arguments.outcome),
        ("submitter =", &arguments.submitter),
        ("request_id =", &request_id),
        ("artifact =", &artifact),
        ("create_time >=", &arguments.since),
        ("create_time <", &arguments.until),
    ];
    let options = options.into_iter().filter_map(|(field, value)| {
        let value = value.as_deref()?;
        Some(match field {
            "state =" => format!("{field} {}", quoted(&value.to_ascii_uppercase())),
            _ => format!("{field} {}", quoted(value)),
        })
    });
    // First, so that the places in error messages are those of the option.
    let own = arguments
        .filter
        .clone()
        .filter(|own| !own.trim().is_empty());
    own.into_iter()
        .chain(options)
        .collect::<Vec<_>>()
        .join(" AND ")
}

/// Columns, as wide as they need to be.
fn table(builds: &[BuildSummary]) -> String {
    let mut rows = vec![["BUILD", "CREATED", "SUBMITTER", "REQUEST", "STATE"].map(str::to_owned)];
    rows.extend(builds.iter().map(|build| {
        let state = match &build.outcome {
            Some(outcome) => terminal::line(&Outcome::to_string(outcome)),
            None => doing(build.state).to_owned(),
        };
        [
            build.id.to_string(),
            build.created.to_string(),
            terminal::line(&build.submitter),
            build.request_id.to_string(),
            state,
        ]
    }));
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..4).map(width).collect();
    let lines = rows.iter().map(|row| {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        line + &row[4]
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use belljar_wire::Filter;
    use clap::Parser as _;

    #[test]
    fn options_become_a_filter_that_is_one() {
        let of = |options: &[&str]| {
            let parsed = Cli::try_parse_from(["belljar", "list"].iter().chain(options)).unwrap();
            let Command::List(list) = parsed.command else {
                panic!("another command")
            };
            filter(&list)
        };
        assert_eq!(of(&[]), "");
        let all = of(&[
            "--build-state",
            "running",
            "--outcome",
            "failed",
            "--submitter",
            "a \"b\" \\",
            "--request-id",
            "r1",
            "--since",
            "2026-11-01T00:00:00Z",
            "--until",
            "2026-12-01T00:00:00Z",
            "--artifact",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "--filter",
            "state != QUEUED",
            "--project",
            "web",
        ]);
        assert!(
            all.starts_with("state != QUEUED AND project = \"web\" AND state = \"RUNNING\" AND"),
            "{all}"
        );
        assert_eq!(Filter::parse(&all).unwrap().conditions().len(), 9);
    }
}
