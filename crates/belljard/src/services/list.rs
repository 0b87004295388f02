//! `ListBuilds`.

use belljar_core::{Timestamp, bounds};
use belljar_engine::Engine;
use belljar_engine::queue::{Condition, Query};
use belljar_wire::{BuildState, Filter, Order, Problem, v1};
use prost::Message as _;
use tonic::Status;

use super::{Caller, internal, page, view};

/// Builds on a page unless another number is asked for.
const PAGE: usize = 50;

/// One page of the builds that the caller may see.
pub(super) async fn builds(
    engine: &Engine,
    caller: &Caller,
    request: v1::ListBuildsRequest,
) -> Result<v1::ListBuildsResponse, Status> {
    let most = page::size(request.page_size, PAGE, bounds::LIST_PAGE).map_err(Problem::invalid)?;
    let before = page::position(&request.page_token, &request.filter).map_err(Problem::invalid)?;
    let filter = Filter::parse(&request.filter).map_err(Problem::invalid)?;
    let asked = filter.conditions().iter().map(condition).collect();
    let query = Query {
        conditions: caller.narrow(asked),
        before,
        most,
    };
    let found = engine.list(query).await;
    let found = found.map_err(|e| internal("the builds could not be read", &e))?;
    let (mut more, mut bytes, mut last) = (found.more, 0, None);
    let mut builds = Vec::with_capacity(found.builds.len());
    for listed in &found.builds {
        let build = v1::Build::from(&view::summary(listed));
        bytes += build.encoded_len() + 16;
        if bytes > bounds::BATCH_BYTES && last.is_some() {
            more = true;
            break;
        }
        last = Some(listed.position);
        builds.push(build);
    }
    let next = last.filter(|_| more);
    Ok(v1::ListBuildsResponse {
        builds,
        next_page_token: next.map_or_else(String::new, |at| page::token(at, &request.filter)),
    })
}

/// A condition of the API in the words of the queue.
fn condition(condition: &belljar_wire::Condition) -> Condition {
    use belljar_wire::Condition as Asked;
    match condition {
        Asked::State { is, state } => Condition::Stage {
            is: *is,
            name: stage(*state),
        },
        Asked::Outcome { is, kind } => Condition::Outcome { is: *is, kind },
        Asked::Submitter { is, principal } => Condition::Submitter {
            is: *is,
            principal: principal.clone(),
        },
        Asked::RequestId { is, request_id } => Condition::RequestId {
            is: *is,
            request_id: request_id.clone(),
        },
        Asked::Artifact(digest) => Condition::Artifact(*digest),
        Asked::Created { order, time } => {
            // Times are whole milliseconds.
            let next = Timestamp::from_millis(time.as_millis() + 1);
            match order {
                Order::Before => Condition::AcceptedBefore(*time),
                Order::NotAfter => Condition::AcceptedBefore(next),
                Order::After => Condition::AcceptedFrom(next),
                Order::NotBefore => Condition::AcceptedFrom(*time),
            }
        }
    }
}

/// What the queue calls a state.
fn stage(state: BuildState) -> &'static str {
    match state {
        BuildState::Queued => "queued",
        BuildState::Staging => "staging",
        BuildState::Launching => "launching",
        BuildState::Running => "running",
        BuildState::Collecting => "collecting",
        BuildState::Attesting => "attesting",
        BuildState::Publishing => "publishing",
        BuildState::Destroying => "destroying",
        BuildState::Ended => "ended",
    }
}
