//! What the engines print, line by line as their sources make it, on a terminal and without one.

/// Images of a small release, an operator and one more: component or name, digest, destination.
pub struct Image {
    pub kind: &'static str,
    pub origin: String,
    pub target: String,
}

pub fn digest(letter: char) -> String {
    format!("sha256:{}", letter.to_string().repeat(64))
}

pub const REGISTRY: &str = "registry.real.test:5000";
pub const TOOLS: &str = "registry.redhat.io/rhel9/support-tools:latest";

pub fn images() -> Vec<Image> {
    let art = |letter, name: &str| Image {
        kind: "ocpReleaseContent",
        origin: format!("quay.io/openshift-release-dev/ocp-v4.0-art-dev@{}", digest(letter)),
        target: format!("{REGISTRY}/openshift/release:4.18.9-x86_64-{name}"),
    };
    vec![
        Image {
            kind: "ocpRelease",
            origin: format!("quay.io/openshift-release-dev/ocp-release@{}", digest('a')),
            target: format!("{REGISTRY}/openshift/release-images:4.18.9-x86_64"),
        },
        art('b', "etcd"),
        art('c', "cluster-dns-operator"),
        Image { kind: "generic", origin: TOOLS.into(), target: format!("{REGISTRY}/rhel9/support-tools:latest") },
    ]
}

/// `dry-run/mapping.txt`
pub fn mapping() -> String {
    images().iter().map(|image| format!("docker://{}=docker://{}\n", image.origin, image.target)).collect()
}

/// A line of its log: Go's time, the level in colour whatever stdout is, two widths of padding.
pub fn log(level: &str, text: &str) -> String {
    let (colour, pad) = match level {
        "ERROR" => ("1;91", ""),
        "WARN" => ("1;93", " "),
        _ => ("1;94", " "),
    };
    format!("2025/11/25 12:50:51 \u{1b}[{colour}m [{level}] {pad}\u{1b}[0m : {text}\n")
}

fn opening() -> String {
    [
        "👋 Hello, welcome to oc-mirror",
        "⚙️  setting up the environment for you...",
        "🔀 workflow mode: mirrorToMirror",
        "🕵️  going to discover the necessary images...",
        "🔍 collecting release images...",
        "🔍 collecting operator images...",
        "🔍 collecting additional images...",
        "🚀 Start copying the images...",
        "📌 images to copy 4",
    ]
    .iter()
    .map(|text| log("INFO", text))
    .collect()
}

fn closing(fails: bool) -> String {
    let mut text = log("INFO", "=== Results ===");
    text.push_str(&log("INFO", " ✓  3 / 3 release images mirrored successfully"));
    if fails {
        let line = " ✗  0 / 1 additional images mirrored: Some additional images failed to be mirrored - please check the logs";
        text.push_str(&log("INFO", line));
        let line = format!(
            "[Worker] error mirroring image {TOOLS} error: initializing source docker://{TOOLS}: reading manifest latest in registry.redhat.io/rhel9/support-tools: manifest unknown"
        );
        text.push_str(&log("ERROR", &line));
    } else {
        text.push_str(&log("INFO", " ✓  1 / 1 additional images mirrored successfully"));
    }
    text.push_str(&log("INFO", "📄 Generating IDMS file..."));
    text.push_str(&log("INFO", "/ws/working-dir/cluster-resources/idms-oc-mirror.yaml file created"));
    text.push_str(&log("INFO", "mirror time     : 6m42.1s"));
    text.push_str(&log("INFO", "👋 Goodbye, thank you for using oc-mirror"));
    if fails {
        text.push_str(&log("ERROR", "[Executor] some errors occurred during the mirroring."));
    }
    text
}

/// Without a terminal: a line when an image is finished.
pub fn oc_mirror_plain(fails: bool) -> String {
    let mut text = opening();
    for image in images() {
        if fails && image.origin == TOOLS {
            text.push_str(&log("ERROR", &format!("Failed to copy {} {}", image.kind, image.origin)));
        } else {
            let (place, _) = image.target.rsplit_once('/').unwrap();
            text.push_str(&log("INFO", &format!("Success copying {} ➡️  {place}/", image.origin)));
        }
    }
    text.push_str(&closing(fails));
    text
}

/// On a terminal: spinners and a bar, drawn over themselves.
pub fn oc_mirror_terminal(fails: bool) -> String {
    let mut text = opening();
    let images = images();
    for finished in 0..=images.len() {
        if finished > 0 {
            text.push_str(&format!("\u{1b}[{}A\u{1b}[J", images.len() + 1));
        }
        for (at, image) in images.iter().enumerate() {
            let short = image.origin.rsplit('/').next().unwrap();
            let (place, _) = image.target.rsplit_once('/').unwrap();
            let bad = fails && image.origin == TOOLS;
            let mark = match (at < finished, bad) {
                (true, false) => "\u{1b}[1;92m✓\u{1b}[0m",
                (true, true) => "\u{1b}[1;91m✗\u{1b}[0m",
                (false, _) => "⠋",
            };
            text.push_str(&format!("\r {mark}   ({finished}s)  {short} ➡️  {place}/ \r\n"));
        }
        text.push_str(&format!("{finished} / {} ({finished}s) [=====>----]  {} %\r\n", images.len(), finished * 25));
    }
    text.push_str(&closing(fails));
    text.replace('\n', "\r\n").replace("\r\r", "\r")
}

/// `oc adm release mirror`, both streams as a terminal and a log show them. `reg/repo` is the one target.
pub fn oc_adm(fails: bool) -> String {
    let target = format!("{REGISTRY}/openshift/release");
    let source = "quay.io/openshift-release-dev/ocp-v4.0-art-dev";
    let mut text = format!("info: Mirroring 3 images to {target} ...\n{REGISTRY}/\n  openshift/release\n    blobs:\n");
    for (letter, size) in [('1', "79.44MiB"), ('2', "92.95MiB"), ('3', "1.2KiB")] {
        text.push_str(&format!("      {source} {} {size}\n", digest(letter)));
    }
    text.push_str("    manifests:\n");
    for image in images().iter().take(3) {
        let (_, found) = image.origin.split_once('@').unwrap();
        let (_, tag) = image.target.rsplit_once(':').unwrap();
        text.push_str(&format!("      {found} -> {tag}\n"));
    }
    text.push_str("  stats: shared=0 unique=3 size=172.4MiB ratio=1.00\n\nphase 0:\n");
    text.push_str(&format!(
        "  {REGISTRY} openshift/release blobs=3 mounts=0 manifests=3 shared=0\n\ninfo: Planning completed in 27.34s\n"
    ));
    text.push_str(&format!("uploading: {target} {} 92.95MiB\n", digest('2')));
    text.push_str(&format!("uploading: {target} {} 79.44MiB\n", digest('1')));
    text.push_str(&format!("mounted: {target} {} 11.5MiB\n", digest('4')));
    for (at, image) in images().iter().take(3).enumerate() {
        let (repository, found) = image.origin.split_once('@').unwrap();
        if fails && at == 2 {
            text.push_str(&format!("error: unable to retrieve source image {repository} manifest {found}: manifest unknown: manifest unknown\n"));
            text.push_str("info: Mirroring completed in 8m46.5s (10.38MB/s)\nerror: one or more errors occurred while uploading images\n");
            return text;
        }
        text.push_str(&format!("{found} {}\n", image.target));
    }
    text.push_str("info: Mirroring completed in 8m46.5s (10.38MB/s)\n\nSuccess\nUpdate image:  registry.real.test:5000/openshift/release:4.18.9-x86_64\nMirror prefix: registry.real.test:5000/openshift/release\n");
    text
}
