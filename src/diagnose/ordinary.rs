//! What the lines of every installation say, so that signatures are not woken by it.

/// Lines that are printed thousands of times, whatever goes well or wrong.
const LINES: &str = include_str!("../../assets/ordinary.log");
/// Bytes that stand together: few for short texts, more for what long ones say of their own.
const GRAMS: [usize; 2] = [4, 7];
const SLOTS: usize = 1 << 17;
/// Bytes of ordinary log lines, the most frequent ones first; all others are rarer.
const FREQUENT: &[u8] = b" eotnairs0dclp12u-m3f/h45.86g79=:by";

/// In how many of the ordinary lines the same bytes stand together.
pub(super) struct Ordinary(Vec<u16>);

impl Ordinary {
    pub(super) fn new() -> Self {
        let mut counts = vec![0u16; SLOTS];
        for line in LINES.lines() {
            let mut slots: Vec<usize> = slots(line).collect();
            slots.sort_unstable();
            slots.dedup();
            for slot in slots {
                if let Some(count) = counts.get_mut(slot) {
                    *count += 1;
                }
            }
        }
        Self(counts)
    }

    /// About how many of the ordinary lines hold this text.
    pub(super) fn holding(&self, text: &str) -> u16 {
        slots(text).filter_map(|slot| self.0.get(slot).copied()).min().unwrap_or(u16::MAX)
    }

    /// Where the `length` bytes of a text begin whose beginnings and ends the fewest lines hold; of several the rarest
    /// ones.
    pub(super) fn rarest(&self, text: &str, length: usize) -> usize {
        let parts = (0..=text.len().saturating_sub(length)).filter_map(|at| Some((at, text.get(at..at + length)?)));
        let held = |part: &str| {
            let grams = part.as_bytes().windows(GRAMS[0]).filter_map(|gram| self.0.get(slot(gram)));
            grams.map(|count| u32::from(*count)).sum::<u32>()
        };
        parts.min_by_key(|(_, part)| (held(part), std::cmp::Reverse(rare(part)))).map_or(0, |(at, _)| at)
    }
}

/// How rare the letters of a text are, all together.
pub(super) fn rare(text: &str) -> usize {
    text.bytes().map(rarity).sum()
}

fn rarity(byte: u8) -> usize {
    FREQUENT.iter().position(|known| *known == byte).unwrap_or(FREQUENT.len())
}

fn slots(text: &str) -> impl Iterator<Item = usize> {
    GRAMS.into_iter().flat_map(|gram| text.as_bytes().windows(gram)).map(slot)
}

fn slot(gram: &[u8]) -> usize {
    // FNV-1a.
    let hash = gram.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    (hash ^ (hash >> 15)) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_log_says_is_told_from_what_few_do() {
        let ordinary = Ordinary::new();
        assert!(ordinary.holding("connect: connection refused") > 5 && ordinary.holding("openshift") > 20);
        assert_eq!(ordinary.holding("VcpuLimitExceeded"), 0);
        // Looked for is the part of a text that says something of its own.
        for text in ["kubelet quarrels with kubelet", "image: sigstore key"] {
            let at = ordinary.rarest(text, 5);
            assert_eq!(ordinary.holding(&text[at..at + 5]), 0, "{text} at {at}");
        }
    }
}
