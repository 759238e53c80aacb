//! Who we are to a registry: `auth.json` by the rules of containers-auth.json(5), and the answers to a challenge.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::error::Malformed;
use crate::spec::Secret;

/// One way to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    Basic {
        user: String,
        password: Secret,
    },
    /// An OAuth2 refresh token.
    Identity(Secret),
}

/// The logins of an `auth.json`, by `host[:port][/namespace[/repository]]`.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    logins: BTreeMap<String, Login>,
}

impl Credentials {
    /// Read the text of an `auth.json`, a docker `config.json` or a pull secret. The text never appears in the error.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let document = read(text, "auth file")?;
        let mut logins = BTreeMap::new();
        for (key, entry) in auths(&document, "auth file")? {
            if let Some(login) = login(entry).map_err(|why| Malformed::new(format!("auth file, auths[{key}]"), why))? {
                logins.insert(normal(key), login);
            }
        }
        Ok(Self { logins })
    }

    /// Only this login, for this registry.
    pub fn single(registry: &str, user: &str, password: Secret) -> Self {
        Self { logins: BTreeMap::from([(normal(registry), Login::Basic { user: user.to_owned(), password })]) }
    }

    /// The most specific login for a repository.
    pub fn lookup(&self, registry: &str, repository: &str) -> Option<&Login> {
        let mut key = format!("{registry}/{repository}");
        loop {
            if let Some(login) = self.logins.get(&key) {
                return Some(login);
            }
            let cut = key.rfind('/')?;
            key.truncate(cut);
        }
    }
}

/// Where podman, skopeo and docker keep logins, in the order in which containers looks (containers-auth.json(5)): the
/// first that exists. `variable` reads the environment.
pub fn default_file(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let below = |name: &str, path: &str| variable(name).map(|directory| directory.join(path));
    let config =
        below("XDG_CONFIG_HOME", "containers/auth.json").or_else(|| below("HOME", ".config/containers/auth.json"));
    [
        variable("REGISTRY_AUTH_FILE"),
        below("XDG_RUNTIME_DIR", "containers/auth.json"),
        Some(format!("/run/containers/{}/auth.json", rustix::process::getuid().as_raw()).into()),
        config,
        below("DOCKER_CONFIG", "config.json"),
        below("HOME", ".docker/config.json"),
    ]
    .into_iter()
    .flatten()
    .find(|path| path.is_file())
}

fn read(text: &str, what: &str) -> Result<Map<String, Value>, Malformed> {
    match serde_json::from_str(text) {
        Ok(Value::Object(document)) => Ok(document),
        Ok(_) => Err(Malformed::new(what, "is not a JSON object; expected {\"auths\": {…}}")),
        // serde's own message would quote the value it stumbled over.
        Err(error) => {
            let place = format!("{what}, line {} column {}", error.line(), error.column());
            Err(Malformed::new(place, "is not JSON"))
        }
    }
}

fn auths<'a>(document: &'a Map<String, Value>, what: &str) -> Result<&'a Map<String, Value>, Malformed> {
    document.get("auths").and_then(Value::as_object).ok_or_else(|| {
        Malformed::new(what, "has no object \"auths\"; expected {\"auths\": {\"registry\": {\"auth\": …}}}")
    })
}

fn login(entry: &Value) -> Result<Option<Login>, &'static str> {
    let word = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = word("identitytoken") {
        return Ok(Some(Login::Identity(Secret::new(token))));
    }
    if let (Some(user), Some(password)) = (word("username"), word("password")) {
        return Ok(Some(Login::Basic { user: user.to_owned(), password: Secret::new(password) }));
    }
    let Some(pair) = word("auth") else { return Ok(None) };
    crate::spec::secret::remember(pair);
    let bare = pair.trim().trim_end_matches('=');
    let bytes = STANDARD_NO_PAD.decode(bare).map_err(|_| "\"auth\" is not base64")?;
    let text = String::from_utf8(bytes).map_err(|_| "\"auth\" is not base64 of text")?;
    let (user, password) = text.split_once(':').ok_or("\"auth\" is not base64 of user:password")?;
    // Docker pads with NUL.
    let password = Secret::new(password.trim_end_matches('\0'));
    Ok(Some(Login::Basic { user: user.to_owned(), password }))
}

/// Old keys are URLs: `https://index.docker.io/v1/`.
fn normal(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let host = match bare {
        Some(url) => url.split('/').next().unwrap_or_default(),
        None => key.trim_end_matches('/'),
    };
    if host == "index.docker.io" { "docker.io".to_owned() } else { host.to_owned() }
}

/// What a registry wants to see (`WWW-Authenticate`, RFC 7235; the token protocol is distribution's `auth/token.md`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// The best challenge that we can answer.
    pub fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut best = None;
        for header in headers {
            let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
            if scheme.eq_ignore_ascii_case("bearer") {
                let mut fields = parameters(rest);
                if let Some(realm) = fields.remove("realm") {
                    return Some(Self::Bearer {
                        realm,
                        service: fields.remove("service"),
                        scope: fields.remove("scope"),
                    });
                }
            } else if scheme.eq_ignore_ascii_case("basic") {
                best = Some(Self::Basic);
            }
        }
        best
    }
}

/// `key="value",key=value`; commas inside quotes belong to the value.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',']).to_ascii_lowercase();
        let (value, tail) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        fields.insert(key, value.trim().to_owned());
        rest = tail;
    }
    fields
}

/// A bearer token and when to ask for another.
#[derive(Debug, Clone)]
pub struct Token {
    pub value: Secret,
    pub expires: Timestamp,
}

/// Without `expires_in` a token is good for 60 s (distribution, `auth/token.md`).
const DEFAULT_LIFETIME: i64 = 60;

impl Token {
    /// Read a token server's answer, received at `now`. Quay gives no `expires_in`; its JWT says when.
    pub fn parse(body: &[u8], now: Timestamp) -> Result<Self, Malformed> {
        let place = "token answer";
        let document: Value = serde_json::from_slice(body).map_err(|error| {
            Malformed::new(format!("{place}, line {} column {}", error.line(), error.column()), "is not JSON")
        })?;
        let word = |key: &str| document.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let value = word("token")
            .or_else(|| word("access_token"))
            .ok_or_else(|| Malformed::new(place, "has neither \"token\" nor \"access_token\""))?;
        if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Malformed::new(place, "the token is not printable ASCII"));
        }
        let lifetime = document.get("expires_in").and_then(Value::as_i64).filter(|seconds| *seconds > 0);
        let expires = match lifetime {
            Some(seconds) => now.as_second().saturating_add(seconds),
            None => jwt_expiry(value).unwrap_or_else(|| now.as_second().saturating_add(DEFAULT_LIFETIME)),
        };
        let expires = Timestamp::from_second(expires).unwrap_or(Timestamp::MAX);
        Ok(Self { value: Secret::new(value), expires })
    }

    /// Long enough still for another request to reach the registry.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        const MARGIN: Duration = Duration::from_secs(5);
        now.checked_add(MARGIN).is_ok_and(|soon| soon < self.expires)
    }
}

fn jwt_expiry(token: &str) -> Option<i64> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?.trim_end_matches('=')).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    claims.get("exp").and_then(Value::as_i64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
mod tests {
    use super::*;

    #[test]
    fn the_longest_key_wins_and_old_keys_are_read() {
        let text = r#"{"auths":{
            "quay.io":{"auth":"YTphYWFhYWE="},
            "quay.io/org/repo":{"username":"b","password":"bbbbbb"},
            "https://old.example.com/v1/":{"auth":"YzpjY2NjY2M="},
            "token.example.com":{"identitytoken":"tttttt"},
            "empty.example.com":{}}}"#;
        let credentials = Credentials::parse(text).unwrap();
        let user = |registry: &str, repository: &str| match credentials.lookup(registry, repository) {
            Some(Login::Basic { user, .. }) => user.clone(),
            Some(Login::Identity(_)) => "identity".to_owned(),
            None => "none".to_owned(),
        };
        assert_eq!(user("quay.io", "other/repo"), "a");
        assert_eq!(user("quay.io", "org/repo"), "b");
        assert_eq!(user("quay.io", "org/repository"), "a");
        assert_eq!(user("old.example.com", "x"), "c");
        assert_eq!(user("token.example.com", "x"), "identity");
        assert_eq!(user("empty.example.com", "x"), "none");
        assert_eq!(user("quay.io:443", "x"), "none");
    }

    #[test]
    fn errors_of_an_auth_file_do_not_quote_it() {
        let error = Credentials::parse(r#"{"auths":{"quay.io":{"auth":"not*base64-canary"}}}"#).unwrap_err();
        assert!(error.to_string().contains("quay.io"), "{error}");
        assert!(!error.to_string().contains("canary"), "{error}");
    }

    #[test]
    fn challenges_keep_commas_in_quotes() {
        let header = r#"Bearer realm="https://quay.io/v2/auth",service="quay.io",scope="repository:a/b:pull,push""#;
        let challenge = Challenge::parse([header].into_iter()).unwrap();
        let expected = Challenge::Bearer {
            realm: "https://quay.io/v2/auth".into(),
            service: Some("quay.io".into()),
            scope: Some("repository:a/b:pull,push".into()),
        };
        assert_eq!(challenge, expected);
    }

    #[test]
    fn the_life_of_a_token() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let at = |body: &str| Token::parse(body.as_bytes(), now).unwrap().expires.as_second();
        assert_eq!(at(r#"{"token":"abc"}"#), 1_000_060);
        assert_eq!(at(r#"{"access_token":"abc","expires_in":300}"#), 1_000_300);
        let claims = URL_SAFE_NO_PAD.encode(r#"{"exp":1003600}"#);
        assert_eq!(at(&format!(r#"{{"token":"h.{claims}.s"}}"#)), 1_003_600);
    }
}
