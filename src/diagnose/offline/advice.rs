//! What to do about a failure that no signature knows, by the kind of its words: `assets/unknown.toml`.

use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;

static ADVICE: LazyLock<Option<Advice>> =
    LazyLock::new(|| toml::from_str(include_str!("../../../assets/unknown.toml")).ok());

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advice {
    fix: String,
    kind: Vec<Kind>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kind {
    when: String,
    fix: String,
    /// A line that is of this kind, for the test.
    #[cfg_attr(not(test), expect(dead_code, reason = "the test of the data reads it"))]
    example: String,
}

/// What to try first, one sentence.
pub(super) fn on(words: &str) -> Option<&'static str> {
    let advice = ADVICE.as_ref()?;
    let says = |kind: &&Kind| Regex::new(&kind.when).is_ok_and(|when| when.is_match(words));
    Some(advice.kind.iter().find(says).map_or(&advice.fix, |kind| &kind.fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_valid_and_takes_its_example() {
        let advice = ADVICE.as_ref().unwrap();
        for kind in &advice.kind {
            Regex::new(&kind.when).unwrap();
            assert_eq!(on(&kind.example), Some(kind.fix.as_str()), "{}", kind.example);
        }
        assert_eq!(on("the whale sings"), Some(advice.fix.as_str()));
    }
}
