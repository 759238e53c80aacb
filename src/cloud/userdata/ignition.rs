//! Ignition of CoreOS, spec 3.2: every RHCOS since 4.7 reads it.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ignition_config::v3_2::{Config, File, Passwd, Resource, Storage, Systemd, Unit, User};

use super::{FirstBoot, UserDataError};

const HOST_KEYS: &str = include_str!("../../../assets/userdata/host-keys.service");

pub(super) fn render(boot: &FirstBoot<'_>) -> Result<String, UserDataError> {
    let mut user = User::new(boot.user.to_owned());
    user.ssh_authorized_keys = Some(vec![boot.authorized_key.to_owned()]);
    let admin = boot.user != "core";
    user.groups = admin.then(|| vec!["sudo".to_owned(), "wheel".to_owned()]);
    let mut print = Unit::new("bartizan-host-keys.service".into());
    print.contents = Some(HOST_KEYS.to_owned());
    print.enabled = Some(true);
    // A bastion that updates itself would restart in the middle of an installation.
    let mut updates = Unit::new("zincati.service".into());
    updates.mask = Some(true);
    let files = boot.host_key.map(|key| {
        vec![
            file("/etc/ssh/ssh_host_ed25519_key", key.private.reveal(), 0o600),
            file("/etc/ssh/ssh_host_ed25519_key.pub", &format!("{}\n", key.public), 0o644),
        ]
    });
    let config = Config {
        passwd: Some(Passwd { users: Some(vec![user]), ..Passwd::default() }),
        storage: files.map(|files| Storage { files: Some(files), ..Storage::default() }),
        systemd: Some(Systemd { units: Some(vec![print, updates]) }),
        ..Config::default()
    };
    serde_json::to_string(&config).map_err(|error| UserDataError::Broken(error.to_string()))
}

fn file(path: &str, content: &str, mode: i64) -> File {
    let mut file = File::new(path.to_owned());
    file.mode = Some(mode);
    file.overwrite = Some(true);
    let source = format!("data:;base64,{}", BASE64_STANDARD.encode(content));
    file.contents = Some(Resource { source: Some(source), ..Resource::default() });
    file
}
