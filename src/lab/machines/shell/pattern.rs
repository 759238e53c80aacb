//! Shell patterns: `*`, `?`, `[…]`, with `\` before what stands for itself.

enum Token {
    Literal(char),
    Any,
    Many,
    Set { negated: bool, ranges: Vec<(char, char)> },
}

/// A pattern, ready to match.
pub(crate) struct Pattern(Vec<Token>);

impl Pattern {
    pub fn new(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let mut tokens = Vec::new();
        let mut at = 0;
        while let Some(&c) = chars.get(at) {
            at += 1;
            match c {
                '\\' => {
                    tokens.push(Token::Literal(chars.get(at).copied().unwrap_or('\\')));
                    at += 1;
                }
                '*' => tokens.push(Token::Many),
                '?' => tokens.push(Token::Any),
                '[' => match set(&chars, at) {
                    Some((token, next)) => {
                        tokens.push(token);
                        at = next;
                    }
                    None => tokens.push(Token::Literal('[')),
                },
                c => tokens.push(Token::Literal(c)),
            }
        }
        Self(tokens)
    }

    /// Whether the whole text matches.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        self.matches_chars(&text)
    }

    pub fn matches_chars(&self, text: &[char]) -> bool {
        let (mut token, mut at) = (0, 0);
        // Where to go on when what follows the last `*` did not fit.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            let fits = match self.0.get(token) {
                Some(Token::Many) => {
                    retry = Some((token + 1, at));
                    token += 1;
                    continue;
                }
                Some(one) => text.get(at).is_some_and(|c| one.fits(*c)),
                None if at == text.len() => return true,
                None => false,
            };
            if fits {
                (token, at) = (token + 1, at + 1);
                continue;
            }
            match retry {
                Some((after, from)) if from < text.len() => {
                    retry = Some((after, from + 1));
                    (token, at) = (after, from + 1);
                }
                _ => return false,
            }
        }
    }
}

impl Token {
    fn fits(&self, c: char) -> bool {
        match self {
            Token::Literal(literal) => *literal == c,
            Token::Any => true,
            Token::Many => false,
            Token::Set { negated, ranges } => ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated,
        }
    }
}

/// The set that starts after `[`, and where it ends.
fn set(chars: &[char], mut at: usize) -> Option<(Token, usize)> {
    let negated = matches!(chars.get(at), Some('!' | '^'));
    at += usize::from(negated);
    let mut ranges = Vec::new();
    let first = at;
    loop {
        let mut c = *chars.get(at)?;
        if c == ']' && at > first {
            return Some((Token::Set { negated, ranges }, at + 1));
        }
        if c == '[' && chars.get(at + 1) == Some(&':') {
            let end = (at + 2..chars.len()).find(|end| chars.get(*end) == Some(&':'))?;
            let class: String = chars.get(at + 2..end)?.iter().collect();
            ranges.extend_from_slice(match class.as_str() {
                "digit" => &[('0', '9')],
                "alpha" => &[('a', 'z'), ('A', 'Z')],
                "alnum" => &[('a', 'z'), ('A', 'Z'), ('0', '9')],
                "upper" => &[('A', 'Z')],
                "lower" => &[('a', 'z')],
                "space" => &[(' ', ' '), ('\t', '\r')],
                "xdigit" => &[('0', '9'), ('a', 'f'), ('A', 'F')],
                _ => return None,
            });
            at = end + 2;
            continue;
        }
        if c == '\\' {
            at += 1;
            c = *chars.get(at)?;
        }
        at += 1;
        match (chars.get(at), chars.get(at + 1)) {
            (Some('-'), Some(&to)) if to != ']' => {
                ranges.push((c, to));
                at += 2;
            }
            _ => ranges.push((c, c)),
        }
    }
}

/// Whether the text would match more than itself.
pub(crate) fn is_pattern(escaped: &str) -> bool {
    let mut chars = escaped.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// The text with `\` before every character that a pattern would read as its own.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '-' | '!' | '^') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The text of a pattern in which every character stands for itself.
pub(crate) fn unescape(escaped: &str) -> String {
    let mut out = String::with_capacity(escaped.len());
    let mut chars = escaped.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, text, matches) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("?", "", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            (r"\*", "*", true),
            (r"\*", "x", false),
            ("*.t*t", "a.text", true),
            ("[[:digit:]]*", "7up", true),
            ("[", "[", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), matches, "{pattern} {text}");
        }
    }
}
