//! The API beyond one build, and the commands over it, against the real processes.
//!
//! * [`listing`]: pages and filters.
//! * [`logs`]: logs by attempt and offset.
//! * [`watching`]: a watch that is taken up again after a restart of the daemon.
//! * [`evidence`]: by build, by artifact, and the audit trail.
//! * [`health`]: health and reflection, behind the gate.
//! * [`verbs`]: every command about builds, its exit statuses and its JSON.
//! * [`audit`]: the story of a build, online and offline, and what breaks it.
//! * [`codes`]: every command with every exit status, and every shape of JSON, as [`page`] has them.
//! * [`away`]: what is said and done while a process of Belljar is away.
//! * [`embedded`]: the commands where no daemon runs.

// Helpers of tests may stop at the first surprise too; clippy's exemption is for the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod away;
mod codes;
mod embedded;
mod evidence;
mod health;
mod listing;
mod logs;
mod page;
mod verbs;
mod watching;

use belljar_core::BuildSpec;
use belljar_tests::Client;
use belljar_wire::{BuildRecord, BuildState, v1};
use tonic::Code;

/// A specification of a build that ends at once.
fn quick(client: &Client) -> BuildSpec {
    client.spec(&[("in", "1")], &["cp in out"], &["out"])
}

/// A specification of a build that says `begun` and goes on until it is cancelled.
fn endless(client: &Client) -> BuildSpec {
    client.spec(
        &[("in", "")],
        &["echo begun; while [ ! -e /nowhere ]; do sleep 0.05; done"],
        &["out"],
    )
}

/// Submits a build and waits for its end.
fn build(client: &Client, request_id: &str, spec: &BuildSpec) -> BuildRecord {
    let build = client.submit(request_id, spec).unwrap();
    client.until(&build.id, |build| build.state == BuildState::Ended)
}

/// A page of the list, as ids, and the next token; or the field that was refused, and why.
fn page(
    client: &Client,
    filter: &str,
    page_size: i32,
    page_token: &str,
) -> Result<(Vec<String>, String), (Code, String)> {
    let request = v1::ListBuildsRequest {
        page_size,
        page_token: page_token.to_owned(),
        filter: filter.to_owned(),
    };
    let answer = client.wait(client.builds().list_builds(request));
    let page = answer.map_err(|e| (e.code(), e.message().to_owned()))?;
    let page = page.into_inner();
    let names = page.builds.into_iter().map(|build| {
        assert!(build.spec.is_none() && build.artifacts.is_empty());
        build.name
    });
    Ok((names.collect(), page.next_page_token))
}
