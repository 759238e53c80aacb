//! Mapping files: pairs of source and destination, as `oc image mirror -f` reads them and `oc-mirror --dry-run` writes them.

use std::collections::BTreeMap;

use super::client::Repo;
use super::error::Malformed;
use super::release::PullSpec;

/// One line of a mapping file, for one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    pub source: PullSpec,
    pub target: Repo,
    /// `None`: the destination names a repository only.
    pub tag: Option<String>,
    /// A pattern that stands for all tags of the source that match, with `*` for anything; then neither has a tag.
    pub wildcard: Option<String>,
}

/// Read `SRC=DST [SRC=DST…]` and `SRC DST [DST…]` lines with `#` comments, by the rules of `oc image mirror -f`
/// (openshift/oc, `pkg/cli/image/mirror/mappings.go`). Every destination must be at `registry`.
pub fn parse(text: &str, registry: &str) -> Result<Vec<Mapped>, Malformed> {
    let mut all = Vec::new();
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let place = format!("mapping, line {}", at + 1);
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        for (source, target) in pairs(&words).map_err(|why| Malformed::new(&place, why))? {
            let mapped = pair(source, target, registry).map_err(|error| error.within(&place))?;
            let tag = mapped.tag.as_ref().or(mapped.source.tag.as_ref());
            if let Some(tag) = tag.filter(|_| mapped.wildcard.is_none()) {
                let target = format!("{}:{tag}", mapped.target);
                let source = mapped.source.to_string();
                if let Some(other) = taken.insert(target.clone(), source.clone()).filter(|other| *other != source) {
                    return Err(Malformed::new(place, format!("{target} is the place of {other} already")));
                }
            }
            all.push(mapped);
        }
    }
    Ok(all)
}

/// The pairs that a line stands for.
fn pairs<'a>(words: &[&'a str]) -> Result<Vec<(&'a str, &'a str)>, &'static str> {
    let joined: Vec<_> = words.iter().filter_map(|word| word.split_once('=')).collect();
    match words {
        _ if joined.iter().any(|(source, target)| source.is_empty() || target.is_empty()) => {
            Err("has a pair with one half; expected SRC=DST")
        }
        _ if joined.len() == words.len() => Ok(joined),
        _ if !joined.is_empty() => Err("has pairs and single names; expected SRC=DST [SRC=DST…], or SRC DST [DST…]"),
        [_] => Err("has no destination; expected SRC=DST, or SRC DST [DST…]"),
        [source, targets @ ..] => Ok(targets.iter().map(|target| (*source, *target)).collect()),
        [] => Ok(Vec::new()),
    }
}

fn pair(source: &str, target: &str, registry: &str) -> Result<Mapped, Malformed> {
    for (text, what) in [(source, "source"), (target, "destination")] {
        if let Some((scheme, _)) = text.split_once("://").filter(|(scheme, _)| *scheme != "docker") {
            let why = format!(
                "the {what} {text} is no registry; {scheme}:// is for oc image mirror, only registries can be copied here"
            );
            return Err(Malformed::new("pair", why));
        }
    }
    let (source, wildcard) = match source.rsplit_once(':').filter(|(_, tag)| tag.contains('*')) {
        Some((repository, pattern)) => (spec(repository)?, Some(pattern.to_owned())),
        None => (spec(source)?, None),
    };
    if source.tag.is_none() && source.digest.is_none() && wildcard.is_none() {
        return Err(Malformed::new("pair", format!("the source {source} has neither tag nor digest; name one")));
    }
    let target = spec(target)?;
    if target.repo.registry != registry {
        let why = format!("the destination is at {}; expected {registry}", target.repo.registry);
        return Err(Malformed::new("pair", why));
    }
    if target.digest.is_some() {
        return Err(Malformed::new("pair", "the destination has a digest; expected a tag or nothing"));
    }
    if wildcard.is_some() && target.tag.is_some() {
        return Err(Malformed::new("pair", "the source has a wildcard; then the destination must be a repository"));
    }
    Ok(Mapped { source, target: target.repo, tag: target.tag, wildcard })
}

/// Every tag of `tags` that a wildcard stands for, as a pair of its own; a pair without one stays as it is.
pub fn expand(mapped: &Mapped, tags: &[String]) -> Vec<Mapped> {
    let Some(pattern) = &mapped.wildcard else { return vec![mapped.clone()] };
    let matching = tags.iter().filter(|tag| matches(pattern, tag));
    let one = |tag: &String| Mapped {
        source: PullSpec { tag: Some(tag.clone()), ..mapped.source.clone() },
        target: mapped.target.clone(),
        tag: None,
        wildcard: None,
    };
    matching.map(one).collect()
}

/// Whether `*` in the pattern can stand for what makes it the text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn spec(text: &str) -> Result<PullSpec, Malformed> {
    PullSpec::parse(text.strip_prefix("docker://").unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::digest;

    #[test]
    fn lines_of_oc_and_of_oc_mirror_are_read() {
        let digest = digest::of(b"x");
        let text = format!(
            "# plan\n\nquay.io/a/b@{digest}=m.lab:5000/c/d:1\ndocker://quay.io/a/b@{digest}=docker://m.lab:5000/e\n\
             quay.io/f/g:2 m.lab:5000/f/g:2 m.lab:5000/f/g:two\n"
        );
        let found = parse(&text, "m.lab:5000").unwrap();
        let places: Vec<_> = found.iter().map(|it| (it.target.name.as_str(), it.tag.as_deref())).collect();
        assert_eq!(places, [("c/d", Some("1")), ("e", None), ("f/g", Some("2")), ("f/g", Some("two"))]);
        assert!(found.iter().take(2).all(|it| it.source.digest.as_ref() == Some(&digest)));
    }

    #[test]
    fn comments_several_pairs_and_wildcards_are_read_as_oc_does() {
        let text = "q.io/a/b:1=m.lab:5000/b:1 q.io/a/c:1=m.lab:5000/c # both\nq.io/a/d:v4.*.2=m.lab:5000/d\n  # none\n";
        let found = parse(text, "m.lab:5000").unwrap();
        let names: Vec<_> = found.iter().map(|it| it.target.name.as_str()).collect();
        assert_eq!(names, ["b", "c", "d"]);
        let tags: Vec<String> = ["v4.1.2", "v4.1.3", "v4.2", "v4.10.2", "x-v4.1.2"].map(str::to_owned).to_vec();
        let expanded: Vec<_> = found.iter().flat_map(|it| expand(it, &tags)).map(|it| it.source.to_string()).collect();
        assert_eq!(expanded, ["q.io/a/b:1", "q.io/a/c:1", "q.io/a/d:v4.1.2", "q.io/a/d:v4.10.2"]);
        for (pattern, text, is) in [
            ("*", "", true),
            ("*", "any", true),
            ("a*", "a", true),
            ("a*a", "a", false),
            ("*b*", "abc", true),
            ("a", "ab", false),
        ] {
            assert_eq!(matches(pattern, text), is, "{pattern} {text}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_its_line() {
        for (line, why) in [
            ("quay.io/a/b:1=other.lab/a/b:1", "expected m.lab:5000"),
            ("quay.io/a/b:1", "no destination"),
            ("quay.io/a/b:1* m.lab:5000/a/b:1", "the source has a wildcard"),
            ("quay.io/a/b m.lab:5000/a/b", "neither tag nor digest"),
            ("quay.io/a/b:1=s3://bucket/a", "s3:// is for oc image mirror"),
            ("file://dir/a:1=m.lab:5000/a", "the source file://dir/a:1 is no registry"),
            ("q.io/a:1=m.lab:5000/a m.lab:5000/b", "pairs and single names"),
            ("=m.lab:5000/a", "one half"),
            ("q.io/a:1=m.lab:5000/x:1 q.io/b:1=m.lab:5000/x", "is the place of q.io/a:1 already"),
            ("q.io/a:1=m.lab:5000/a@sha256:1", "pull spec"),
        ] {
            let error = parse(&format!("# first\n{line}"), "m.lab:5000").unwrap_err().to_string();
            assert!(error.contains("line 2") && error.contains(why), "{error}");
        }
    }
}
