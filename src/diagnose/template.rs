//! A new signature out of a line that nobody knows: what changes from run to run is left open, the rest is kept.

use regex::Regex;

use super::signature::{Catalogue, CatalogueError};

/// What changes from run to run, and the pattern that stands for it. The earlier one wins.
const CHANGES: &[(&str, &str)] = &[
    (r"sha256:[0-9a-f]{7,64}", r"sha256:[0-9a-f]+"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", r"[0-9a-f-]{36}"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S*", r"\S+"),
    (r"\b(?:[a-z]+)-0[0-9a-f]{7,16}\b", r"[a-z]+-[0-9a-f]+"),
    (r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b", r"\d+(?:\.\d+){3}(?::\d+)?"),
    (r"\b[a-z0-9][a-z0-9-]*(?:\.[a-z0-9-]+)+\.[a-z]{2,}(?::\d+)?\b", r"[A-Za-z0-9.-]+(?::\d+)?"),
    (r"\d+", r"\d+"),
];

/// The text of a signature file with one signature that matches `line`, to be completed by a person.
///
/// # Errors
/// When so little of the line stays the same that nothing would be told apart by it.
pub fn signature(id: &str, line: &str) -> Result<String, CatalogueError> {
    let line = line.trim();
    let text = format!(
        "# Put this into a file of signatures/ in the configuration directory. What the line says of this run only is left\n\
         # open in the pattern; name what should be shown: (?P<registry>\\S+).\n\
         phase = \"unknown\"\n\
         resume = \"live\"\n\n\
         [[signature]]\n\
         id = {}\n\
         title = \"What has happened, in one sentence\"\n\
         patterns = [{}]\n\
         # Where it can be said: journal:bootstrap/bootkube, installer, step, sync, cluster. Nothing: everywhere.\n\
         scope = []\n\
         # Lower is nearer to the cause: 10 cloud, 20 SSH, 30 registry, 40 mirror, 50 release, 60 bootkube, 70 nodes,\n\
         # 80 operators; from 90 on it only says that something is stuck.\n\
         rank = 50\n\
         fix = \"What puts it right\"\n\
         # Causes with the same words and another way out, each with an example: ways = [{{ when = '', fix = \"\" }}]\n\
         examples = [{}]\n\
         counter_examples = []\n",
        quoted(id),
        quoted(&pattern(line)),
        quoted(line),
    );
    Catalogue::parse(&[("new", &text)])?;
    Ok(text)
}

fn pattern(line: &str) -> String {
    let together = CHANGES.iter().map(|(what, _)| format!("({what})")).collect::<Vec<_>>().join("|");
    let Ok(changes) = Regex::new(&together) else { return regex::escape(line) };
    let mut pattern = String::new();
    let mut end = 0;
    for found in changes.captures_iter(line) {
        let Some(whole) = found.get(0) else { continue };
        pattern.push_str(&regex::escape(line.get(end..whole.start()).unwrap_or("")));
        let which = CHANGES.iter().zip(1..).find(|(_, group)| found.get(*group).is_some());
        pattern.push_str(which.map_or("", |((_, stands), _)| stands));
        end = whole.end();
    }
    pattern.push_str(&regex::escape(line.get(end..).unwrap_or("")));
    pattern
}

/// As TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
