//! Plain texts that a regular expression cannot do without.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Texts that are looked for in the place of one stretch of a pattern.
const ALTERNATIVES: usize = 48;
/// Letters of a class that are taken for alternatives: `[Ff]`.
const LETTERS: usize = 4;

/// How good a group of texts is to look for, more being better.
pub(super) type Worth<'a> = &'a dyn Fn(&[String]) -> i64;

/// Groups of texts: of each group one stands in every line that is matched. No quotes and backslashes are in them, so
/// that they are found in lines that are still wrapped into JSON or logfmt as well.
pub(super) fn groups(hir: &Hir, worth: Worth<'_>) -> Vec<Vec<String>> {
    match hir.kind() {
        HirKind::Concat(parts) => stretches(parts, worth),
        HirKind::Capture(capture) => groups(&capture.sub, worth),
        HirKind::Repetition(repetition) if repetition.min > 0 => groups(&repetition.sub, worth),
        HirKind::Alternation(parts) => {
            let best = |part: &Hir| groups(part, worth).into_iter().max_by_key(|group| worth(group));
            let each: Option<Vec<Vec<String>>> = parts.iter().map(best).collect();
            each.map(|each| each.concat()).filter(|all| all.len() <= ALTERNATIVES).into_iter().collect()
        }
        HirKind::Repetition(_) => Vec::new(),
        HirKind::Literal(_) | HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) => {
            exactly(hir).iter().flat_map(|texts| plain(texts)).collect()
        }
    }
}

/// What parts that stand one behind the other cannot do without: `(?:unable|failed) to (?:read|open)` are four texts.
fn stretches(parts: &[Hir], worth: Worth<'_>) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut stretch: Option<Vec<String>> = None;
    for part in flat(parts) {
        // What is there once or more often ends one stretch and begins the next one.
        let (texts, ends) = match part.kind() {
            HirKind::Repetition(repetition) if repetition.min > 0 => (exactly(&repetition.sub), true),
            _ => (exactly(part), false),
        };
        // Alone as well: one long word can be better than many combinations of it.
        match &texts {
            Some(texts) => found.extend(plain(texts)),
            None => found.extend(groups(part, worth)),
        }
        let longer = stretch.as_ref().zip(texts.as_ref()).and_then(|(before, texts)| each_with_each(before, texts));
        let whole =
            if ends { longer.as_ref().or(stretch.as_ref()) } else { stretch.as_ref().filter(|_| longer.is_none()) };
        found.extend(whole.iter().flat_map(|whole| plain(whole)));
        stretch = if ends { texts } else { longer.or(texts) };
    }
    found.extend(stretch.iter().flat_map(|stretch| plain(stretch)));
    found
}

/// The parts of captures as well.
fn flat(parts: &[Hir]) -> Vec<&Hir> {
    let within = |part| match Hir::kind(part) {
        HirKind::Capture(capture) => flat(std::slice::from_ref(&capture.sub)),
        HirKind::Concat(parts) => flat(parts),
        _ => vec![part],
    };
    parts.iter().flat_map(within).collect()
}

/// All the texts that it matches, when they are few.
fn exactly(hir: &Hir) -> Option<Vec<String>> {
    let texts = match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => vec![String::new()],
        HirKind::Literal(literal) => vec![String::from_utf8(literal.0.to_vec()).ok()?],
        HirKind::Class(Class::Unicode(class)) => {
            let letters = class.iter().flat_map(|range| range.start()..=range.end());
            letters.take(LETTERS + 1).map(String::from).collect()
        }
        HirKind::Class(Class::Bytes(class)) => {
            let letters = class.iter().flat_map(|range| range.start()..=range.end());
            let letters =
                letters.take(LETTERS + 1).map(|letter| letter.is_ascii().then(|| char::from(letter).to_string()));
            letters.collect::<Option<_>>()?
        }
        HirKind::Capture(capture) => exactly(&capture.sub)?,
        HirKind::Repetition(repetition) if repetition.min == 0 && repetition.max == Some(1) => {
            let mut texts = exactly(&repetition.sub)?;
            texts.push(String::new());
            texts
        }
        HirKind::Repetition(_) => return None,
        HirKind::Alternation(parts) => parts.iter().map(exactly).collect::<Option<Vec<_>>>()?.concat(),
        HirKind::Concat(parts) => {
            parts.iter().try_fold(vec![String::new()], |before, part| each_with_each(&before, &exactly(part)?))?
        }
    };
    let limit = if matches!(hir.kind(), HirKind::Class(_)) { LETTERS } else { ALTERNATIVES };
    Some(texts).filter(|texts| texts.len() <= limit)
}

fn each_with_each(before: &[String], after: &[String]) -> Option<Vec<String>> {
    let few = before.len() * after.len() <= ALTERNATIVES;
    few.then(|| before.iter().flat_map(|first| after.iter().map(move |then| format!("{first}{then}"))).collect())
}

/// Groups of what stands between quotes and line ends in these texts: of one text all parts, of several the longest each.
fn plain(texts: &[String]) -> Vec<Vec<String>> {
    let parts = |text: &str| -> Vec<String> {
        let parts = text.split(['"', '\\', '\n', '\t', '\u{fffd}']);
        parts.filter(|part| part.len() > 1).map(str::to_owned).collect()
    };
    if let [text] = texts {
        return parts(text).into_iter().map(|part| vec![part]).collect();
    }
    let longest = |text: &String| parts(text).into_iter().max_by_key(String::len);
    let mut group: Vec<String> = texts.iter().map(longest).collect::<Option<_>>().unwrap_or_default();
    group.sort_unstable();
    group.dedup();
    if group.is_empty() { Vec::new() } else { vec![group] }
}
