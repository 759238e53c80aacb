//! 04: the programs that the later stages run on the bastion, by absolute path, in the version of the release.

use std::time::Duration;

use async_trait::async_trait;

use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::{Cmd, Host};
use crate::model::event::{Action, Evidence, Unit};
use crate::spec::{Spec, ToolsSource};

use super::world::{Cx, World, action, bytes, exec, fact, file, must, put, sha256};

/// This program itself: the copier runs on the bastion.
pub struct Bartizan;

/// oc, openshift-install and, for that engine, oc-mirror.
pub struct Clients;

/// Where a tool was found: `tool.oc` → absolute path.
pub(super) fn tool_fact(tool: &str) -> String {
    format!("tool.{tool}")
}

/// A command of a tool that stage 04 found.
pub(super) fn tool(cx: &Cx, name: &str) -> Result<Cmd, StepError> {
    Ok(Cmd::new(cx.need(&tool_fact(name))?))
}

/// Absolute path of a tool: ours first, then what the PATH has.
fn find(workdir: &str, name: &str) -> Cmd {
    Cmd::sh("if [ -x \"$1/bin/$2\" ]; then printf '%s\\n' \"$1/bin/$2\"; else command -v \"$2\"; fi")
        .arg(workdir)
        .arg(name)
}

async fn found(cx: &Cx, name: &str) -> Result<Option<String>, StepError> {
    let output = exec(cx, &cx.world.bastion(cx)?, find(&cx.need(fact::WORKDIR)?, name)).await?;
    let path = output.text();
    Ok((output.ok() && path.starts_with('/')).then_some(path))
}

const OURS: &str = env!("CARGO_PKG_VERSION");

/// Does this path say that it is the bartizan that asks?
async fn is_ours(cx: &Cx, path: &str) -> Result<bool, StepError> {
    let output = exec(cx, &cx.world.bastion(cx)?, Cmd::new(path).arg("--version")).await?;
    Ok(output.ok() && output.text().split_whitespace().last() == Some(OURS))
}

#[async_trait]
impl Step<World> for Bartizan {
    fn preview(&self, world: &World) -> Vec<Action> {
        let workdir = format!("~/{}", world.spec.bastion.workdir);
        vec![action("bastion", &find(&workdir, "bartizan")), file("bastion", &format!("{workdir}/bin/bartizan"), 0o700)]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let Some(path) = found(cx, "bartizan").await? else {
            return Ok(Probe::Missing("bartizan is not on the bastion".into()));
        };
        if !is_ours(cx, &path).await? {
            return Ok(Probe::Missing(format!("{path} is not bartizan {OURS}")));
        }
        cx.set_fact(&tool_fact("bartizan"), path.clone()).await;
        Ok(Probe::True(vec![Evidence::new(format!("{path} --version"), OURS)]))
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let bastion = cx.world.bastion(cx)?;
        let there = must(cx, &bastion, Cmd::new("uname").arg("-sm")).await?.text();
        let here = format!("Linux {}", std::env::consts::ARCH);
        if there != here {
            return Err(StepError::fatal(format!("the bastion is {there}, this bartizan is built for {here}"))
                .hint("build bartizan for the bastion and put it there as ~/bartizan/bin/bartizan"));
        }
        let program = std::env::current_exe()
            .and_then(std::fs::read)
            .map_err(|error| StepError::fatal(format!("reading this program: {error}")))?;
        cx.progress(0, Some(program.len() as u64), Unit::Bytes, Some("uploading".into())).await;
        let path = format!("{}/bin/bartizan", cx.need(fact::WORKDIR)?);
        put(cx, &bastion, &path, bytes(program), 0o700).await?;
        cx.set_fact(&tool_fact("bartizan"), path).await;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let path = cx.need(&tool_fact("bartizan"))?;
        if !is_ours(cx, &path).await? {
            return Err(StepError::fatal(format!("{path} does not run on the bastion"))
                .hint("its C library may be older than the one this program was built with: build it there"));
        }
        Ok(vec![Evidence::new(format!("{path} --version"), OURS)])
    }
}

/// A tool, the archive that holds it, and how to ask for its version.
struct Client {
    name: &'static str,
    archive: &'static str,
    version: &'static [&'static str],
}

const CLIENTS: [Client; 3] = [
    Client { name: "oc", archive: "openshift-client-linux", version: &["version", "--client"] },
    Client { name: "openshift-install", archive: "openshift-install-linux", version: &["version"] },
    Client { name: "oc-mirror", archive: "oc-mirror", version: &["version", "--short"] },
];

fn wanted(spec: &Spec) -> impl Iterator<Item = &'static Client> {
    let oc_mirror = spec.mirror.needs_oc_mirror();
    CLIENTS.iter().filter(move |client| client.name != "oc-mirror" || oc_mirror)
}

/// Name of the archive, as mirror.openshift.com has it.
fn archive(spec: &Spec, client: &Client) -> String {
    match client.name {
        "oc-mirror" => "oc-mirror.tar.gz".to_owned(),
        _ => format!("{}-{}.tar.gz", client.archive, spec.release.version),
    }
}

/// Downloads one archive beside the list of checksums, checks it, and takes the tool out of it.
fn download(spec: &Spec, workdir: &str, client: &Client) -> Cmd {
    let url = format!("{}/{}", spec.tools.url.trim_end_matches('/'), spec.release.version);
    Cmd::sh(format!("{FETCH}{UNPACK}"))
        .arg(workdir)
        .arg(archive(spec, client))
        .arg(client.name)
        .arg(url)
        .timeout(Some(Duration::from_secs(1500)))
}

const FETCH: &str = r#"set -e
umask 077
mkdir -p "$1/bin" "$1/download"
cd "$1/download"
curl -fsSL --retry 3 -o sha256sum.txt "$4/sha256sum.txt"
curl -fsSL --retry 3 -C - -o "$2" "$4/$2"
"#;

const UNPACK: &str = r#"set -e
cd "$1/download"
grep -F "  $2" sha256sum.txt >"$2.sha256"
sha256sum -c "$2.sha256"
tar -xzf "$2" "$3"
chmod 700 "$3"
mv -f "$3" "$1/bin/$3"
"#;

#[async_trait]
impl Step<World> for Clients {
    fn preview(&self, world: &World) -> Vec<Action> {
        let spec = &world.spec;
        let workdir = format!("~/{}", spec.bastion.workdir);
        wanted(spec)
            .flat_map(|client| {
                let bring = match spec.tools.source {
                    ToolsSource::Download => Some(action("bastion", &download(spec, &workdir, client))),
                    ToolsSource::Directory => {
                        Some(file("bastion", &format!("{workdir}/download/{}", archive(spec, client)), 0o600))
                    }
                    ToolsSource::Present => None,
                };
                std::iter::once(action("bastion", &find(&workdir, client.name))).chain(bring)
            })
            .collect()
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let mut evidence = Vec::new();
        for client in wanted(&cx.world.spec) {
            let Some(path) = found(cx, client.name).await? else {
                return Ok(Probe::Missing(format!("{} is not on the bastion", client.name)));
            };
            let bastion = cx.world.bastion(cx)?;
            let output = exec(cx, &bastion, Cmd::new(&path).args(client.version.iter().copied())).await?;
            if !output.ok() {
                return Ok(Probe::Missing(format!("{path} does not run: {}", output.error_text())));
            }
            let version = output.text().lines().next().unwrap_or_default().to_owned();
            // An installer of another version asks for images that the release does not have.
            let release = &cx.world.spec.release.version;
            if client.name == "openshift-install" && !version.split_whitespace().any(|word| word == release) {
                return Ok(Probe::Missing(format!("{path} is not {release}: {version}")));
            }
            cx.set_fact(&tool_fact(client.name), path.clone()).await;
            evidence.push(Evidence::new(format!("{path} {}", client.version.join(" ")), version));
        }
        Ok(Probe::True(evidence))
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let spec = &cx.world.spec;
        let bastion = cx.world.bastion(cx)?;
        let workdir = cx.need(fact::WORKDIR)?;
        let all = wanted(spec).count() as u64;
        for (done, client) in (0..).zip(wanted(spec)) {
            cx.progress(done, Some(all), Unit::Count, Some(client.name.into())).await;
            match spec.tools.source {
                ToolsSource::Download => {
                    must(cx, &bastion, download(spec, &workdir, client)).await?;
                }
                ToolsSource::Directory => {
                    upload(cx, &bastion, &workdir, &archive(spec, client)).await?;
                    let unpack = Cmd::sh(UNPACK).arg(&workdir).arg(archive(spec, client)).arg(client.name);
                    must(cx, &bastion, unpack.timeout(Some(Duration::from_secs(300)))).await?;
                }
                ToolsSource::Present => {
                    return Err(StepError::fatal(format!(
                        "tools.source is \"present\", but the bastion has no {} {}",
                        client.name, spec.release.version
                    ))
                    .hint("set tools.source to \"download\" or \"directory\""));
                }
            }
        }
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        match self.probe(cx).await? {
            Probe::True(evidence) => Ok(evidence),
            Probe::Missing(why) | Probe::NotApplicable(why) => Err(StepError::fatal(why)),
        }
    }
}

/// An archive and the list of checksums from a folder on this machine, checked before they travel.
async fn upload(cx: &Cx, bastion: &std::sync::Arc<dyn Host>, workdir: &str, archive: &str) -> Result<(), StepError> {
    let folder = cx.world.spec.tools.directory.clone().unwrap_or_default();
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).map_err(|error| StepError::fatal(format!("reading {}: {error}", path.display())))
    };
    let (content, sums) = (read(archive)?, read("sha256sum.txt")?);
    let sum = sha256(&content);
    if !String::from_utf8_lossy(&sums).lines().any(|line| line.starts_with(&sum) && line.ends_with(archive)) {
        return Err(StepError::fatal(format!("{archive} in {} is not what its sha256sum.txt says", folder.display()))
            .hint("copy both files anew from mirror.openshift.com"));
    }
    put(cx, bastion, &format!("{workdir}/download/sha256sum.txt"), bytes(sums), 0o600).await?;
    put(cx, bastion, &format!("{workdir}/download/{archive}"), bytes(content), 0o600).await?;
    must(cx, bastion, Cmd::new("mkdir").args(["-p", &format!("{workdir}/bin")])).await.map(drop)
}
