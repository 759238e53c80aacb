//! moto, the stand-in for AWS, as a process of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Moto {
    url: String,
    server: Child,
    _dir: tempfile::TempDir,
}

/// Where `tests/run` has put it, else whatever is on the path.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("BARTIZAN_MOTO_SERVER") {
        return named.into();
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    let kept = cache.map(|cache| cache.join("bartizan-moto-5.2.5/bin/moto_server")).filter(|file| file.exists());
    kept.unwrap_or_else(|| "moto_server".into())
}

impl Moto {
    /// Without images of its own, whose list takes seconds to load for each account.
    pub async fn start() -> Self {
        Self::with_images("[]").await
    }

    /// `images`: a JSON list, as moto's `ec2/resources/amis.json`.
    pub async fn with_images(images: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("amis.json");
        std::fs::write(&file, images).expect("images");
        let port = crate::ports::free_port();
        let server = Command::new(program())
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .env("MOTO_AMIS_PATH", &file)
            .env("MOTO_ENABLE_KEYPAIR_VALIDATION", "true")
            .env("MOTO_IAM_LOAD_MANAGED_POLICIES", "false")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("moto_server: tests/run installs it, or pip install 'moto[server]==5.2.5'");
        let mut moto = Self { url: format!("http://127.0.0.1:{port}"), server, _dir: dir };
        // Its imports take long where many tests begin at once.
        let deadline = Instant::now() + Duration::from_secs(180);
        while super::census::client().get(format!("{}/moto-api/", moto.url)).send().await.is_err() {
            let ended = moto.server.try_wait().expect("its state");
            assert!(ended.is_none(), "moto has ended: {ended:?}");
            assert!(Instant::now() < deadline, "moto does not answer");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        moto
    }

    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.server.kill();
        let _reaped = self.server.wait();
    }
}
