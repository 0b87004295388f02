//! The store's own records of how it made trees, which a receipt carries so that the signer has them.

use std::collections::BTreeSet;

use belljar_core::{Derivation, Image, ObjectId, bounds};
use belljar_plan::Plan;

/// Records that are asked for one after the other, while an attempt is being staged.
#[derive(Default)]
pub(super) struct Records {
    /// Those that are not complete, the next one last.
    wanted: Vec<ObjectId>,
    /// What came of the next one.
    coming: Vec<u8>,
    /// Those that are complete, sorted by their digests.
    pub(super) complete: Vec<Derivation>,
}

impl Records {
    /// The records that a plan names.
    ///
    /// # Errors
    /// When they are too large together for a receipt.
    pub(super) fn of(plan: &Plan) -> Result<Self, String> {
        let image = match plan.image {
            Image::Host => None,
            Image::Tree(image) => Some(image),
        };
        let inputs = plan.inputs.iter().map(|(_, input)| *input);
        let base = plan
            .image_output
            .iter()
            .filter_map(|output| output.base.image().copied());
        let trees = image.into_iter().chain(inputs).chain(base);
        let named: BTreeSet<ObjectId> = trees.filter_map(|tree| tree.derivation).collect();
        let bytes = named
            .iter()
            .fold(0_u64, |sum, record| sum.saturating_add(record.size));
        let most = bounds::RECEIPT_DERIVATION_BYTES as u64;
        if bytes > most {
            return Err(format!(
                "the records of how its trees were made have {bytes} bytes; {most} are allowed in one receipt"
            ));
        }
        Ok(Self {
            wanted: named.into_iter().rev().collect(),
            ..Self::default()
        })
    }

    /// The one to ask for.
    pub(super) fn next(&self) -> Option<ObjectId> {
        self.wanted.last().copied()
    }

    /// Takes a piece of it. Gives whether it is complete.
    ///
    /// # Errors
    /// When it is not what was asked for.
    pub(super) fn take(&mut self, piece: &[u8]) -> Result<bool, String> {
        let next = self.next().ok_or("content came that nobody asked for")?;
        self.coming.extend_from_slice(piece);
        if (self.coming.len() as u64) < next.size {
            return Ok(false);
        }
        let bytes = std::mem::take(&mut self.coming);
        if ObjectId::of(&bytes) != next {
            return Err(format!("{next} came as something else"));
        }
        let record = Derivation::from_canonical(&bytes).map_err(|e| format!("{next}: {e}"))?;
        self.wanted.pop();
        self.complete.push(record);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use belljar_core::Recipe;
    use std::collections::BTreeMap;

    fn record(text: &str) -> (ObjectId, Vec<u8>) {
        let record = Derivation {
            schema: Derivation::SCHEMA.to_owned(),
            recipe: Recipe::Tar {
                archive: ObjectId::of(text.as_bytes()),
            },
            from: BTreeSet::new(),
            tree: ObjectId::of(b""),
            entries: 0,
            bytes: 0,
            dropped: BTreeMap::new(),
            facts: Vec::new(),
        };
        let bytes = record.canonical().unwrap();
        (ObjectId::of(&bytes), bytes)
    }

    #[test]
    fn records_come_in_pieces_and_are_what_their_names_say() {
        let (one, bytes) = record("one");
        let mut records = Records {
            wanted: vec![one],
            ..Records::default()
        };
        assert_eq!(records.next(), Some(one));
        assert_eq!(records.take(&bytes[..10]), Ok(false));
        assert_eq!(records.take(&bytes[10..]), Ok(true));
        assert_eq!((records.next(), records.complete.len()), (None, 1));
        assert!(records.take(b"x").is_err());
        let (other, bytes) = record("other");
        let mut wrong = Records {
            wanted: vec![one],
            ..Records::default()
        };
        assert_ne!(one, other);
        assert!(wrong.take(&[&bytes[..], b"more"].concat()).is_err());
        let text = b"{}";
        let mut none = Records {
            wanted: vec![ObjectId::of(text)],
            ..Records::default()
        };
        assert!(none.take(text).is_err());
    }
}
