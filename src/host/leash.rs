//! Keeps a command from outliving whoever asked for it.
//!
//! sshd tells a command without a terminal nothing when its channel closes: a silent `journalctl -f` would stay for
//! ever. So the command runs beside a small watcher that holds our end of standard input; when that closes (the stream
//! was dropped, we died, the connection is gone) the watcher ends the process group, which sshd made for us.

use super::{Cmd, Stdin};

/// `"$@"` with the watcher beside it. Ends with the status of the command.
const SCRIPT: &str = r#"exec 3<&0
"$@" </dev/null 3<&- &
child=$!
( read -r _; trap "" TERM; kill -TERM 0; sleep 5; kill -KILL 0 ) <&3 >/dev/null 2>&1 &
watch=$!
wait "$child"
status=$?
kill "$watch" 2>/dev/null
exit "$status""#;

/// The command as it is really run, and whether its standard input must be held open until it ends.
///
/// A command with content for its standard input needs the end of file itself and goes without.
/// The leash is inside `sudo`, where it has the right to signal what it watches.
pub(super) fn leashed(cmd: &Cmd) -> (Cmd, bool) {
    match cmd.stdin {
        Stdin::Bytes(_) | Stdin::Secret(_) => (cmd.clone(), false),
        Stdin::Empty => {
            let args = ["-c", SCRIPT, "sh", cmd.program.as_str()].into_iter().map(str::to_owned);
            let args = args.chain(cmd.args.iter().cloned()).collect();
            (Cmd { program: "sh".to_owned(), args, ..cmd.clone() }, true)
        }
    }
}

impl Stdin {
    /// What goes in, if anything.
    pub(super) fn content(&self) -> Option<&[u8]> {
        match self {
            Stdin::Empty => None,
            Stdin::Bytes(bytes) => Some(bytes),
            Stdin::Secret(secret) => Some(secret.reveal().as_bytes()),
        }
    }
}
