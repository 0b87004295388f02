//! `bench sandbox`: one sandboxed /bin/true, start to reaped, against bubblewrap in the same run.

use anyhow::{Result, bail};

use super::Row;
use super::peers::{self, Bubblewrap};
use super::stats::{Lap, interleave};

/// The peers, interleaved.
pub(super) fn measure(runs: u16, peers_only: bool) -> Result<Vec<Row>> {
    if !peers_only {
        bail!(
            "Belljar's own side cannot be measured yet: a bare sandbox is driven by the spawner's frames, and this \
             tool has no driver for them. `--peers-only` measures bubblewrap and the floor of this machine"
        );
    }
    let bubblewrap = Bubblewrap::find()?;
    let how = bubblewrap.describe();
    let mut contenders: [(&str, Lap); 2] = [
        ("no sandbox", Box::new(peers::plain)),
        ("bubblewrap", Box::new(|| bubblewrap.lap())),
    ];
    let samples = interleave(runs, &mut contenders)?;
    let mut rows = peers::rows("no sandbox", &samples[0], "the payload alone");
    rows.extend(peers::rows("bubblewrap", &samples[1], &how));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_measured_is_refused() {
        assert!(
            measure(10, false)
                .unwrap_err()
                .to_string()
                .contains("no driver")
        );
    }
}
