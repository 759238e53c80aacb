//! `mirror.operators`: a catalog and what of it, in one text.
//!
//! `CATALOG [PACKAGE[:CHANNEL[,CHANNEL]…] …]`. Without packages it is the whole catalog, and that is hundreds of GB.

use super::validate::is_pull_spec;

/// An operator catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// `registry.redhat.io/redhat/redhat-operator-index:v4.18`
    pub image: String,
    pub packages: Vec<Package>,
}

/// An operator of a catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    pub name: String,
    /// None: the head of its default channel. The first is the default one in the mirror.
    pub channels: Vec<String>,
}

impl Catalog {
    /// # Errors
    /// What to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let image = words.next().filter(|image| is_pull_spec(image)).ok_or(
            "begin with the catalog's image, for example registry.redhat.io/redhat/redhat-operator-index:v4.18",
        )?;
        let name = |text: &str| {
            let good = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            !text.is_empty() && text.chars().all(good)
        };
        let package = |word: &str| {
            let (package, channels) = match word.split_once(':') {
                Some((package, channels)) => (package, channels.split(',').map(str::to_owned).collect()),
                None => (word, Vec::new()),
            };
            if !name(package) || !channels.iter().all(|channel| name(channel)) {
                return Err(format!("name packages as PACKAGE or PACKAGE:CHANNEL,CHANNEL, not {word:?}"));
            }
            Ok(Package { name: package.to_owned(), channels })
        };
        Ok(Self { image: image.to_owned(), packages: words.map(package).collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_and_its_packages() {
        let found = Catalog::parse("reg.example.com/ns/index:v1 one two:fast,slow").unwrap();
        assert_eq!(found.image, "reg.example.com/ns/index:v1");
        let names: Vec<_> =
            found.packages.iter().map(|package| (package.name.as_str(), package.channels.len())).collect();
        assert_eq!(names, [("one", 0), ("two", 2)]);
        for wrong in [
            "",
            "index",
            "reg.example.com/ns/index:v1 two:",
            "reg.example.com/ns/index:v1 a/b",
            "reg.example.com/ns/index:v1 x:y,",
        ] {
            assert!(Catalog::parse(wrong).is_err(), "{wrong}");
        }
    }
}
