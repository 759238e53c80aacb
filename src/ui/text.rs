//! Text as it may stand in a cell: measured, cut and cleaned.
//!
//! Every string of the outside passes [`printable`] on its way to the screen, the clipboard or a notification, even
//! though the record has already been cleaned: this is the last gate. Widths are those ratatui gives to cells.

use std::borrow::Cow;

use jiff::Timestamp;
use ratatui::buffer::CellWidth;
use unicode_segmentation::UnicodeSegmentation;

use crate::model::text::{is_invisible, strip_control};

/// `text` on one line, without escape sequences, control characters and direction overrides.
pub fn printable(text: &str) -> Cow<'_, str> {
    let clean = |c: char| !(c.is_control() || is_invisible(c) || matches!(c, '\u{2028}' | '\u{2029}'));
    if text.chars().all(clean) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(strip_control(text).replace('\n', " "))
}

/// Cells that a grapheme takes.
fn cells(grapheme: &str) -> usize {
    usize::from(grapheme.cell_width())
}

/// Cells that `text` takes on the screen.
pub fn width(text: &str) -> usize {
    printable(text).graphemes(true).map(cells).sum()
}

/// The beginning of `text` in at most `room` cells, with `ellipsis` when something is missing. Never splits a grapheme.
pub fn cut(text: &str, room: usize, ellipsis: &str) -> String {
    slice(text, 0, room, ellipsis)
}

/// As [`cut`], from `skip` cells on.
pub fn slice(text: &str, skip: usize, room: usize, ellipsis: &str) -> String {
    let clean = printable(text);
    let mut out = String::new();
    let mut skipped = 0;
    let mut used = 0;
    // Length of `out` and its cells at the last place where the ellipsis still fits.
    let mut fits = (0, 0);
    let tail = width(ellipsis);
    for grapheme in clean.graphemes(true) {
        let size = cells(grapheme);
        if size == 0 {
            continue;
        }
        if skipped < skip {
            skipped += size;
            continue;
        }
        if used + size > room {
            if tail <= room {
                out.truncate(fits.0);
                out.push_str(ellipsis);
            }
            return out;
        }
        out.push_str(grapheme);
        used += size;
        if used + tail <= room {
            fits = (out.len(), used);
        }
    }
    out
}

/// [`cut`], then blanks up to exactly `room` cells.
pub fn pad(text: &str, room: usize, ellipsis: &str) -> String {
    let mut out = cut(text, room, ellipsis);
    let used = width(&out);
    out.extend(std::iter::repeat_n(' ', room.saturating_sub(used)));
    out
}

/// [`pad`] with the blanks before the text.
pub fn pad_left(text: &str, room: usize) -> String {
    let text = cut(text, room, "");
    let used = width(&text);
    format!("{}{text}", " ".repeat(room.saturating_sub(used)))
}

/// `text` in rows of at most `room` cells, at most `most` rows; breaks at blanks where it can.
pub fn wrap(text: &str, room: usize, most: usize) -> Vec<String> {
    let mut rows = Vec::new();
    if room == 0 || most == 0 {
        return rows;
    }
    let clean = printable(text);
    let mut row = String::new();
    let mut used = 0;
    for word in clean.split_word_bounds() {
        let size: usize = word.graphemes(true).map(cells).sum();
        if used + size > room && used > 0 && size <= room {
            rows.push(std::mem::take(&mut row));
            used = 0;
        }
        if size <= room {
            if used == 0 && word.trim().is_empty() && !rows.is_empty() {
                continue;
            }
            row.push_str(word);
            used += size;
        } else {
            for grapheme in word.graphemes(true) {
                let size = cells(grapheme);
                if used + size > room {
                    rows.push(std::mem::take(&mut row));
                    used = 0;
                    if rows.len() >= most {
                        return rows;
                    }
                }
                if size <= room {
                    row.push_str(grapheme);
                    used += size;
                }
            }
        }
        if rows.len() >= most {
            return rows;
        }
    }
    if !row.is_empty() || rows.is_empty() {
        rows.push(row);
    }
    rows
}

/// Seconds from `from` to `to`, never negative.
pub fn seconds(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_secs()).unwrap_or(0)
}

/// `0:07`, `21:14`, `1:02:33`.
pub fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// A clock that still runs, in what changes at most once a minute: `<1m`, `21m`, `1h02m`. Every digit that moves is sent
/// over the operator's line each time; the seconds of the stage stand in the header.
pub fn running(seconds: u64) -> String {
    match seconds {
        0..60 => "<1m".to_owned(),
        60..3600 => format!("{}m", seconds / 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// `00:21:14`, for places that must not move.
pub fn long_clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// `7s`, `6m`, `3h`, `2d`: an age in one unit.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// [`age`], in what changes at most once a minute: `<1m`, `6m`, `3h`.
pub fn since(seconds: u64) -> String {
    if seconds < 60 { "<1m".to_owned() } else { age(seconds) }
}

/// `10:02:11` in UTC, as journals and installer logs are.
pub fn time_of_day(at: Timestamp) -> String {
    at.strftime("%H:%M:%S").to_string()
}

/// `812 B`, `4.2 MiB`, `1.31 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if value >= 100.0 {
        format!("{value:.0} {unit}")
    } else if value >= 10.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.2} {unit}")
    }
}

/// `1,234,567`: a number that is exact.
pub fn exact(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_leave_nothing_behind() {
        assert_eq!(printable("\u{1b}[31mred\u{1b}[0m"), "red");
        assert_eq!(printable("\u{1b}]0;owned\u{7}title"), "title");
        assert_eq!(printable("\u{1b}]52;c;AAAA\u{1b}\\copy"), "copy");
        assert_eq!(printable("a\u{9b}2Jb\u{202e}c\rd\te\u{0}"), "abcd e");
        assert_eq!(printable("half \u{1b}["), "half ");
    }

    #[test]
    fn cutting_counts_cells_and_keeps_graphemes_whole() {
        assert_eq!(cut("registry", 5, "…"), "regi…");
        assert_eq!(cut("漢字漢字", 5, "…"), "漢字…");
        assert_eq!(cut("漢字", 1, "…"), "…");
        assert_eq!(cut("👨‍👩‍👧‍👦 family", 3, ""), "👨‍👩‍👧‍👦 ");
        assert_eq!(width(&pad("한글\u{301}", 8, "…")), 8);
        assert_eq!(slice("0123456789", 4, 3, ""), "456");
        assert_eq!(cut("\u{301}a", 0, "…"), "");
    }

    #[test]
    fn wrapping_never_makes_a_row_too_wide() {
        let text = "x509: certificate signed by unknown authority 漢字漢字漢字 aaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        for room in 1..40 {
            assert!(wrap(text, room, 100).iter().all(|row| width(row) <= room), "{room}");
        }
        assert_eq!(wrap("one two", 4, 9), ["one ", "two"]);
    }

    #[test]
    fn numbers_read_as_the_field_writes_them() {
        assert_eq!(clock(194), "3:14");
        assert_eq!(clock(3753), "1:02:33");
        assert_eq!(bytes(1_406_000_000), "1.31 GiB");
        assert_eq!(bytes(800), "800 B");
        assert_eq!(exact(12_345_678), "12,345,678");
        assert_eq!(age(400), "6m");
    }
}
