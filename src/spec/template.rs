//! The commented `cluster.toml` as a form: what a key means, what stands there, and the same text with an answer in it.
//!
//! The explanation of a key is the comment above it in the file that is written, so that there is one text for both.

use super::keys::{KEYS, Shape};

/// A key of the form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The comment above the key, one line.
    pub meaning: String,
    /// What stands there, as TOML.
    pub value: String,
    /// It counts; else it stands behind a `#`, and shows a default or an example.
    pub set: bool,
}

/// Where a key's line is, and what is on it.
struct Place {
    line: usize,
    set: bool,
    value: String,
}

fn find(text: &str, path: &str) -> Option<Place> {
    let (section, name) = path.rsplit_once('.')?;
    let mut here = "";
    for (line, whole) in text.lines().enumerate() {
        let (set, content) = match whole.strip_prefix("# ") {
            Some(rest) => (false, rest),
            None => (true, whole),
        };
        if let Some(title) = content.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            here = title;
        } else if here == section
            && let Some((key, value)) = content.split_once(" = ")
            && key == name
        {
            return Some(Place { line, set, value: value.to_owned() });
        }
    }
    None
}

/// The key at `path` (`mirror.host`), if the text has it.
pub fn field(text: &str, path: &str) -> Option<Field> {
    let place = find(text, path)?;
    let above: Vec<&str> = text.lines().take(place.line).collect();
    let is_comment = |line: &&&str| line.starts_with("# ") && !line.contains(" = ") && !line.starts_with("# [");
    let mut comment: Vec<&str> =
        above.iter().rev().take_while(is_comment).map(|line| line.trim_start_matches("# ")).collect();
    comment.reverse();
    Some(Field { meaning: comment.join(" "), value: place.value, set: place.set })
}

/// The text with `value` (as TOML) at `path`; a section that is commented out counts from then on. None when the text has
/// no such key.
pub fn with(text: &str, path: &str, value: &str) -> Option<String> {
    let place = find(text, path)?;
    let (section, name) = path.rsplit_once('.')?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if let Some(title) = lines.iter_mut().find(|line| **line == format!("# [{section}]")) {
        *title = format!("[{section}]");
    }
    *lines.get_mut(place.line)? = format!("{name} = {value}");
    Some(lines.join("\n") + "\n")
}

/// An answer as TOML, in the shape that the key wants. Lists are given with commas.
///
/// # Errors
/// A sentence: no such key, or what it wants.
pub fn toml_value(path: &str, answer: &str) -> Result<String, String> {
    let Some(key) = KEYS.iter().find(|key| key.path == path) else {
        let meant = super::problem::nearest(path, KEYS.iter().map(|key| key.path));
        let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
        return Err(format!("there is no key {path}{meant}"));
    };
    let quoted = |text: &str| toml::Value::from(text).to_string();
    match key.shape {
        Shape::Text | Shape::Choice(_) => Ok(quoted(answer)),
        Shape::Whole(low, high) => match answer.parse::<i64>() {
            Ok(number) if (low..=high).contains(&number) => Ok(number.to_string()),
            _ => Err(format!("{path} wants a number from {low} to {high}")),
        },
        Shape::Truth if matches!(answer, "true" | "false") => Ok(answer.to_owned()),
        Shape::Truth => Err(format!("{path} wants true or false")),
        Shape::Texts => {
            let items: Vec<String> = answer.split(',').map(|item| quoted(item.trim())).collect();
            Ok(format!("[{}]", items.join(", ")))
        }
        Shape::TextMap => Ok(answer.to_owned()),
    }
}

/// A TOML text as a person would say it: without its quotes.
pub fn spoken(value: &str) -> String {
    let parsed: Option<toml::Table> = format!("x = {value}").parse().ok();
    match parsed.and_then(|table| table.get("x").cloned()) {
        Some(toml::Value::String(text)) => text,
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{example, parse};

    #[test]
    fn every_key_has_its_explanation_and_takes_an_answer() {
        for key in KEYS {
            assert!(field(example(), key.path).is_some(), "{} is not in the example", key.path);
            let text = with(example(), key.path, key.example).unwrap();
            assert!(
                field(&text, key.path).unwrap().set && parse(&text, "x").is_ok() | !key.example.is_empty(),
                "{}",
                key.path
            );
        }
        assert!(field(example(), "aws.profile").unwrap().meaning.contains("~/.aws/config"));
        assert_eq!(spoken(&field(example(), "cluster.name").unwrap().value), "edge-lab");
    }

    #[test]
    fn an_answer_is_quoted_and_a_wrong_key_is_named() {
        let text = with(example(), "cluster.name", &toml_value("cluster.name", "a\"b").unwrap()).unwrap();
        assert_eq!(spoken(&field(&text, "cluster.name").unwrap().value), "a\"b");
        assert!(toml_value("cluster.nmae", "x").unwrap_err().contains("did you mean cluster.name?"));
        assert!(toml_value("bastion.port", "0").unwrap_err().contains("1 to 65535"));
        assert_eq!(toml_value("network.extra_endpoints", "ssm, sqs").unwrap(), "[\"ssm\", \"sqs\"]");
    }
}
