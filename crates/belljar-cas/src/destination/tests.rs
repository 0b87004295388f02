use std::os::unix::fs::FileExt as _;

use proptest::prelude::*;

use super::*;

fn full(byte: u8) -> Arc<Piece> {
    let mut piece = Piece::aligned();
    assert!(piece.take(&vec![byte; bounds::GATHERED_BYTES]).is_empty());
    assert_eq!(piece.take(b"more"), b"more", "there is no room");
    Arc::new(piece)
}

#[test]
fn what_the_disk_does_not_take_is_told_to_who_writes_or_ends() {
    let device = || File::options().write(true).open("/dev/full").unwrap();
    let mut waited = Destination::new(device());
    assert!(matches!(waited.write(full(1)), Err(WriteError::Full(_))));
    let mut beside = Destination::new(device());
    beside.go_beside(Some(DIRECT_BYTES)).unwrap();
    let told = (0..100).find_map(|_| beside.write(full(1)).err());
    assert!(matches!(told, Some(WriteError::Full(_))), "{told:?}");
    assert!(matches!(beside.write(full(1)), Err(WriteError::Io { .. })));
    assert!(beside.finish().is_err());
    let mut beside = Destination::new(device());
    beside.go_beside(Some(DIRECT_BYTES)).unwrap();
    beside.write(full(1)).unwrap();
    assert!(matches!(beside.finish(), Err(WriteError::Full(_))));
}

#[test]
fn what_goes_past_the_page_cache_is_whole() {
    let mut destination = Destination::new(tempfile::tempfile().unwrap());
    destination.write(full(1)).unwrap();
    destination.go_beside(Some(DIRECT_BYTES)).unwrap();
    destination.write(full(2)).unwrap();
    // Neither the place of one nor the length of the other is as a disk wants it.
    let mut odd = Piece::default();
    odd.take(&vec![3; bounds::GATHERED_BYTES]);
    destination.write(Arc::new(odd)).unwrap();
    let mut end = Piece::aligned();
    end.take(b"end");
    destination.write(Arc::new(end)).unwrap();
    let file = destination.finish().unwrap();
    let mut content = vec![0; 3 * bounds::GATHERED_BYTES + 3];
    file.read_exact_at(&mut content, 0).unwrap();
    assert_eq!(file.metadata().unwrap().len(), content.len() as u64);
    let pieces: Vec<&[u8]> = content.chunks(bounds::GATHERED_BYTES).collect();
    assert_eq!(pieces[3], b"end");
    for (piece, byte) in pieces.iter().zip([1, 2, 3]) {
        assert!(piece.iter().all(|b| *b == byte), "{byte}");
    }
}

#[test]
fn zeros_are_left_out_and_read_as_they_came() {
    use std::os::unix::fs::MetadataExt as _;

    for announced in [None, Some(DIRECT_BYTES)] {
        let mut destination = Destination::new(tempfile::tempfile().unwrap());
        destination.write(full(0)).unwrap();
        destination.go_beside(announced).unwrap();
        // With these, it is as large as what goes past the page cache.
        let zeros = DIRECT_BYTES / bounds::GATHERED_BYTES as u64;
        for _ in 0..zeros {
            destination.write(full(0)).unwrap();
        }
        destination.write(full(1)).unwrap();
        let mut end = Piece::aligned();
        end.take(&[0; 5]);
        destination.write(Arc::new(end)).unwrap();
        // Whoever ends gives what was gathered, which may be nothing.
        destination.write(Arc::new(Piece::aligned())).unwrap();
        let file = destination.finish().unwrap();
        let status = file.metadata().unwrap();
        let pieces = zeros + 2;
        assert_eq!(status.len(), pieces * bounds::GATHERED_BYTES as u64 + 5);
        assert!(status.blocks() * 512 < 2 * bounds::GATHERED_BYTES as u64);
        let at = (pieces - 1) * bounds::GATHERED_BYTES as u64;
        let mut content = vec![9; bounds::GATHERED_BYTES + 5];
        file.read_exact_at(&mut content, at).unwrap();
        let (ones, end) = content.split_at(bounds::GATHERED_BYTES);
        assert!(ones.iter().all(|byte| *byte == 1));
        assert_eq!(end, [0; 5]);
    }
}

/// What may lie in one piece.
#[derive(Clone, Copy, Debug)]
enum Content {
    Zeros,
    All(u8),
    OneAt(prop::sample::Index),
    ZerosFrom(prop::sample::Index),
}

impl Content {
    fn any() -> impl Strategy<Value = Self> {
        let at = any::<prop::sample::Index>;
        prop_oneof![
            3 => Just(Self::Zeros),
            1 => (1..=u8::MAX).prop_map(Self::All),
            1 => at().prop_map(Self::OneAt),
            1 => at().prop_map(Self::ZerosFrom),
        ]
    }

    fn bytes(self, length: usize) -> Vec<u8> {
        let mut bytes = match self {
            Self::Zeros | Self::OneAt(_) => vec![0; length],
            Self::All(byte) => vec![byte; length],
            Self::ZerosFrom(_) => vec![7; length],
        };
        match self {
            Self::OneAt(at) if length > 0 => bytes[at.index(length)] = 1,
            Self::ZerosFrom(at) => bytes[at.index(length + 1)..].fill(0),
            _ => {}
        }
        bytes
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_pieces_and_holes_are_read_as_they_came(
        // With zeros before, it becomes so large that it goes past the page cache before, in, or behind the middle.
        zeros in prop_oneof![Just(0_u64), 122..130_u64],
        pieces in proptest::collection::vec(Content::any(), 0..8),
        last in (Content::any(), prop_oneof![
            0..=bounds::GATHERED_BYTES,
            (0..=bounds::GATHERED_BYTES / ALIGNMENT).prop_map(|blocks| blocks * ALIGNMENT),
        ]),
        beside in 0..6_usize,
        announced in prop::sample::select(vec![None, Some(DIRECT_BYTES - 1), Some(DIRECT_BYTES)]),
    ) {
        const WHOLE: usize = bounds::GATHERED_BYTES;
        let mut destination = Destination::new(tempfile::tempfile().unwrap());
        let mut due: Vec<Vec<u8>> = vec![vec![0; WHOLE]; zeros.try_into().unwrap()];
        due.extend(pieces.iter().map(|content| content.bytes(WHOLE)));
        due.push(last.0.bytes(last.1));
        for (number, content) in due.iter().enumerate() {
            let mut piece = Piece::default();
            if number >= beside {
                destination.go_beside(announced).unwrap();
                piece = Piece::aligned();
            }
            prop_assert!(piece.take(content).is_empty());
            destination.write(Arc::new(piece)).unwrap();
        }
        let file = destination.finish().unwrap();
        let length: usize = due.iter().map(Vec::len).sum();
        prop_assert_eq!(file.metadata().unwrap().len(), length as u64);
        let mut found = vec![9; WHOLE];
        for (number, content) in due.iter().enumerate() {
            let found = &mut found[..content.len()];
            file.read_exact_at(found, (number * WHOLE) as u64).unwrap();
            prop_assert!(found == content, "piece {}", number);
        }
    }
}
