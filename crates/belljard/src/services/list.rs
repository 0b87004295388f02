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
    let list = page::list(caller.identity(), &request.filter);
    let before = page::position(&request.page_token, &list).map_err(Problem::invalid)?;
    let filter = Filter::parse(&request.filter).map_err(Problem::invalid)?;
    let Some(conditions) = caller.narrow(&filter) else {
        return Ok(v1::ListBuildsResponse::default());
    };
    let query = Query {
        conditions,
        before,
        most,
    };
    let found = engine.list(query).await;
    let found = found.map_err(|e| internal("the builds could not be read", &e))?;
    let (mut next, mut bytes, mut last) = (found.next, 0, None);
    let mut builds = Vec::with_capacity(found.builds.len());
    for listed in &found.builds {
        let build = v1::Build::from(&view::summary(listed));
        bytes += build.encoded_len() + 16;
        if bytes > bounds::BATCH_BYTES && last.is_some() {
            next = last;
            break;
        }
        last = Some(listed.position);
        builds.push(build);
    }
    Ok(v1::ListBuildsResponse {
        builds,
        next_page_token: next.map_or_else(String::new, |at| page::token(at, &list)),
    })
}

/// A condition of the API in the words of the queue.
///
/// None for a condition on projects, which is the caller's to answer.
pub(super) fn condition(condition: &belljar_wire::Condition) -> Option<Condition> {
    use belljar_wire::Condition as Asked;
    Some(match condition {
        Asked::Project { .. } => return None,
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
    })
}

/// What the queue calls a state.
fn stage(state: BuildState) -> &'static str {
    match state {
        BuildState::Queued => "queued",
        BuildState::Fetching => "fetching",
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
