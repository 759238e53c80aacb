//! How a line sounds, whoever says it: whether a program ends with it, how loud it says that something is wrong, and where
//! in it the reason stands.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Match, Regex, bytes};

use crate::diagnose::line::decoded;
use crate::model::event::Level;

/// How lines begin with which a program ends for good, and with an error that may not be the last one. Lines of the
/// journal and of klog are none: what goes on says frightening things there all the time.
const LAST: &[&str] = &["FATAL ", "FATA[", "fatal: ", "fatal error: ", "panic: "];
const ERROR: &[&str] = &[
    "ERROR ",
    "ERRO[",
    "[ERROR]",
    "Error: ",
    "error: ",
    // Ansible goes on after some of its fatal errors.
    "fatal: [",
    "Failed to ",
    "failed to ",
    "Unable to ",
    "unable to ",
    "Could not ",
    "could not ",
    "Cannot ",
    "cannot ",
];
/// Bytes at the beginning of a line of logfmt that hold its level.
const HEAD: usize = 80;
/// Bytes of a message that does not say what it is about.
const TERSE: usize = 60;

/// What is looked for in every line until it is found.
static ANY: LazyLock<Option<bytes::Regex>> =
    LazyLock::new(|| bytes::Regex::new("error|Error|ERROR|fatal|FATAL|panic:|Failed to ").ok());
/// How a line sounds that says what is wrong, and one that says only that something is.
static WHAT: LazyLock<Option<bytes::Regex>> = LazyLock::new(|| {
    let words = [
        "denied|forbidden|refused|can ?not|can'?t|couldn'?t|could not|invalid|no such|missing|unknown|expired|rejected",
        "timed out|timeout|exceed(?:ed|s)?|unsupported|conflicts?|mismatch|unauthorized|insufficient|must|EOF",
        "(?:do|did|does|is|are|was|were|has|have|will) not|(?:do|did|does|is|are|was|were|has|have)n't|won't",
        r"not (?:\w+ble|allowed|authorized|enough|found|loaded|permitted|ready|satisfied|supported|trusted|valid)",
        r"no (?:space|route|longer|usable)|has no|there is no|no (?:\S+ ){1,5}found|nothing provides|never \w+ed",
        "unavailable|unreachable|unrecognized|already exists|in use|reset by peer|block(?:ed|ing)|busy",
        "required|expected|incompatible|too (?:old|new|large|small|long|many|few)|out of|exhausted|corrupt(?:ed)?|undefined",
        "null pointer|interrupted|killed",
    ];
    bytes::Regex::new(&format!(r"(?i-u)\b(?:{})\b", words.join("|"))).ok()
});
static THAT: LazyLock<Option<bytes::Regex>> = LazyLock::new(|| {
    bytes::Regex::new(
        "(?i-u)error|fail|fatal|unable|panic|unexpected|degrade|stuck| != |warning|problem|backoff|abort|crash",
    )
    .ok()
});
/// How it sounds when nothing louder does.
static FAINT: LazyLock<Option<bytes::Regex>> = LazyLock::new(|| {
    bytes::Regex::new(
        r"(?i-u)\b(?:not|never|un(?:ready|healthy|schedulable|trusted|signed|stable)|lost|wrong|outofdisk|still|retry(?:ing)?|waiting|pending|closed|cycle|drop(?:ped|ping)|evict(?:ed|ing)|stale|slow|roll(?:ing )?back|election|shutting down|no \w+ (?:configured|available|given|set|defined))\b",
    )
    .ok()
});
/// Where loggers put a message and its error: behind the head of klog, in logfmt, in the JSON of zap and others.
static KLOG: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[IWEF]\d{4} \S+ +\d+ (\S+\] )").ok());
static MESSAGE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"(?:\bmsg="|"(?:msg|message)": ?"|^")((?:[^"\\]|\\.)+)""#).ok());
static REASON: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"(?:\berr(?:or)?="|"err(?:or)?": ?")((?:[^"\\]|\\.)+)""#).ok());

/// Whether a program ends with this line: an error for good, a warning perhaps.
pub(super) fn ends(line: &[u8]) -> Option<Level> {
    let line = line.strip_prefix("│ ".as_bytes()).unwrap_or(line);
    let begins = |starts: &[&str]| starts.iter().any(|start| line.starts_with(start.as_bytes()));
    let says = |word: &str| memchr::memmem::find(line.get(..HEAD).unwrap_or(line), word.as_bytes()).is_some();
    match line.first()? {
        b'0'..=b'9' => {
            let behind_time = line.get(19..)?.trim_ascii_start();
            behind_time.starts_with(b"[ERROR]").then_some(Level::Warn)
        }
        b't' | b'l' if !begins(&["time=\"", "level="]) => None,
        b't' | b'l' if says("level=fatal") => Some(Level::Error),
        b't' | b'l' => says("level=error").then_some(Level::Warn),
        _ if begins(ERROR) => Some(Level::Warn),
        _ => begins(LAST).then_some(Level::Error),
    }
}

/// What somebody typed at a prompt.
pub(super) fn is_typed(line: &[u8]) -> bool {
    ["$ ", "# ", "+"].iter().any(|prompt| line.starts_with(prompt.as_bytes()))
        || ["]$ ", "]# ", "~$ "].iter().any(|prompt| memchr::memmem::find(line, prompt.as_bytes()).is_some())
}

/// Two have written the same object; the one that was late tries again by itself.
pub(super) fn is_conflict(line: &[u8]) -> bool {
    memchr::memmem::find(line, b"the object has been modified; please apply your changes").is_some()
}

/// A condition's field of one word (the message beside it says more), or a level without a message.
pub(super) fn is_field(line: &[u8]) -> bool {
    let line = line.trim_ascii().to_ascii_lowercase();
    let words: Vec<&[u8]> =
        line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty() && *word != b"-").collect();
    matches!(words.as_slice(), [b"reason:" | b"type:" | b"status:", _] | [b"level=error"])
}

/// What a push or copy need not bring.
pub(super) fn is_there(line: &[u8]) -> bool {
    ["Layer already exists", "skipped: already exists"]
        .iter()
        .any(|end| line.trim_ascii_end().ends_with(end.as_bytes()))
}

/// How Ansible counts at its end what it did on each machine.
pub(super) fn is_tally(line: &[u8]) -> bool {
    [" ok=", " unreachable=", " failed="].iter().all(|count| memchr::memmem::find(line, count.as_bytes()).is_some())
}

pub(super) fn says_error(line: &[u8]) -> bool {
    matches(&ANY, line)
}

/// From 0 to 3: most for words that say what is wrong and that it is.
pub(super) fn loudness(line: &[u8]) -> u32 {
    2 * u32::from(matches(&WHAT, line)) + u32::from(matches(&THAT, line))
}

/// Whether a line that is not loud at all may still say what is wrong.
pub(super) fn is_faint(line: &[u8]) -> bool {
    matches(&FAINT, line)
}

fn matches(words: &LazyLock<Option<bytes::Regex>>, line: &[u8]) -> bool {
    words.as_ref().is_some_and(|words| words.is_match(line))
}

/// Without the head of klog, or that of the installer.
pub(super) fn headless(text: &str) -> &str {
    let text = head(text, 0).map_or(text, |head| text.get(head.end()..).unwrap_or(text));
    match text.split_once(" msg=") {
        Some((level, message)) if level.strip_prefix("level=").is_some_and(|word| !word.contains(' ')) => message,
        _ => text,
    }
}

/// Without time and process of the head of klog: of a few words the place in the source says what they are about.
pub(super) fn placed(text: &str) -> &str {
    let message = headless(text);
    match head(text, 1).filter(|_| message.len() < TERSE) {
        Some(place) => text.get(place.start()..).unwrap_or(message),
        None => message,
    }
}

fn head(text: &str, group: usize) -> Option<Match<'_>> {
    KLOG.as_ref()?.captures(text)?.get(group)
}

/// Of a line with fields its message and its error, of any other the whole.
pub(super) fn reason(text: &str) -> Cow<'_, str> {
    let text = headless(text);
    let field = |of: &LazyLock<Option<Regex>>| {
        let found = of.as_ref()?.captures(text)?.get(1)?;
        Some(decoded(found.as_str()))
    };
    match (field(&MESSAGE), field(&REASON)) {
        (Some(message), Some(error)) if !message.contains(&*error) => Cow::Owned(format!("{message}: {error}")),
        (Some(error), _) if text.starts_with('{') => error,
        (None, Some(error)) => error,
        _ => Cow::Borrowed(text),
    }
}

/// Whether it only says that it failed.
pub(super) fn is_vague(why: &str) -> bool {
    why.len() < 20
        || why.trim_end().ends_with(':')
        || ["exit status 1", "failed", "errors occurred", "failed to complete", "errors", "failure"]
            .iter()
            .any(|end| why.trim_end_matches(['.', ' ']).ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_one_word_is_no_complaint() {
        assert!(
            is_field(b"    type: Degraded")
                && is_field(b"  Reason:   RegistryServerError")
                && is_field(b"- type: Failed")
        );
        assert!(!is_field(b"  Reason: no such image") && !is_field(b"error: Degraded"));
    }

    #[test]
    fn of_a_few_words_the_place_in_the_source_says_what_they_are_about() {
        let head = "E0622 13:54:11.540867       1 degraded_webhook.go:128] ";
        let short = "dial tcp 10.1.1.249:443: i/o timeout";
        assert_eq!(placed(&format!("{head}{short}")), format!("degraded_webhook.go:128] {short}"));
        let long =
            "failed calling webhook \"x.io\": Post \"https://x.ns.svc:443/\": dial tcp 10.1.1.249:443: i/o timeout";
        assert_eq!(placed(&format!("{head}{long}")), long);
        assert_eq!(placed(short), short);
    }
}
