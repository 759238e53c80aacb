//! Where a line comes from, and the globs that say which places a signature looks at.

/// Pattern of a place, `source` or `source/unit`, where `*` stands for any text; `!` in front leaves places out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    source: String,
    unit: Option<String>,
    excluded: bool,
}

/// A source whose origin nobody knows (a file from somewhere): every signature looks at it. What is known of the machine
/// stands behind a colon.
pub(super) const ANYWHERE: &str = "file";

pub(super) fn anywhere(source: &str) -> bool {
    source.strip_prefix(ANYWHERE).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

impl Place {
    pub(super) fn parse(text: &str) -> Self {
        let (excluded, text) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (source, unit) = match text.split_once('/') {
            Some((source, unit)) => (source, Some(unit.to_owned())),
            None => (text, None),
        };
        Self { source: source.to_owned(), unit, excluded }
    }

    fn covers(&self, source: &str, unit: &str) -> bool {
        glob(&self.source, source) && self.unit.as_deref().is_none_or(|wanted| glob(wanted, unit))
    }

    /// A place that this pattern covers, for examples that do not name one.
    pub(super) fn sample(&self) -> (String, String) {
        let source = if self.source == "*" { "sync".to_owned() } else { self.source.replace('*', "bootstrap") };
        let unit = self.unit.as_deref().map_or("unit".to_owned(), |unit| unit.replace('*', "unit"));
        (source, unit)
    }
}

/// No patterns at all mean everywhere.
pub(super) fn within(places: &[Place], source: &str, unit: &str) -> bool {
    if places.is_empty() || anywhere(source) {
        return true;
    }
    let unit = unit.strip_suffix(".service").unwrap_or(unit);
    let covers = |excluded: bool| {
        places.iter().filter(|place| place.excluded == excluded).any(|place| place.covers(source, unit))
    };
    !covers(true) && (covers(false) || places.iter().all(|place| place.excluded))
}

/// Like [`within`], but a place whose source nobody knows has to have a unit that is meant, if one is known.
pub(super) fn meant(places: &[Place], source: &str, unit: &str) -> bool {
    match anywhere(source) && !unit.is_empty() {
        true => places.iter().any(|place| place.unit.as_deref().is_none_or(|wanted| glob(wanted, unit))),
        false => within(places, source, unit),
    }
}

/// `*` stands for any text, also none.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(previous) = last.replace(part) {
            match rest.find(previous) {
                Some(at) => rest = rest.get(at + previous.len()..).unwrap_or(""),
                None => return false,
            }
        }
    }
    match last {
        None => rest.is_empty(),
        Some(end) => rest.ends_with(end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_and_places() {
        for (pattern, text, wanted) in [
            ("sync", "sync", true),
            ("sync", "sync2", false),
            ("journal:*", "journal:master-0", true),
            ("*", "", true),
            ("REG-*", "REG-CA", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
        ] {
            assert_eq!(glob(pattern, text), wanted, "{pattern} {text}");
        }
        let places = [Place::parse("journal:*/kubelet"), Place::parse("!journal:bootstrap")];
        assert!(within(&places, "journal:master-0", "kubelet.service"));
        assert!(!within(&places, "journal:bootstrap", "kubelet"));
        assert!(!within(&places, "journal:master-0", "crio"));
        assert!(within(&places, ANYWHERE, "") && within(&places, ANYWHERE, "crio"));
        assert!(meant(&places[..1], ANYWHERE, "") && meant(&places[..1], ANYWHERE, "kubelet"));
        assert!(!meant(&places[..1], ANYWHERE, "crio"));
    }
}
