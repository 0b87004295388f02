//! What gives a token answers (distribution, "token authentication").

use belljar_core::bounds;
use serde::Deserialize;

#[derive(Deserialize)]
struct Told {
    token: Option<String>,
    access_token: Option<String>,
}

/// The token in an answer, if there is one that can stand in a header.
pub(super) fn read(answer: &[u8]) -> Option<String> {
    let told: Told = serde_json::from_slice(answer).ok()?;
    let token = told.token.or(told.access_token)?;
    let fits = !token.is_empty()
        && token.len() <= bounds::TOKEN_BYTES
        && token.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then_some(token)
}
