//! Words: parameters, command substitution, arithmetic, field splitting, pathnames.

use brush_parser::ast::Word;
use brush_parser::word::{
    Parameter, ParameterExpr as Expr, ParameterTestType, ParameterTransformOp, SpecialParameter, SubstringMatchKind,
    TildeExpr, WordPiece, WordPieceWithSource,
};
use brush_parser::{ParserOptions, word};
use futures::future::BoxFuture;
use tokio::io::AsyncReadExt;

use super::parse::{check_depth, parse};
use super::pattern::{Pattern, escape, is_pattern, unescape};
use super::{Shell, Stop};
use crate::lab::machines::fs::join;
use crate::lab::machines::io::{Fd, pipe};
use crate::lab::machines::program::supervise;

/// A run of text of a word, and what may still happen to it.
enum Part {
    Text {
        text: String,
        /// Neither split nor a pattern.
        quoted: bool,
        /// From an expansion: split at `$IFS`.
        split: bool,
    },
    /// A field ends here (between the arguments of `"$@"`).
    Break,
}

enum Value {
    Unset,
    One(String),
    /// `$@`, or `$*` when `joined`.
    Many {
        values: Vec<String>,
        joined: bool,
    },
}

type Expanded<T> = Result<T, Stop>;

impl Shell {
    /// Fields of several words, split and with pathnames.
    pub(super) async fn fields(&mut self, words: &[&Word]) -> Expanded<Vec<String>> {
        let mut fields = Vec::new();
        for word in words {
            let parts = self.parts(&word.value, false).await?;
            for field in self.split(parts) {
                match is_pattern(&field).then(|| self.pathnames(&field)) {
                    Some(found) if !found.is_empty() => fields.extend(found),
                    _ => fields.push(unescape(&field)),
                }
            }
        }
        Ok(fields)
    }

    /// One string: no splitting, no pathnames.
    pub(super) async fn text(&mut self, word: &str) -> Expanded<String> {
        let parts = self.parts(word, false).await?;
        Ok(self.joined(parts, |text, _| text.to_owned()))
    }

    /// One pattern, in which what was quoted stands for itself.
    pub(super) async fn pattern(&mut self, word: &str) -> Expanded<String> {
        let parts = self.parts(word, false).await?;
        Ok(self.joined(parts, |text, quoted| if quoted { escape(text) } else { text.to_owned() }))
    }

    /// The body of a here-document.
    pub(super) async fn heredoc(&mut self, body: &str) -> Expanded<String> {
        self.check(body).await?;
        let pieces = match word::parse_heredoc(body, &options()) {
            Ok(pieces) => pieces,
            Err(_) => return Err(self.fatal("bad substitution in a here-document", 2).await),
        };
        let mut parts = Vec::new();
        self.pieces(&pieces, true, &mut parts).await?;
        Ok(self.joined(parts, |text, _| text.to_owned()))
    }

    fn joined(&self, parts: Vec<Part>, as_text: impl Fn(&str, bool) -> String) -> String {
        parts
            .into_iter()
            .map(|part| match part {
                Part::Text { text, quoted, .. } => as_text(&text, quoted),
                Part::Break => " ".to_owned(),
            })
            .collect()
    }

    async fn check(&mut self, text: &str) -> Expanded<()> {
        match check_depth(text) {
            Ok(()) => Ok(()),
            Err(why) => Err(self.fatal(why, 2).await),
        }
    }

    async fn parts(&mut self, text: &str, quoted: bool) -> Expanded<Vec<Part>> {
        // Most words are plain.
        if text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&b)) {
            return Ok(vec![Part::Text { text: text.to_owned(), quoted, split: false }]);
        }
        self.check(text).await?;
        let pieces = match word::parse(text, &options()) {
            Ok(pieces) => pieces,
            Err(_) => return Err(self.fatal(format!("{text}: bad substitution"), 2).await),
        };
        let mut parts = Vec::new();
        self.pieces(&pieces, quoted, &mut parts).await?;
        Ok(parts)
    }

    fn pieces<'a>(
        &'a mut self,
        pieces: &'a [WordPieceWithSource],
        quoted: bool,
        out: &'a mut Vec<Part>,
    ) -> BoxFuture<'a, Expanded<()>> {
        Box::pin(async move {
            let literal = |text: String| Part::Text { text, quoted: true, split: false };
            for piece in pieces {
                match &piece.piece {
                    WordPiece::Text(text) => {
                        let text = text.replace("\\\n", "");
                        out.push(Part::Text { text, quoted, split: false });
                    }
                    WordPiece::SingleQuotedText(text) => out.push(literal(text.clone())),
                    WordPiece::AnsiCQuotedText(text) => out.push(literal(ansi_c(text))),
                    WordPiece::EscapeSequence(text) => {
                        let text = text.strip_prefix('\\').unwrap_or(text);
                        if text != "\n" {
                            out.push(literal(text.to_owned()));
                        }
                    }
                    WordPiece::DoubleQuotedSequence(inner) | WordPiece::GettextDoubleQuotedSequence(inner) => {
                        let before = out.len();
                        self.pieces(inner, true, out).await?;
                        let arguments_only = inner.iter().any(|piece| {
                            matches!(
                                &piece.piece,
                                WordPiece::ParameterExpansion(Expr::Parameter {
                                    parameter: Parameter::Special(SpecialParameter::AllPositionalParameters {
                                        concatenate: false,
                                    }),
                                    ..
                                })
                            )
                        });
                        if out.len() == before && !arguments_only {
                            out.push(literal(String::new()));
                        }
                    }
                    WordPiece::TildeExpansion(tilde) => {
                        let home = match tilde {
                            TildeExpr::Home => self.get("HOME").unwrap_or_default(),
                            TildeExpr::UserHome(user) => crate::lab::machines::home_of(user),
                            TildeExpr::WorkingDir => self.cx.cwd.clone(),
                            TildeExpr::OldWorkingDir => self.get("OLDPWD").unwrap_or_default(),
                            _ => return Err(self.unsupported("a directory stack").await),
                        };
                        out.push(literal(home));
                    }
                    WordPiece::CommandSubstitution(command) | WordPiece::BackquotedCommandSubstitution(command) => {
                        let text = self.substitute(command).await?;
                        out.push(Part::Text { text, quoted, split: !quoted });
                    }
                    WordPiece::ArithmeticExpression(expr) => {
                        let text = self.expand_arithmetic(&expr.value).await?.to_string();
                        out.push(Part::Text { text, quoted, split: !quoted });
                    }
                    WordPiece::ParameterExpansion(expr) => self.parameter(expr, quoted, out).await?,
                }
            }
            Ok(())
        })
    }

    pub(super) async fn expand_arithmetic(&mut self, text: &str) -> Expanded<i64> {
        let text = if text.contains(['$', '`']) { self.heredoc(text).await? } else { text.to_owned() };
        self.arithmetic(&text).await
    }

    /// The output of a command, without the newlines at its end.
    async fn substitute(&mut self, command: &str) -> Expanded<String> {
        let program = match parse(command) {
            Ok(program) => program,
            Err(why) => return Err(self.fatal(why, 2).await),
        };
        let (mut reader, writer) = {
            let (reader, writer) = pipe();
            (Fd::In(reader), Fd::Out(writer))
        };
        let (mut sub, guard) = self.subshell("sh");
        sub.cx.fds.insert(1, writer);
        let run = supervise(guard, Box::pin(async move { sub.program(&program).await }));
        let mut bytes = Vec::new();
        let (status, _) = tokio::join!(run, reader.read_to_end(&mut bytes));
        self.substituted = Some(status);
        self.status = status;
        bytes.retain(|byte| *byte != 0);
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.trim_end_matches('\n').to_owned())
    }

    fn lookup(&self, parameter: &Parameter) -> Result<Value, &'static str> {
        let one = |value: Option<String>| value.map_or(Value::Unset, Value::One);
        Ok(match parameter {
            Parameter::Positional(0) => Value::One(self.name.clone()),
            Parameter::Positional(n) => one(self.args.get((*n as usize).saturating_sub(1)).cloned()),
            Parameter::Named(name) => one(self.get(name)),
            Parameter::NamedWithIndex { name, index } if index == "0" => one(self.get(name)),
            Parameter::NamedWithIndex { .. } | Parameter::NamedWithAllIndices { .. } => return Err("arrays"),
            Parameter::Special(special) => match special {
                SpecialParameter::AllPositionalParameters { concatenate } => {
                    Value::Many { values: self.args.clone(), joined: *concatenate }
                }
                SpecialParameter::PositionalParameterCount => Value::One(self.args.len().to_string()),
                SpecialParameter::LastExitStatus => Value::One(self.status.to_string()),
                SpecialParameter::CurrentOptionFlags => Value::One(self.options.letters()),
                SpecialParameter::ProcessId => Value::One(self.pid.to_string()),
                SpecialParameter::LastBackgroundProcessId => one(self.background.map(|pid| pid.to_string())),
                SpecialParameter::ShellName => Value::One(self.name.clone()),
            },
        })
    }

    async fn find(&mut self, parameter: &Parameter, indirect: bool) -> Expanded<Value> {
        let value = match self.lookup(parameter) {
            Ok(value) => value,
            Err(what) => return Err(self.unsupported(what).await),
        };
        match value {
            Value::One(name) if indirect => Ok(self.get(&name).map_or(Value::Unset, Value::One)),
            value => Ok(value),
        }
    }

    fn null(&self, value: &Value, test: &ParameterTestType) -> bool {
        match (value, test) {
            (Value::Unset, _) => true,
            (Value::One(text), ParameterTestType::UnsetOrNull) => text.is_empty(),
            (Value::Many { values, .. }, ParameterTestType::UnsetOrNull) => values.iter().all(String::is_empty),
            (Value::Many { values, .. }, ParameterTestType::Unset) => values.is_empty(),
            _ => false,
        }
    }

    fn emit(&self, value: Value, quoted: bool, out: &mut Vec<Part>) {
        match value {
            Value::Unset => {
                if quoted {
                    out.push(Part::Text { text: String::new(), quoted, split: false });
                }
            }
            Value::One(text) => out.push(Part::Text { text, quoted, split: !quoted }),
            Value::Many { values, joined: true } if quoted => {
                let ifs = self.get("IFS").map_or(" ".to_owned(), |ifs| ifs.chars().take(1).collect());
                out.push(Part::Text { text: values.join(&ifs), quoted, split: false });
            }
            Value::Many { values, .. } => {
                for (index, text) in values.into_iter().enumerate() {
                    if index > 0 {
                        out.push(Part::Break);
                    }
                    out.push(Part::Text { text, quoted, split: !quoted });
                }
            }
        }
    }

    /// The word after `:-` and the like.
    async fn alternative(&mut self, word: Option<&String>, quoted: bool, out: &mut Vec<Part>) -> Expanded<()> {
        let word = word.map_or("", String::as_str);
        let parts = if quoted && !word.contains('"') {
            self.parts(&format!("\"{word}\""), true).await?
        } else {
            self.parts(word, quoted).await?
        };
        // What an unquoted alternative holds is split like the value it stands for.
        out.extend(parts.into_iter().map(|part| match part {
            Part::Text { text, quoted: false, .. } => Part::Text { text, quoted: false, split: true },
            part => part,
        }));
        Ok(())
    }

    async fn parameter(&mut self, expr: &Expr, quoted: bool, out: &mut Vec<Part>) -> Expanded<()> {
        match expr {
            Expr::Parameter { parameter, indirect } => {
                let value = self.find(parameter, *indirect).await?;
                if matches!(value, Value::Unset) && self.options.nounset {
                    let name = parameter.to_string();
                    let name = name.trim_matches(['$', '{', '}']);
                    return Err(self.fatal(format!("{name}: unbound variable"), 1).await);
                }
                self.emit(value, quoted, out);
            }
            Expr::UseDefaultValues { parameter, indirect, test_type, default_value } => {
                let value = self.find(parameter, *indirect).await?;
                if self.null(&value, test_type) {
                    self.alternative(default_value.as_ref(), quoted, out).await?;
                } else {
                    self.emit(value, quoted, out);
                }
            }
            Expr::AssignDefaultValues { parameter, indirect, test_type, default_value } => {
                let mut value = self.find(parameter, *indirect).await?;
                if self.null(&value, test_type) {
                    let text = self.text(default_value.as_ref().map_or("", String::as_str)).await?;
                    let Parameter::Named(name) = parameter else {
                        return Err(self.fatal(format!("{parameter}: cannot assign in this way"), 2).await);
                    };
                    self.assign(name, text.clone()).await?;
                    value = Value::One(text);
                }
                self.emit(value, quoted, out);
            }
            Expr::IndicateErrorIfNullOrUnset { parameter, indirect, test_type, error_message } => {
                let value = self.find(parameter, *indirect).await?;
                if self.null(&value, test_type) {
                    let name = parameter.to_string();
                    let name = name.trim_matches(['$', '{', '}']).to_owned();
                    let message = match error_message {
                        Some(message) => self.text(message).await?,
                        None => "parameter null or not set".to_owned(),
                    };
                    return Err(self.fatal(format!("{name}: {message}"), 2).await);
                }
                self.emit(value, quoted, out);
            }
            Expr::UseAlternativeValue { parameter, indirect, test_type, alternative_value } => {
                let value = self.find(parameter, *indirect).await?;
                if !self.null(&value, test_type) {
                    self.alternative(alternative_value.as_ref(), quoted, out).await?;
                } else if quoted {
                    self.emit(Value::Unset, quoted, out);
                }
            }
            Expr::ParameterLength { parameter, indirect } => {
                let length = match self.find(parameter, *indirect).await? {
                    Value::Unset => 0,
                    Value::One(text) => text.chars().count(),
                    Value::Many { values, .. } => values.len(),
                };
                self.emit(Value::One(length.to_string()), quoted, out);
            }
            Expr::RemoveSmallestSuffixPattern { parameter, indirect, pattern } => {
                self.trim(parameter, *indirect, pattern.as_ref(), (false, false), quoted, out).await?;
            }
            Expr::RemoveLargestSuffixPattern { parameter, indirect, pattern } => {
                self.trim(parameter, *indirect, pattern.as_ref(), (false, true), quoted, out).await?;
            }
            Expr::RemoveSmallestPrefixPattern { parameter, indirect, pattern } => {
                self.trim(parameter, *indirect, pattern.as_ref(), (true, false), quoted, out).await?;
            }
            Expr::RemoveLargestPrefixPattern { parameter, indirect, pattern } => {
                self.trim(parameter, *indirect, pattern.as_ref(), (true, true), quoted, out).await?;
            }
            Expr::Substring { parameter, indirect, offset, length } => {
                let Value::One(text) = self.find(parameter, *indirect).await? else {
                    self.emit(Value::Unset, quoted, out);
                    return Ok(());
                };
                let chars: Vec<char> = text.chars().collect();
                let count = i64::try_from(chars.len()).unwrap_or(i64::MAX);
                let from = self.expand_arithmetic(&offset.value).await?;
                let from = if from < 0 { (count + from).max(0) } else { from.min(count) };
                let to = match length {
                    None => count,
                    Some(length) => match self.expand_arithmetic(&length.value).await? {
                        length if length < 0 => (count + length).max(from),
                        length => from.saturating_add(length).min(count),
                    },
                };
                let (from, to) = (usize::try_from(from).unwrap_or(0), usize::try_from(to).unwrap_or(0));
                let text = chars.get(from..to).unwrap_or_default().iter().collect();
                self.emit(Value::One(text), quoted, out);
            }
            Expr::ReplaceSubstring { parameter, indirect, pattern, replacement, match_kind } => {
                let value = self.find(parameter, *indirect).await?;
                let pattern = Pattern::new(&self.pattern(pattern).await?);
                let with = match replacement {
                    Some(replacement) => self.text(replacement).await?,
                    None => String::new(),
                };
                let value = each(value, |text| replace(text, &pattern, &with, match_kind));
                self.emit(value, quoted, out);
            }
            Expr::UppercasePattern { parameter, indirect, pattern: None }
            | Expr::Transform { parameter, indirect, op: ParameterTransformOp::ToUpperCase } => {
                let value = self.find(parameter, *indirect).await?;
                self.emit(each(value, str::to_uppercase), quoted, out);
            }
            Expr::LowercasePattern { parameter, indirect, pattern: None }
            | Expr::Transform { parameter, indirect, op: ParameterTransformOp::ToLowerCase } => {
                let value = self.find(parameter, *indirect).await?;
                self.emit(each(value, str::to_lowercase), quoted, out);
            }
            Expr::Transform { parameter, indirect, op: ParameterTransformOp::Quoted } => {
                let value = self.find(parameter, *indirect).await?;
                self.emit(each(value, |text| format!("'{}'", text.replace('\'', r"'\''"))), quoted, out);
            }
            _ => return Err(self.unsupported("this parameter expansion").await),
        }
        Ok(())
    }

    async fn trim(
        &mut self,
        parameter: &Parameter,
        indirect: bool,
        pattern: Option<&String>,
        (prefix, largest): (bool, bool),
        quoted: bool,
        out: &mut Vec<Part>,
    ) -> Expanded<()> {
        let value = self.find(parameter, indirect).await?;
        let pattern = match pattern {
            Some(pattern) => Pattern::new(&self.pattern(pattern).await?),
            None => Pattern::new(""),
        };
        let value = each(value, |text| {
            let chars: Vec<char> = text.chars().collect();
            let count = chars.len();
            // `cut` characters go, fewest or most first.
            let mut cuts: Box<dyn Iterator<Item = usize>> =
                if largest { Box::new((0..=count).rev()) } else { Box::new(0..=count) };
            let keep = cuts.find_map(|cut| {
                let (gone, kept) = if prefix {
                    chars.split_at(cut)
                } else {
                    let (kept, gone) = chars.split_at(count - cut);
                    (gone, kept)
                };
                pattern.matches_chars(gone).then(|| kept.iter().collect::<String>())
            });
            keep.unwrap_or_else(|| text.to_owned())
        });
        self.emit(value, quoted, out);
        Ok(())
    }

    /// Fields as patterns, in which `\` stands before what was quoted.
    fn split(&self, parts: Vec<Part>) -> Vec<String> {
        let ifs = self.get("IFS").unwrap_or_else(|| " \t\n".to_owned());
        let mut fields = Vec::new();
        let mut field: Option<String> = None;
        // White space ended the field; a delimiter that follows belongs to the same end.
        let mut after_space = false;
        for part in parts {
            match part {
                Part::Break => {
                    fields.extend(field.take());
                    after_space = false;
                }
                Part::Text { text, quoted: true, .. } => {
                    field.get_or_insert_default().push_str(&escape(&text));
                    after_space = false;
                }
                Part::Text { text, split: false, .. } => {
                    if !text.is_empty() {
                        field.get_or_insert_default().push_str(&text);
                        after_space = false;
                    }
                }
                Part::Text { text, .. } => {
                    for c in text.chars() {
                        if !ifs.contains(c) {
                            let field = field.get_or_insert_default();
                            if c == '\\' {
                                field.push('\\');
                            }
                            field.push(c);
                            after_space = false;
                        } else if c.is_ascii_whitespace() {
                            if let Some(done) = field.take() {
                                fields.push(done);
                                after_space = true;
                            }
                        } else if let Some(done) = field.take() {
                            fields.push(done);
                            after_space = false;
                        } else if after_space {
                            after_space = false;
                        } else {
                            fields.push(String::new());
                        }
                    }
                }
            }
        }
        fields.extend(field);
        fields
    }

    /// The paths that a pattern matches, in order.
    fn pathnames(&self, pattern: &str) -> Vec<String> {
        if self.options.noglob {
            return Vec::new();
        }
        let fs = self.cx.machine.fs();
        let mut found = vec![if pattern.starts_with('/') { "/".to_owned() } else { String::new() }];
        for part in pattern.split('/').filter(|part| !part.is_empty()) {
            let mut next = Vec::new();
            for base in &found {
                let here = join(&self.cx.cwd, base);
                if !is_pattern(part) {
                    let path = format!("{base}{}", unescape(part));
                    if fs.meta(&join(&self.cx.cwd, &path), false).is_ok() {
                        next.push(format!("{path}/"));
                    }
                    continue;
                }
                let glob = Pattern::new(part);
                let names = fs.list(&here).unwrap_or_default().into_iter();
                let names = names.filter(|name| part.starts_with('.') || !name.starts_with('.'));
                next.extend(names.filter(|name| glob.matches(name)).map(|name| format!("{base}{name}/")));
            }
            found = next;
        }
        if !pattern.ends_with('/') {
            for path in &mut found {
                path.pop();
            }
        } else {
            found.retain(|path| fs.is_dir(&join(&self.cx.cwd, path)));
        }
        found
    }
}

fn options() -> ParserOptions {
    ParserOptions { enable_extended_globbing: false, ..ParserOptions::default() }
}

fn each(value: Value, change: impl Fn(&str) -> String) -> Value {
    match value {
        Value::Unset => Value::Unset,
        Value::One(text) => Value::One(change(&text)),
        Value::Many { values, joined } => {
            Value::Many { values: values.iter().map(|text| change(text)).collect(), joined }
        }
    }
}

fn replace(text: &str, pattern: &Pattern, with: &str, kind: &SubstringMatchKind) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    let mut done = false;
    while at <= chars.len() {
        let allowed = match kind {
            SubstringMatchKind::Prefix => at == 0,
            SubstringMatchKind::FirstOccurrence => !done,
            SubstringMatchKind::Anywhere | SubstringMatchKind::Suffix => true,
        };
        let end = (at + 1..=chars.len()).rev().find(|end| {
            (!matches!(kind, SubstringMatchKind::Suffix) || *end == chars.len())
                && chars.get(at..*end).is_some_and(|part| pattern.matches_chars(part))
        });
        match (end, chars.get(at)) {
            (Some(end), _) if allowed => {
                out.push_str(with);
                at = end;
                done = true;
            }
            (_, Some(c)) => {
                out.push(*c);
                at += 1;
            }
            (_, None) => break,
        }
    }
    out
}

/// What `$'…'` and `printf` make of backslashes.
pub(crate) fn ansi_c(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let Some(c) = chars.next() else {
            out.push('\\');
            break;
        };
        let mut code = |radix: u32, most: usize, first: Option<char>| {
            let mut digits: String = first.into_iter().collect();
            while digits.len() < most && chars.peek().is_some_and(|c| c.is_digit(radix)) {
                digits.extend(chars.next());
            }
            u32::from_str_radix(&digits, radix).ok().and_then(char::from_u32)
        };
        match c {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'a' => out.push('\u{7}'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'v' => out.push('\u{b}'),
            'e' | 'E' => out.push('\u{1b}'),
            'x' => out.extend(code(16, 2, None)),
            'u' => out.extend(code(16, 4, None)),
            'U' => out.extend(code(16, 8, None)),
            '0'..='7' => out.extend(code(8, 3, Some(c))),
            '\\' | '\'' | '"' | '?' => out.push(c),
            c => out.extend(['\\', c]),
        }
    }
    out
}
