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
        let mut least = u16::MAX;
        for count in slots(text).filter_map(|slot| self.0.get(slot)) {
            least = least.min(*count);
            if least == 0 {
                break;
            }
        }
        least
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
    const RARITY: [u8; 256] = {
        let mut rarity = [FREQUENT.len() as u8; 256];
        let mut place = 0;
        while place < FREQUENT.len() {
            rarity[FREQUENT[place] as usize] = place as u8;
            place += 1;
        }
        rarity
    };
    usize::from(RARITY[usize::from(byte)])
}

fn slots(text: &str) -> impl Iterator<Item = usize> {
    GRAMS.into_iter().flat_map(|gram| text.as_bytes().windows(gram)).map(slot)
}

/// Of at most eight bytes.
fn slot(gram: &[u8]) -> usize {
    let number = gram.iter().rev().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SLOTS.ilog2())) as usize
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
