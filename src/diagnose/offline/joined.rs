//! Lines of an excerpt that make sense only together: whoever quoted them had a terminal, a mail or a page break them. What
//! tells is that a signature reads them as one and none of them by itself.

use super::folded::{ERROR, Folded, NARROW, breaks_word, indent, is_condition, word};
use super::sound::is_typed;

/// Lines that a message is broken into at most, between words and by a terminal, and fields that an object has.
const PIECES: usize = 10;
const ROWS: usize = 30;
const FIELDS: usize = 8;
/// No terminal is narrower.
const TERMINAL: usize = 60;
/// How a line begins that is one of its own.
const HEADS: &[&str] = &[
    "- ",
    "* ",
    "> ",
    "[",
    "{",
    "}",
    "│",
    "├",
    "└",
    "●",
    "|",
    "#",
    "time=",
    "level=",
    "TASK ",
    "PLAY ",
    "fatal: ",
    "ok: ",
    "changed: ",
    "failed: ",
    "error: ",
    "Error: ",
    "ERROR",
    "WARN",
    "INFO",
    "DEBU",
    "FATA",
    "panic: ",
    "goroutine ",
    "E   ",
    "Caused by",
    "Events:",
    "Type ",
    "NAME ",
];

/// What a text means to the catalogue: signatures by their places, each with its rank.
pub(super) type Hits = Vec<(usize, u32)>;

/// Where a line stands, and the line.
type Line = (u64, Vec<u8>);

/// The lines of an excerpt, those that belong together as one; `hits` tells what a text means.
pub(super) fn together(lines: Vec<Line>, mut hits: impl FnMut(&[u8]) -> Hits) -> Vec<Line> {
    let widest = lines.iter().map(|(_, line)| width(line)).max().unwrap_or_default();
    let is_full = |line: &[u8]| widest >= TERMINAL && width(line) == widest;
    let rows = chains(lines, ROWS, |line, next| is_full(line) && !begins(next, line));
    let unbroken: Vec<Line> = rows.into_iter().flat_map(|rows| if_more(rows, b"", &mut hits)).collect();
    let fields =
        chains(unbroken, FIELDS, |line, next| is_field(line) && is_field(next) && indent(line) == indent(next));
    let mut folded: Vec<Folded> = Vec::new();
    for (number, line) in fields.into_iter().flat_map(|fields| if_more(fields, b" ", &mut hits)) {
        if !folded.last_mut().is_some_and(|before| before.takes(&line)) {
            folded.push(Folded::new(number, line));
        }
    }
    let lines = folded.into_iter().map(|whole| (whole.number, whole.line)).collect();
    let paragraphs = chains(lines, PIECES, |line, next| goes_on(line, next) && !begins(next, line));
    let whole = paragraphs.into_iter().flat_map(|pieces| of_a_paragraph(pieces, &mut hits)).collect();
    completed(whole, &mut hits)
}

/// What a signature knows, and what breaks off before its reason, with the lines below it that have the reason.
fn completed(lines: Vec<Line>, hits: &mut impl FnMut(&[u8]) -> Hits) -> Vec<Line> {
    let mut whole: Vec<Line> = Vec::new();
    let (mut open, mut blank) = (false, Vec::new());
    for (number, line) in lines {
        let known = !hits(&line).is_empty();
        let own = known || is_typed(&line) || whole.last().is_none_or(|(_, last)| is_apart(&line, last));
        match whole.last_mut().filter(|_| open) {
            Some(_) if line.trim_ascii().is_empty() => {
                blank.push((number, line));
                continue;
            }
            Some((_, before)) if !own => {
                append(before, &line);
                blank.clear();
            }
            _ => {
                whole.append(&mut blank);
                open = known && (line.len() >= NARROW || line.starts_with(ERROR));
                whole.push((number, line));
            }
        }
        open = open && whole.last().is_some_and(|(_, last)| last.trim_ascii().ends_with(b":"));
    }
    whole.append(&mut blank);
    whole
}

/// Whether a line has nothing to do with the one before it. What that one's program was told by another may have a date.
fn is_apart(line: &[u8], before: &[u8]) -> bool {
    let words = line.trim_ascii_start();
    if is_dated(words) { is_dated(before.trim_ascii_start()) } else { begins(line, before) }
}

/// Lines, each with those after it that `go_on`.
fn chains(lines: Vec<Line>, most: usize, go_on: impl Fn(&[u8], &[u8]) -> bool) -> Vec<Vec<Line>> {
    let mut chains: Vec<Vec<Line>> = Vec::new();
    for line in lines {
        let last = chains.last_mut().filter(|chain| {
            chain.len() < most && chain.last().is_some_and(|(_, last)| !is_typed(last) && go_on(last, &line.1))
        });
        match last {
            Some(chain) => chain.push(line),
            None => chains.push(vec![line]),
        }
    }
    chains
}

/// All of these as one line if that means more than they do: rows of a terminal, which was full, or fields of an object.
fn if_more(lines: Vec<Line>, between: &[u8], hits: &mut impl FnMut(&[u8]) -> Hits) -> Vec<Line> {
    let Some(number) = lines.first().filter(|_| lines.len() > 1).map(|(number, _)| *number) else { return lines };
    let known: Vec<usize> = lines.iter().flat_map(|(_, line)| places(hits(line))).collect();
    let texts: Vec<&[u8]> =
        lines.iter().map(|(_, line)| if between.is_empty() { line } else { line.trim_ascii() }).collect();
    let whole = texts.join(between);
    let is_new = places(hits(&whole)).any(|place| !known.contains(&place));
    if is_new { vec![(number, whole)] } else { lines }
}

/// Of these pieces those are put together that mean as one what none of them means: the nearest to a cause, the fewest, but
/// from the head of a message if there is one.
fn of_a_paragraph(mut pieces: Vec<Line>, hits: &mut impl FnMut(&[u8]) -> Hits) -> Vec<Line> {
    let alone: Vec<Vec<usize>> = match pieces.len() {
        0 | 1 => return pieces,
        _ => pieces.iter().map(|(_, piece)| places(hits(piece)).collect()).collect(),
    };
    let is_headed = pieces.first().is_some_and(|(_, first)| is_dated(first.trim_ascii_start()));
    let mut best: Option<(u32, bool, usize, usize)> = None;
    for (from, (_, first)) in pieces.iter().enumerate() {
        let (mut text, mut known) = (first.clone(), Vec::new());
        known.extend(alone.get(from).into_iter().flatten());
        for (more, ((_, next), its)) in pieces.iter().zip(&alone).skip(from + 1).enumerate() {
            append(&mut text, next);
            known.extend(its);
            let new = hits(&text).into_iter().filter(|(place, _)| !known.contains(&place));
            let found = new.map(|(_, rank)| (rank, is_headed && from > 0, more, from)).min();
            best = match (best, found) {
                (Some(best), Some(found)) => Some(best.min(found)),
                (best, found) => best.or(found),
            };
        }
    }
    if let Some((.., more, from)) = best {
        let rest: Vec<Line> = pieces.drain(from + 1..from + more + 2).collect();
        if let Some((_, first)) = pieces.get_mut(from) {
            rest.iter().for_each(|(_, next)| append(first, next));
        }
    }
    pieces
}

fn places(hits: Hits) -> impl Iterator<Item = usize> {
    hits.into_iter().map(|(place, _)| place)
}

/// Put a piece behind one that was broken between words.
fn append(line: &mut Vec<u8>, next: &[u8]) {
    line.truncate(line.trim_ascii_end().len());
    if !breaks_word(line, next) {
        line.push(b' ');
    }
    line.extend_from_slice(next.trim_ascii());
}

/// `"status": "False",` or `status: "False"`, what an object says of itself.
fn is_field(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    let name = line.iter().position(|byte| *byte == b':').and_then(|end| line.get(..end)).unwrap_or(b"");
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphabetic() || *byte == b'"')
}

fn width(line: &[u8]) -> usize {
    String::from_utf8_lossy(line).chars().count()
}

/// Whether the next line may be the rest of this one, which was broken between words.
fn goes_on(line: &[u8], next: &[u8]) -> bool {
    let line = line.trim_ascii();
    let stops = line.ends_with(b":") || line.len() >= NARROW && !line.ends_with(b".");
    stops && !next.first().is_some_and(u8::is_ascii_digit)
}

/// Whether a line is no rest of another, however that was broken.
fn begins(line: &[u8], before: &[u8]) -> bool {
    let words = line.trim_ascii_start();
    let is_key = word(words).ends_with(b":") && indent(line) > 0 && indent(line) == indent(before);
    words.is_empty()
        || is_key
        || is_condition(word(words))
        || is_dated(words)
        || is_typed(words)
        || HEADS.iter().any(|head| words.starts_with(head.as_bytes()))
}

/// `Jan 25 02:48:52`, `2023-01-25`, `2023/01/25`, klog's `E0125 `.
fn is_dated(line: &[u8]) -> bool {
    let digits = |digits: &[u8]| digits.iter().all(u8::is_ascii_digit);
    match line {
        [a, b, c, b' ', d, e, b' ', ..] => {
            [a, b, c].iter().all(|letter| letter.is_ascii_alphabetic())
                && (*d == b' ' || digits(&[*d]))
                && digits(&[*e])
        }
        [b'I' | b'W' | b'E' | b'F', a, b, c, d, b' ', ..] | [a, b, c, d, b'-' | b'/', ..] => digits(&[*a, *b, *c, *d]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The catalogue of this test knows `a ship sinks`, and a `ship` alone less well.
    fn hits(text: &[u8]) -> Hits {
        let says = |words: &str| String::from_utf8_lossy(text).contains(words);
        [("that a ship sinks", 5), ("ship", 50)]
            .iter()
            .enumerate()
            .filter(|(_, (words, _))| says(words))
            .map(|(at, (_, rank))| (at, *rank))
            .collect()
    }

    fn whole(text: &str) -> Vec<String> {
        let lines = text.lines().zip(1..).map(|(line, number)| (number, line.as_bytes().to_vec())).collect();
        together(lines, hits)
            .into_iter()
            .map(|(number, line)| format!("{number} {}", String::from_utf8_lossy(&line)))
            .collect()
    }

    #[test]
    fn pieces_that_mean_more_together_are_one_line() {
        let head = "the harbour master's log says of yesterday's evening";
        assert_eq!(
            whole(&format!("calm sea\n{head} that a\nship sinks")),
            ["1 calm sea", &format!("2 {head} that a ship sinks")]
        );
        assert_eq!(whole(&format!("{head} that a\nShip's Bell")).len(), 2, "what means nothing more is left as it is");
    }

    #[test]
    fn what_breaks_off_before_its_reason_is_read_with_it() {
        let head = "the harbour master's log says of yesterday's evening: a ship is";
        let text = format!("{head}:\n\n2023-05-18 the mole is:\nbroken\nand that is all");
        assert_eq!(whole(&text), [format!("1 {head}: 2023-05-18 the mole is: broken"), "5 and that is all".to_owned()]);
        assert_eq!(whole(&format!("{head}:\n- broken")).len(), 2, "a list");
        assert_eq!(whole(&format!("{head}:\n$ ls")).len(), 2, "what somebody typed");
    }

    #[test]
    fn a_terminal_breaks_in_the_middle_of_a_word() {
        let (first, second) = ("x".repeat(70) + " that a shi", "p sinks off the mole");
        assert_eq!(whole(&format!("{first}\n{second}")), [format!("1 {first}{second}")]);
    }

    #[test]
    fn fields_of_an_object_are_read_together() {
        assert_eq!(whole("{\n  \"says\": \"that a\n  \"type\": x\n}").len(), 4);
        assert_eq!(whole("{\n  says: that a\n  ship sinks: x\n}").len(), 4, "no name of a field");
        let hits = |text: &[u8]| if text == b"says: a ship, sinks: true" { vec![(0, 5)] } else { vec![] };
        let lines = ["object:", "  says: a ship,", "  sinks: true"].map(|line| (1, line.as_bytes().to_vec()));
        assert_eq!(together(lines.to_vec(), hits).len(), 2);
    }

    #[test]
    fn what_begins_a_message_is_no_rest() {
        let head = "the harbour master's log says of yesterday's evening that a";
        for next in [
            "Jan 25 02:48:52 ship sinks",
            "E0125 ship sinks",
            "2023-01-25 ship sinks",
            "error: ship sinks",
            "$ ship sinks",
        ] {
            let next = next.replace("ship sinks", "a ship sinks");
            assert_eq!(whole(&format!("{head}\n{next}")).len(), 2, "{next}");
        }
    }
}
