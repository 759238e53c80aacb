//! Is the terminal's background dark or light: the terminal is asked, with a deadline.
//!
//! The question is xterm's OSC 11, and after it comes a primary device attributes request (DA1), which every terminal
//! answers: when that answer is there, the first one will not come any more. Both must have been read before keys are.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::termios::{OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Background {
    #[default]
    Unknown,
    Dark,
    Light,
}

impl Background {
    /// `COLORFGBG`, as rxvt and Konsole set it: the last number is the colour of the background.
    pub fn of_variable(value: &str) -> Self {
        match value.rsplit(';').next().map(str::parse::<u8>) {
            Some(Ok(7 | 9..=15)) => Background::Light,
            Some(Ok(0..=6 | 8)) => Background::Dark,
            _ => Background::Unknown,
        }
    }

    /// From what a terminal answered: `ESC ] 11 ; rgb:ffff/ffff/ffff`, ended by BEL or ST.
    pub fn of_answer(answer: &[u8]) -> Self {
        let text = String::from_utf8_lossy(answer);
        let Some((_, colour)) = text.split_once("]11;rgb") else { return Background::Unknown };
        let colour = colour.trim_start_matches('a').trim_start_matches(':');
        let part = |text: &str| -> Option<f64> {
            let digits: String = text.chars().take_while(char::is_ascii_hexdigit).take(4).collect();
            let most = 16f64.powi(i32::try_from(digits.len()).ok()?) - 1.0;
            u32::from_str_radix(&digits, 16).ok().map(|value| f64::from(value) / most)
        };
        let parts: Option<Vec<f64>> = colour.split('/').take(3).map(part).collect();
        match parts.as_deref() {
            // Luma of ITU-R BT.601; the middle is dark enough for a dark theme.
            Some([red, green, blue]) if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 => Background::Light,
            Some([_, _, _]) => Background::Dark,
            _ => Background::Unknown,
        }
    }
}

/// All that was asked for is there.
fn complete(answer: &[u8]) -> bool {
    let Some(start) = answer.windows(3).position(|part| part == b"\x1b[?") else { return false };
    answer.get(start..).is_some_and(|rest| rest.contains(&b'c'))
}

/// Ask the terminal, which is in raw mode. What it has not said after `deadline` is not known.
///
/// # Errors
/// When the terminal cannot be written to or read.
pub fn ask(deadline: Duration) -> io::Result<Background> {
    let (mut out, input) = (io::stdout(), io::stdin());
    let fd = input.as_fd();
    let before = tcgetattr(fd)?;
    let mut timed = before.clone();
    // A read returns after a tenth of a second, with nothing.
    timed.special_codes[SpecialCodeIndex::VMIN] = 0;
    timed.special_codes[SpecialCodeIndex::VTIME] = 1;
    tcsetattr(fd, OptionalActions::Now, &timed)?;
    let mut answer = Vec::new();
    let asked = out.write_all(b"\x1b]11;?\x1b\\\x1b[c").and_then(|()| out.flush());
    let begun = Instant::now();
    while asked.is_ok() && begun.elapsed() < deadline && !complete(&answer) && answer.len() < 4096 {
        let mut bytes = [0; 256];
        match rustix::io::read(fd, &mut bytes) {
            Ok(count) => answer.extend_from_slice(bytes.get(..count).unwrap_or_default()),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    tcsetattr(fd, OptionalActions::Now, &before)?;
    asked.map(|()| Background::of_answer(&answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_terminals_answer_is_understood() {
        for (answer, expected) in [
            ("\x1b]11;rgb:ffff/ffff/ffff\x07", Background::Light),
            ("\x1b]11;rgb:1e1e/1e1e/2e2e\x1b\\\x1b[?62;22c", Background::Dark),
            ("\x1b]11;rgb:fd/f6/e3\x1b\\", Background::Light),
            ("\x1b]11;rgba:0000/0000/0000/8080\x1b\\", Background::Dark),
            ("\x1b[?62;22c", Background::Unknown),
            ("\x1b]11;rgb:\x07", Background::Unknown),
            ("", Background::Unknown),
        ] {
            assert_eq!(Background::of_answer(answer.as_bytes()), expected, "{answer:?}");
        }
        assert!(complete(b"\x1b]11;rgb:0/0/0\x07\x1b[?1;2c") && !complete(b"\x1b]11;rgb:0/0/0c\x07"));
        let variable = ["15;0", "0;15", "0;default;7", "", "x"].map(Background::of_variable);
        use Background::{Dark, Light, Unknown};
        assert_eq!(variable, [Dark, Light, Light, Unknown, Unknown]);
    }
}
