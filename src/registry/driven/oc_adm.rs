//! What `oc adm release mirror` and `oc image mirror` say (openshift/oc, `pkg/cli/image/mirror`, `pkg/cli/admin/release`).
//!
//! The same on a terminal and in a pipe: the plan, the start of every blob from 16 KiB on, and a line for each manifest
//! that was written. With one target repository all manifests come after all blobs.

use super::Said;
use crate::registry::digest;

/// One line without control sequences.
pub fn read(line: &str) -> Option<Said> {
    if let Some(text) = line.strip_prefix("info: ") {
        let count = text.strip_prefix("Mirroring ").and_then(|rest| rest.split_once(" images to "));
        return Some(match count.and_then(|(count, _)| count.parse().ok()) {
            Some(count) => Said::Images(count),
            None => Said::Phase(text.to_owned()),
        });
    }
    if let Some(text) = line.strip_prefix("warning: ") {
        return Some(Said::Warning(text.to_owned()));
    }
    if let Some(text) = line.strip_prefix("error: ") {
        return Some(error(text));
    }
    if let Some(rest) = line.strip_prefix("uploading: ") {
        let [repository, digest, size] = words(rest)?;
        return Some(Said::Uploading { repository: repository.into(), digest: valid(digest)?, bytes: size_of(size)? });
    }
    if let Some(rest) = line.strip_prefix("mounted: ") {
        let [repository, digest, _] = words(rest)?;
        return Some(Said::Mounted { repository: repository.into(), digest: valid(digest)? });
    }
    if let Some(rest) = line.strip_prefix("      ") {
        return planned(rest);
    }
    // `sha256:… REG/REPO:TAG`; children of a list have no tag.
    let (digest, place) = line.split_once(' ')?;
    let digest = valid(digest)?;
    (place.contains('/') && !place.contains(' ')).then(|| Said::Copied { image: format!("{place}@{digest}") })
}

/// `SRCREPO sha256:… 79.44MiB`, `sha256:… -> TAG`
fn planned(rest: &str) -> Option<Said> {
    let found: Vec<&str> = rest.split_whitespace().collect();
    match found.as_slice() {
        [source, digest, size] if !rest.starts_with(' ') && digest::is_valid(digest) => {
            Some(Said::PlannedBlob { source: (*source).to_owned(), digest: valid(digest)?, bytes: size_of(size)? })
        }
        [digest, "->", tag] => Some(Said::PlannedManifest { digest: valid(digest)?, tag: Some((*tag).to_owned()) }),
        [digest] => Some(Said::PlannedManifest { digest: valid(digest)?, tag: None }),
        _ => None,
    }
}

/// The image in an error, when it names one: `unable to retrieve source image REPO manifest sha256:…: …`,
/// `unable to push manifest to REG/REPO:TAG: …`.
fn error(text: &str) -> Said {
    let source = text.strip_prefix("unable to retrieve source image ").and_then(|rest| {
        let (repository, rest) = rest.split_once(" manifest ")?;
        let digest = rest.get(..71).filter(|digest| digest::is_valid(digest))?;
        Some(format!("{repository}@{digest}"))
    });
    let target =
        text.strip_prefix("unable to push manifest to ").and_then(|rest| Some(rest.split_once(": ")?.0.to_owned()));
    match source.or(target) {
        Some(image) => Said::Failed { image, why: text.to_owned() },
        None => Said::Error(text.to_owned()),
    }
}

fn words(text: &str) -> Option<[&str; 3]> {
    let mut words = text.split_whitespace();
    let found = [words.next()?, words.next()?, words.next().unwrap_or_default()];
    words.next().is_none().then_some(found)
}

fn valid(digest: &str) -> Option<String> {
    digest::is_valid(digest).then(|| digest.to_owned())
}

/// `79.44MiB`: binary units, four significant digits.
pub fn size_of(text: &str) -> Option<u64> {
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number: f64 = number.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)?;
    let power = match unit {
        "B" | "" => 0,
        "KiB" => 1,
        "MiB" => 2,
        "GiB" => 3,
        "TiB" => 4,
        _ => return None,
    };
    Some((number * 1024_f64.powi(power)).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary() {
        for (text, bytes) in
            [("0B", 0), ("512B", 512), ("79.44MiB", 83_298_877), ("1.5GiB", 1_610_612_736), ("11KiB", 11_264)]
        {
            assert_eq!(size_of(text), Some(bytes), "{text}");
        }
        assert_eq!((size_of("10MB"), size_of("x"), size_of("-1B"), size_of("infB")), (None, None, None, None));
    }
}
