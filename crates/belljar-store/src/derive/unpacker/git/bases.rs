use std::collections::{BTreeMap, VecDeque};

use belljar_core::bounds;
use gix_object::Kind;
use gix_pack::cache::DecodeEntry;

/// Objects that others may be made of, so that they need not be made again: those that came last, as many as fit
/// [`bounds::GIT_CACHE_BYTES`].
#[derive(Default)]
pub(super) struct Bases {
    kept: BTreeMap<u64, Base>,
    order: VecDeque<u64>,
    bytes: usize,
}

struct Base {
    content: Vec<u8>,
    kind: Kind,
    packed: usize,
}

/// What one takes beside its content, about.
const OVERHEAD: usize = 128;

impl Bases {
    /// Whether the object whose content begins there is kept.
    pub(super) fn has(&self, offset: u64) -> bool {
        self.kept.contains_key(&offset)
    }
}

impl DecodeEntry for Bases {
    fn put(&mut self, _: u32, offset: u64, content: &[u8], kind: Kind, packed: usize) {
        let size = content.len() + OVERHEAD;
        if size > bounds::GIT_CACHE_BYTES / 2 || self.kept.contains_key(&offset) {
            return;
        }
        while self.bytes + size > bounds::GIT_CACHE_BYTES {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            if let Some(gone) = self.kept.remove(&oldest) {
                self.bytes -= gone.content.len() + OVERHEAD;
            }
        }
        self.bytes += size;
        self.order.push_back(offset);
        let content = content.to_vec();
        let base = Base {
            content,
            kind,
            packed,
        };
        self.kept.insert(offset, base);
    }

    fn get(&mut self, _: u32, offset: u64, out: &mut Vec<u8>) -> Option<(Kind, usize)> {
        let base = self.kept.get(&offset)?;
        out.clear();
        out.extend_from_slice(&base.content);
        Some((base.kind, base.packed))
    }
}
