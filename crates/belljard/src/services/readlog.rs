//! `ReadLog`: a piece of one attempt's log.

use belljar_core::{AttemptId, Invalid, bounds};
use belljar_engine::Engine;
use belljar_engine::life::{Build, Stage};
use belljar_wire::{Problem, Reason, build_name, v1};
use tonic::Status;

use super::{internal, view};
use crate::peers::Logs;

const WHAT: &str = "the build's log could not be read";

/// The piece that `request` asks for of a log of `build`.
pub(super) async fn piece(
    engine: &Engine,
    logs: &Logs,
    build: &Build,
    request: &v1::ReadLogRequest,
) -> Result<v1::ReadLogResponse, Status> {
    let (offset, most) = range(request.offset, request.limit).map_err(Problem::invalid)?;
    let current = view::attempt(build);
    let asked = u32::try_from(request.attempt);
    let asked = asked.map_err(|_| Problem::invalid(Invalid::field("attempt", "it is negative")))?;
    let number = if asked == 0 { current } else { asked };
    if number > current {
        let text = format!(
            "attempt {number} of `{}` has not begun; {current} have",
            build_name(&build.id)
        );
        return Err(Problem::new(Reason::NotFound, text).into());
    }
    let told = |data: Vec<u8>, complete: bool| v1::ReadLogResponse {
        attempt: i32::try_from(number).unwrap_or(i32::MAX),
        offset: i64::try_from(offset).unwrap_or(i64::MAX),
        data,
        complete,
    };
    let complete = number < current || grows_no_more(&build.stage);
    let Ok(attempt) = AttemptId::new(build.id.clone(), number) else {
        // None has begun.
        let ended = build.outcome().is_some();
        return Ok(told(Vec::new(), ended));
    };
    let file = logs.open(&attempt).await.map_err(|e| internal(WHAT, &e))?;
    if file.is_none() && build.outcome().is_some() {
        let released = engine.released(&build.id).await;
        if let Some(when) = released.map_err(|e| internal(WHAT, &e))? {
            let name = build_name(&build.id);
            let text = format!(
                "what `{name}` left was given up at {when}, its log too; its evidence is kept"
            );
            return Err(Problem::new(Reason::NotFound, text).into());
        }
    }
    let length = match &file {
        Some(file) => file.length().await.map_err(|e| internal(WHAT, &e))?,
        None => 0,
    };
    if complete && offset > length {
        let why = format!("{offset} is beyond the end; that log has {length} bytes");
        return Err(Problem::out_of_range(Invalid::field("offset", why)).into());
    }
    let data = match &file {
        Some(file) => file.read(offset, most).await,
        None => Ok(Vec::new()),
    };
    Ok(told(data.map_err(|e| internal(WHAT, &e))?, complete))
}

/// Whether the last attempt of a build that stands there writes no more.
fn grows_no_more(stage: &Stage) -> bool {
    matches!(
        stage,
        Stage::Queued | Stage::Attesting { .. } | Stage::Publishing { .. } | Stage::Ended { .. }
    )
}

/// Where to begin, and how many bytes to read at the most.
pub(super) fn range(offset: i64, limit: i64) -> Result<(u64, usize), Invalid> {
    let negative = |field: &str| Invalid::field(field, "it is negative");
    let offset = u64::try_from(offset).map_err(|_| negative("offset"))?;
    let most = match u64::try_from(limit).map_err(|_| negative("limit"))? {
        0 => bounds::READ_PIECE_BYTES,
        limit => usize::try_from(limit)
            .unwrap_or(usize::MAX)
            .min(bounds::READ_PIECE_BYTES),
    };
    Ok((offset, most))
}
