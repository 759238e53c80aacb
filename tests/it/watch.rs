//! watch
use proptest::prelude::*;

/// One of `samples` with bytes changed, cut, doubled or put in; sometimes bytes of no origin at all.
pub fn mangled(samples: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..4), 0..6);
    let sample = (prop::sample::select(samples), edits).prop_map(|(sample, edits)| {
        let mut bytes = sample.as_bytes().to_vec();
        for (index, byte, how) in edits {
            if bytes.is_empty() {
                break;
            }
            let place = index.index(bytes.len());
            match how {
                0 => bytes[place] = byte,
                1 => bytes.truncate(place),
                2 => bytes.insert(place, byte),
                _ => drop(bytes.splice(place..place, bytes[..place.min(40)].to_vec())),
            }
        }
        bytes
    });
    prop_oneof![4 => sample, 1 => prop::collection::vec(any::<u8>(), 0..60)]
}
