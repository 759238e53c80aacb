//! Engines of others, driven by the program itself over a real sshd. They are scripts that copy with skopeo and print what
//! the real ones print; the registry tells what it stored.

use std::path::Path;
use std::time::{Duration, Instant};

use bartizan::model::event::ImageState;
use bartizan::registry::notify::Notice;
use rustix::process::{Pid, Signal, kill_process};

use super::site::{Site, alive};
use crate::registry::Recipe;

const RELEASE: &str = "openshift-release-dev/ocp-release";
const COMPONENTS: &str = "openshift-release-dev/ocp-v4.0-art-dev";

/// What an engine would find out: a line for each image, `NAME SOURCE DIGEST TARGET TAG`.
fn images(site: &Site) -> String {
    let (release, source) = (&site.release, site.source.host());
    let tag = format!("{}-x86_64", release.version);
    let mut text = String::new();
    for (name, digest) in &release.components {
        text.push_str(&format!("{name} {source}/{COMPONENTS} {digest} openshift/release {tag}-{name}\n"));
    }
    text.push_str(&format!("release {source}/{RELEASE} {} openshift/release-images {tag}\n", release.digest));
    text
}

/// `copy SOURCE DIGEST TARGET TAG`, waiting while the file `hold` is there.
fn copy(site: &Site) -> String {
    let (_, address) = site.mirror();
    format!(
        "here={here}\ncopy() {{\n  while [ -e \"$here/hold\" ]; do sleep 0.1; done\n  skopeo --insecure-policy copy -q --all --preserve-digests \
         --src-authfile \"$here/bastion/work/auth.json\" --dest-authfile \"$here/skopeo-auth.json\" --src-tls-verify=false --dest-tls-verify=false \
         \"docker://$1@$2\" \"docker://{address}/$3:$4\"\n}}\n",
        here = site.path("").display(),
    )
}

/// `oc adm release mirror`: starts of blobs on standard error, manifests on standard output, all at its end.
fn oc(site: &Site) -> String {
    let (mirror, _) = site.mirror();
    format!(
        r#"if [ "$1" = version ]; then echo "Client Version: {version}"; exit 0; fi
{copy}echo "$*" >>"$here/asked"
count=$(wc -l <"$here/images")
echo "info: Mirroring $count images to {mirror}/openshift/release ..." >&2
echo "info: Planning completed in 27.34s" >&2
while read -r name source digest target tag; do
  echo "uploading: {mirror}/$target $digest 92.95MiB" >&2
  copy "$source" "$digest" "$target" "$tag" || {{ echo "error: one or more errors occurred while uploading images" >&2; exit 1; }}
done <"$here/images"
while read -r name source digest target tag; do echo "$digest {mirror}/$target:$tag"; done <"$here/images"
echo "info: Mirroring completed in 8m46.5s (10.38MB/s)" >&2
printf '\nSuccess\nUpdate image:  {mirror}/openshift/release-images\n'"#,
        version = site.release.version,
        copy = copy(site),
    )
}

/// `oc-mirror --v2`: a line when an image is finished; an image that is in the file `broken` fails.
fn oc_mirror(site: &Site) -> String {
    let (mirror, address) = site.mirror();
    format!(
        r#"if [ "$1" = version ]; then echo "Client Version: {version}"; exit 0; fi
{copy}say() {{ printf '2025/11/25 12:50:51 \033[1;94m [%s]  \033[0m : %s\n' "$1" "$2"; }}
env | grep -q '^REGISTRY_' && {{ echo 'panic: configuring application' >&2; exit 2; }}
workspace=; dry=; to=disk; from=
while [ $# -gt 0 ]; do
  case $1 in
    --workspace) workspace=${{2#file://}}; shift ;;
    --from) from=${{2#file://}}; workspace=$from; shift ;;
    --dry-run) dry=1 ;;
    --config) cp "$2" "$here/asked"; shift ;;
    --authfile) shift ;;
    file://*) workspace=${{1#file://}} ;;
    docker://*) to=mirror ;;
  esac
  shift
done
work=$workspace/working-dir
mkdir -p "$work/dry-run" "$work/logs" "$work/cluster-resources"
say INFO '👋 Hello, welcome to oc-mirror'
say INFO '🔍 collecting release images...'
if [ -n "$dry" ]; then
  while read -r name source digest target tag; do echo "docker://$source@$digest=docker://{mirror}/$target:$tag"; done <"$here/images" >"$work/dry-run/mapping.txt"
  exit 0
fi
say INFO "📌 images to copy $(wc -l <"$here/images")"
failed=0
rm -f "$work/logs"/mirroring_errors_*.txt
while read -r name source digest target tag; do
  if [ "$name" = "$(cat "$here/broken" 2>/dev/null)" ]; then
    say ERROR "Failed to copy ocpReleaseContent docker://$source@$digest"
    echo "error mirroring image docker://$source@$digest error: reading manifest $digest: manifest unknown" >>"$work/logs/mirroring_errors_20251125_125051.txt"
    failed=2
    continue
  fi
  if [ "$to" = disk ]; then
    mkdir -p "$workspace/images"
    skopeo --insecure-policy copy -q --all --preserve-digests --src-authfile "$here/bastion/work/auth.json" --src-tls-verify=false \
      "docker://$source@$digest" "dir:$workspace/images/$name" || exit 1
    say INFO "Success copying docker://$source@$digest ➡️  cache"
    continue
  fi
  if [ -n "$from" ]; then
    skopeo --insecure-policy copy -q --all --preserve-digests --dest-authfile "$here/skopeo-auth.json" --dest-tls-verify=false \
      "dir:$from/images/$name" "docker://{address}/$target:$tag" || exit 1
  else
    copy "$source" "$digest" "$target" "$tag" || exit 1
  fi
  say INFO "Success copying docker://$source@$digest ➡️  {mirror}/$target/"
done <"$here/images"
printf 'apiVersion: config.openshift.io/v1\nkind: ImageDigestMirrorSet\nmetadata:\n  name: idms-release-0\nspec:\n  imageDigestMirrors: []\n' >"$work/cluster-resources/idms-oc-mirror.yaml"
say INFO '👋 Goodbye, thank you for using oc-mirror'
printf 'apiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSet\nmetadata:\n  name: itms-generic-0\nspec:\n  imageTagMirrors: []\n' >"$work/cluster-resources/itms-oc-mirror.yaml"
exit $failed"#,
        version = site.release.version,
        copy = copy(site),
    )
}

fn site(engine: &str) -> Site {
    let site = Site::new(&Recipe::default(), 4);
    std::fs::write(site.path("images"), images(&site)).unwrap();
    site.mirror_key(&format!("engine = \"{engine}\""));
    site.tool("oc", &oc(&site));
    site.tool("oc-mirror", &oc_mirror(&site));
    site
}

fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(240);
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn output(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn oc_mirrors_on_while_nobody_watches_and_the_registry_tells_what_it_stored() {
    let site = site("oc-adm");
    let job = site.workdir().join("jobs/oc-adm-release-mirror");
    std::fs::write(site.path("hold"), "").unwrap();
    let mut first = site.start(&["run", "cluster.toml", "--until", "06", "--plain"], "first");
    wait("oc is at work", || {
        assert!(first.try_wait().unwrap().is_none(), "{}", output(&site.path("first")));
        site.job("oc-adm-release-mirror", "log").contains("uploading: ")
    });
    kill_process(Pid::from_child(&first), Signal::KILL).unwrap();
    first.wait().unwrap();
    let leader = alive(&job).expect("oc works on");
    std::fs::remove_file(site.path("hold")).unwrap();

    let run = site.run().0.file_name().unwrap().to_string_lossy().into_owned();
    let second = site.bartizan(&["run", "cluster.toml", "--resume", &run, "--until", "06", "--plain"]);
    let said = String::from_utf8_lossy(&second.stdout).into_owned();
    assert_eq!(second.status.code(), Some(0), "{said}\n{}", String::from_utf8_lossy(&second.stderr));
    assert_eq!(output(&site.path("asked")).lines().count(), 1, "oc was started once");
    assert!(site.job("oc-adm-release-mirror", "pid").contains(&leader.as_raw_nonzero().get().to_string()));

    let (dir, model) = site.run();
    let count = site.release.components.len() + 1;
    assert_eq!(model.sync.done(), (count, count));
    assert!(model.sync.images.iter().all(|record| record.engine.as_deref() == Some("oc adm release mirror")));
    assert!(model.sync.proven.is_some_and(|(_, missing)| missing.is_empty()), "the signatures are there too");
    assert_eq!(site.judge(), count);

    // Each component was told of by the registry itself.
    let log = site.job("notifications", "log");
    let notices: Vec<Notice> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let pushed = |digest: &String| notices.iter().any(|notice| notice.is_manifest() && notice.digest == *digest);
    let untold: Vec<_> = site.release.components.values().filter(|digest| !pushed(digest)).collect();
    assert!(untold.is_empty(), "{untold:?} of {} notices", notices.len());

    let report = output(&dir.join("outputs/report.md"));
    assert!(report.contains("copied by: oc adm release mirror") && report.contains("answer in the mirror"), "{report}");
    assert!(output(&dir.join("outputs/idms.yaml")).contains("imageDigestMirrors"));
}

#[test]
fn what_oc_mirror_could_not_bring_is_named_and_brought_the_next_time() {
    let site = site("oc-mirror");
    std::fs::write(site.path("broken"), "etcd").unwrap();
    let first = site.bartizan(&["run", "cluster.toml", "--until", "06", "--plain"]);
    let said = String::from_utf8_lossy(&first.stdout).into_owned();
    assert_eq!(first.status.code(), Some(9), "{said}\n{}", String::from_utf8_lossy(&first.stderr));
    assert!(said.contains("oc-mirror could not bring all release images"), "{said}");
    let (_, model) = site.run();
    let etcd = model.sync.images.iter().find(|record| record.image.name == "etcd").expect("a row");
    let ImageState::Failed { class, .. } = &etcd.state else { panic!("{:?}", etcd.state) };
    assert_eq!(class, "manifest-unknown");
    assert!(model.findings.iter().any(|record| record.finding.signature.starts_with("MIR-")), "{:?}", model.findings);
    let asked = output(&site.path("asked"));
    assert!(asked.contains("mirror.openshift.io/v2alpha1") && asked.contains(&site.release.pull_spec), "{asked}");

    std::fs::remove_file(site.path("broken")).unwrap();
    let run = site.run().0.file_name().unwrap().to_string_lossy().into_owned();
    let second = site.bartizan(&["run", "cluster.toml", "--resume", &run, "--until", "06", "--plain"]);
    let said = String::from_utf8_lossy(&second.stdout).into_owned();
    assert_eq!(second.status.code(), Some(0), "{said}\n{}", String::from_utf8_lossy(&second.stderr));
    let (dir, model) = site.run();
    assert!(model.sync.images.iter().all(|record| record.engine.as_deref() == Some("oc-mirror")));
    let (proven, missing) = model.sync.proven.expect("it was asked");
    // This oc-mirror leaves signatures out; they are there nevertheless.
    assert!(missing.is_empty() && proven > site.release.components.len() as u64 + 1, "{proven} {missing:?}");
    assert_eq!(site.judge(), site.release.components.len() + 1);
    assert!(output(&dir.join("outputs/idms-oc-mirror.yaml")).contains("idms-release-0"));
    assert!(output(&dir.join("outputs/report.md")).contains("copied by: oc-mirror"));
}

#[test]
fn archives_are_made_and_then_filled_from_without_the_source() {
    let mut site = site("oc-mirror");
    site.mirror_key("workflow = \"via-disk\"");
    let first = site.bartizan(&["run", "cluster.toml", "--until", "06", "--plain"]);
    let said = String::from_utf8_lossy(&first.stdout).into_owned();
    assert_eq!(first.status.code(), Some(0), "{said}\n{}", String::from_utf8_lossy(&first.stderr));
    assert_eq!(site.judge(), site.release.components.len() + 1);
    assert!(site.job("oc-mirror-to-disk", "log").contains("cache"), "into the archive first");
    assert!(site.job("oc-mirror-from-disk", "log").contains("Success copying"));
    let (dir, model) = site.run();
    assert_eq!(model.sync.done(), (site.release.components.len() + 1, site.release.components.len() + 1));
    assert!(output(&dir.join("outputs/itms-oc-mirror.yaml")).contains("itms-generic-0"));

    // The archive was carried to a place without internet, and the mirror there has nothing yet.
    std::fs::remove_dir_all(site.storage().join("data/docker")).unwrap();
    site.source.stop();
    let archive = site.workdir().join("sync/archive");
    let spec = output(&site.path("cluster.toml"));
    let spec = spec.replace("\"via-disk\"", &format!("\"from-disk\"\narchive = {archive:?}"));
    std::fs::write(site.path("cluster.toml"), spec).unwrap();
    let second = site.bartizan(&["run", "cluster.toml", "--until", "06", "--plain"]);
    let said = String::from_utf8_lossy(&second.stdout).into_owned();
    assert_eq!(second.status.code(), Some(0), "{said}\n{}", String::from_utf8_lossy(&second.stderr));
    assert_eq!(site.judge(), site.release.components.len() + 1);
    let (proven, missing) = site.run().1.sync.proven.expect("it was asked");
    assert!(missing.is_empty() && proven > site.release.components.len() as u64, "{proven} {missing:?}");
}
