//! Text to tree, and what is refused before the parser sees it.

use brush_parser::ast::Program;
use brush_parser::{Parser, ParserOptions};

use super::{MAX_BRACKETS, MAX_PARENS, MAX_TEXT};

/// The tree of a script, or what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Program, String> {
    if text.len() > MAX_TEXT {
        return Err("the command is too long".to_owned());
    }
    check_depth(text)?;
    let options = ParserOptions { enable_extended_globbing: false, ..ParserOptions::default() };
    Parser::new(std::io::Cursor::new(text), &options).parse_program().map_err(|error| {
        let error = error.to_string();
        format!("syntax error: {}", error.lines().next().unwrap_or_default())
    })
}

/// Refuse what the parser would need too much stack or time for.
pub(super) fn check_depth(text: &str) -> Result<(), String> {
    let (mut brackets, mut parens, mut run, mut words) = (0usize, 0usize, 0usize, 0usize);
    let mut digits = 0;
    for c in text.chars() {
        match c {
            '(' => {
                parens += 1;
                run += 1;
            }
            ')' => parens = parens.saturating_sub(1),
            '{' => brackets += 1,
            '}' => brackets = brackets.saturating_sub(1),
            _ => {}
        }
        if c != '(' && !c.is_whitespace() {
            run = 0;
        }
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        if brackets > MAX_BRACKETS || parens > MAX_BRACKETS || run > MAX_PARENS {
            return Err("too many brackets inside each other".to_owned());
        }
        if digits == 19 && text.contains('~') {
            return Err("the number is too large".to_owned());
        }
    }
    for word in text.split(|c: char| c.is_whitespace() || c == ';') {
        match word {
            "if" | "while" | "until" | "case" | "for" | "!" => words += 1,
            "fi" | "done" | "esac" => words = words.saturating_sub(1),
            _ => {}
        }
        if words > 200 {
            return Err("too many commands inside each other".to_owned());
        }
    }
    Ok(())
}
