//! `bench builds`: trivial builds through a running daemon.

use anyhow::{Result, bail};

use super::Row;

/// Refused until there is a daemon to start.
pub(super) fn measure(_runs: u16, _peers_only: bool) -> Result<Vec<Row>> {
    bail!(
        "builds cannot be measured yet: there is no daemon in this repository that could be started"
    )
}
