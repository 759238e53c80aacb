//! Programs that the lab puts on its machines: `oc`, `podman`, `openshift-install` and the like are Rust values, not files to run.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::Machine;

/// One program. A machine runs it when the file that a command names holds [`marker`], or is an ELF file of that name.
#[async_trait]
pub trait Tool: Send + Sync {
    fn name(&self) -> &'static str;
    /// Whether it is there from the start, as `/usr/local/bin/NAME`. Elsewhere it runs once its file has been brought.
    fn on(&self, _host: &str) -> bool {
        true
    }
    /// The exit status. A cancelled tool has three seconds to end by itself.
    async fn run(&self, cx: ToolCx) -> i32;
}

/// What a tool gets: its arguments (without its own name), its streams, and the machine it runs on.
pub struct ToolCx {
    pub machine: Arc<Machine>,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: String,
    pub user: String,
    pub stdin: Box<dyn AsyncRead + Send + Unpin>,
    pub stdout: Box<dyn AsyncWrite + Send + Unpin>,
    pub stderr: Box<dyn AsyncWrite + Send + Unpin>,
    /// Set when the process gets a signal that would end it.
    pub cancel: CancellationToken,
}

/// What the file of a lab program holds. An archive with such a file "installs" the tool of that name.
pub fn marker(name: &str) -> String {
    format!("#!bartizan-tool {name}\n")
}
