//! The copier beside `skopeo copy` (one after the other, and four at once) and `podman pull`, `push`, `rmi`.
//!
//! Two real `docker-registry` with TLS and htpasswd; the mirror is emptied before every run; the contenders take turns.
//! Wants the Debian packages docker-registry, skopeo, podman and time. `TMPDIR` says where the registries keep their data:
//! on a memory file system no disk is measured.
//!
//! `TMPDIR=/dev/shm cargo bench --no-default-features --features lab --bench mirror -- [--runs 3] [--images 40] [--mib 1444] [--jobs 8] [--only NAME[,NAME]] [--binary FILE]`

#[path = "../../it/registry/parts.rs"]
#[allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "shared with the tests, which use all of it")]
mod parts;
#[path = "../../it/ports.rs"]
mod ports;
mod release;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use parts::DockerRegistry;
use release::Release;
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What one run cost.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    /// Of the client, user and system.
    cpu: f64,
    /// Of both registries.
    registries: f64,
    /// Peak of the largest client process, MB.
    rss: f64,
    /// Blocks that the client wrote to a disk, MB.
    disk: f64,
    /// What the source sent.
    read: u64,
    requests: usize,
}

struct Options {
    runs: usize,
    images: usize,
    mib: u64,
    jobs: u8,
    only: Option<String>,
    /// The program to measure, when it is not the one that was built with this.
    binary: String,
}

fn options() -> Result<Options> {
    let binary = env!("CARGO_BIN_EXE_bartizan").to_owned();
    let mut options = Options { runs: 3, images: 40, mib: 1444, jobs: 8, only: None, binary };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
        match word.as_str() {
            "--runs" => options.runs = value()?.parse()?,
            "--images" => options.images = value()?.parse()?,
            "--mib" => options.mib = value()?.parse()?,
            "--jobs" => options.jobs = value()?.parse()?,
            "--only" => options.only = Some(value()?),
            "--binary" => options.binary = value()?,
            // cargo bench adds it.
            "--bench" => {}
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    Ok(options)
}

fn main() -> Result<()> {
    let options = options()?;
    let source = DockerRegistry::start(&[]);
    let release = Release::install(&source, options.images, options.mib << 20)?;
    println!(
        "{} images, {} blobs, {} bytes unique, {} bytes by image",
        release.images.len(),
        release.blobs,
        release.unique,
        release.total
    );
    let mut costs: BTreeMap<&str, Vec<Cost>> = BTreeMap::new();
    let names = ["bartizan", "skopeo", "skopeo x4", "podman"];
    let wanted = |name: &&&str| options.only.as_ref().is_none_or(|only| only.split(',').any(|it| it == **name));
    for _ in 0..options.runs {
        for name in names.iter().filter(wanted) {
            match once(name, &source, &release, &options) {
                Ok(cost) => {
                    println!("  {name:10} {}", show(&cost, release.unique));
                    costs.entry(name).or_default().push(cost);
                }
                Err(error) => println!("  {name:10} cannot run here: {error}"),
            }
        }
    }
    println!("median of {} runs:", options.runs);
    for (name, costs) in &costs {
        let median = |get: fn(&Cost) -> f64| {
            let mut all: Vec<f64> = costs.iter().map(get).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap_or_default()
        };
        let cost = Cost {
            wall: median(|cost| cost.wall),
            cpu: median(|cost| cost.cpu),
            registries: median(|cost| cost.registries),
            rss: median(|cost| cost.rss),
            disk: median(|cost| cost.disk),
            read: median(|cost| cost.read as f64) as u64,
            requests: median(|cost| cost.requests as f64) as usize,
        };
        println!("  {name:10} {}", show(&cost, release.unique));
    }
    Ok(())
}

fn show(cost: &Cost, unique: u64) -> String {
    format!(
        "wall {:6.2} s  client {:6.2} s  registries {:6.2} s  peak {:5.0} MB  disk {:5.0} MB  read {:+.2} %  {} requests",
        cost.wall,
        cost.cpu,
        cost.registries,
        cost.rss,
        cost.disk,
        (cost.read as f64 / unique as f64 - 1.0) * 100.0,
        cost.requests
    )
}

fn once(name: &str, source: &DockerRegistry, release: &Release, options: &Options) -> Result<Cost> {
    let mirror = DockerRegistry::start(&[]);
    let dir = tempfile::tempdir()?;
    let auth = dir.path().join("auth.json");
    let logins = json!({"auths": {source.host(): source.auth(), mirror.host(): mirror.auth()}});
    std::fs::write(&auth, logins.to_string())?;
    std::fs::set_permissions(&auth, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let script = match name {
        "bartizan" => bartizan(source, &mirror, release, options, dir.path()),
        "skopeo" => skopeo(source, &mirror, release, 1)?,
        "skopeo x4" => skopeo(source, &mirror, release, 4)?,
        _ => podman(source, &mirror, release, dir.path())?,
    };
    let report = dir.path().join("time");
    let before = (cpu(source.pid())?, source.access());
    let began = Instant::now();
    let output = Command::new("/usr/bin/time")
        .args(["-f", "%U %S %M %O", "-o"])
        .arg(&report)
        .args(["sh", "-e", "-c", &script])
        .env("REGISTRY_AUTH_FILE", &auth)
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .output()?;
    let wall = began.elapsed().as_secs_f64();
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        return Err(text.lines().rev().take(4).collect::<Vec<_>>().join(" | ").into());
    }
    let text = std::fs::read_to_string(&report)?;
    let mut words = text.lines().last().unwrap_or_default().split(' ').map(|word| word.parse::<f64>().unwrap_or(0.0));
    let mut next = || words.next().unwrap_or(0.0);
    let (user, system, rss, blocks) = (next(), next(), next(), next());
    let (count, read) = (source.access().0 - before.1.0, source.access().1 - before.1.1);
    Ok(Cost {
        wall,
        cpu: user + system,
        registries: cpu(source.pid())? - before.0 + cpu(mirror.pid())?,
        rss: rss / 1000.0,
        disk: blocks * 512.0 / 1e6,
        read,
        requests: count + mirror.access().0,
    })
}

/// Seconds of processor time that a process has used (`proc(5)`).
fn cpu(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: f64 = rest.split(' ').skip(11).take(2).map(|word| word.parse::<f64>().unwrap_or(0.0)).sum();
    Ok(ticks / 100.0)
}

fn bartizan(
    source: &DockerRegistry,
    mirror: &DockerRegistry,
    release: &Release,
    options: &Options,
    dir: &Path,
) -> String {
    format!(
        "exec {} --state {} mirror --release {} --to {}/ocp --authfile auth.json --source-ca {} --mirror-ca {} --jobs {} --json",
        options.binary,
        dir.join("state").display(),
        release.pull_spec,
        mirror.host(),
        source.ca_file().display(),
        mirror.ca_file().display(),
        options.jobs
    )
}

/// Pairs of references, one line each.
fn pairs(source: &DockerRegistry, mirror: &DockerRegistry, release: &Release) -> String {
    let pair = |(repo, tag, digest): &(String, String, String)| {
        format!("{}/{repo}@{digest} {}/ocp:{tag}\n", source.host(), mirror.host())
    };
    release.images.iter().map(pair).collect()
}

fn skopeo(source: &DockerRegistry, mirror: &DockerRegistry, release: &Release, at_once: usize) -> Result<String> {
    let list = source.ca_file().with_file_name("pairs");
    std::fs::write(&list, pairs(source, mirror, release))?;
    let (from, to) = (certificates(source)?, certificates(mirror)?);
    Ok(format!(
        "exec xargs -P {at_once} -L 1 sh -c 'exec skopeo copy -q --all --preserve-digests --src-cert-dir {from} --dest-cert-dir {to} \
         docker://$0 docker://$1' <{}",
        list.display()
    ))
}

fn podman(source: &DockerRegistry, mirror: &DockerRegistry, release: &Release, dir: &Path) -> Result<String> {
    let list = source.ca_file().with_file_name("pairs");
    std::fs::write(&list, pairs(source, mirror, release))?;
    let (from, to) = (certificates(source)?, certificates(mirror)?);
    let storage = format!("podman --root {0}/root --runroot {0}/run --storage-driver vfs", dir.display());
    Ok(format!(
        "while read -r from to; do {storage} pull -q --cert-dir {from} $from; {storage} push -q --cert-dir {to} $from docker://$to; \
         {storage} rmi -f $from; done <{}",
        list.display()
    ))
}

/// skopeo reads every `.crt` and pairs every `.key` of a directory, so the CA gets one of its own.
fn certificates(registry: &DockerRegistry) -> Result<String> {
    let dir = registry.ca_file().with_file_name("trusted");
    std::fs::create_dir_all(&dir)?;
    std::fs::copy(registry.ca_file(), dir.join("ca.crt"))?;
    Ok(dir.display().to_string())
}
