//! Mapping files: pairs of source and destination, as `oc image mirror -f` reads them and `oc-mirror --dry-run` writes them.

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
}

/// Read `SRC=DST` and `SRC DST [DST…]` lines with `#` comments (openshift/oc, `pkg/cli/image/mirror/mappings.go`).
/// Every destination must be at `registry`.
pub fn parse(text: &str, registry: &str) -> Result<Vec<Mapped>, Malformed> {
    let mut all = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let place = format!("mapping, line {}", at + 1);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        let (source, joined) = match first.split_once('=') {
            Some((source, target)) => (source, Some(target)),
            None => (first, None),
        };
        if source.contains('*') {
            return Err(Malformed::new(place, format!("\"{source}\" has a wildcard; name each tag")));
        }
        let source = spec(source).map_err(|error| error.within(&place))?;
        let targets: Vec<&str> = joined.into_iter().chain(words).collect();
        if targets.is_empty() {
            return Err(Malformed::new(place, "has no destination; expected SRC=DST"));
        }
        for target in targets {
            let target = spec(target).map_err(|error| error.within(&place))?;
            if target.repo.registry != registry {
                let why = format!("the destination is at {}; expected {registry}", target.repo.registry);
                return Err(Malformed::new(place, why));
            }
            if target.digest.is_some() {
                return Err(Malformed::new(place, "the destination has a digest; expected a tag or nothing"));
            }
            all.push(Mapped { source: source.clone(), target: target.repo, tag: target.tag });
        }
    }
    Ok(all)
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
    fn what_cannot_be_done_is_refused_with_its_line() {
        for (line, why) in [
            ("quay.io/a/b:1=other.lab/a/b:1", "expected m.lab:5000"),
            ("quay.io/a/b:1", "no destination"),
            ("quay.io/a/b:1* m.lab:5000/a/b", "wildcard"),
            ("quay.io/a/b:1=s3://bucket/a", "pull spec"),
        ] {
            let error = parse(&format!("# first\n{line}"), "m.lab:5000").unwrap_err().to_string();
            assert!(error.contains("line 2") && error.contains(why), "{error}");
        }
    }
}
