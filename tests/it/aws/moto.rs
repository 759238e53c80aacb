//! moto, the stand-in for AWS, as a process of its own.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Moto {
    url: String,
    server: Child,
    _dir: tempfile::TempDir,
}

impl Moto {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        // Its own list of images takes seconds to load for each account.
        let images = dir.path().join("amis.json");
        std::fs::write(&images, "[]").expect("images");
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port")
            .port();
        let server = Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .env("MOTO_AMIS_PATH", &images)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("moto_server: pip install 'moto[server]'");
        let url = format!("http://127.0.0.1:{port}");
        let deadline = Instant::now() + Duration::from_secs(60);
        while super::census::client().get(format!("{url}/moto-api/")).send().await.is_err() {
            assert!(Instant::now() < deadline, "moto does not answer");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Self { url, server, _dir: dir }
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
