//! A growing file on a host, followed by byte offset.
//!
//! Each question to the host waits there until there is something new, and is answered with exactly what is behind the
//! offset. An answer that the connection cut short counts for nothing and is asked for again, so nothing is lost and
//! nothing comes twice. `tail -F` cannot do that: it knows neither where it was nor that a job has ended.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Cmd, Host, HostError, files, pump};

/// Most bytes in one answer; also the longest line, longer ones come in pieces.
const CHUNK: usize = 1 << 20;
/// Bytes before the offset that are read again, to see that the file is still the same.
const OVERLAP: usize = 64;
/// How often the host looks in one question, 0.15 s apart.
const LOOKS: u32 = 60;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TailItem {
    /// A whole line without its newline, as it was written (it may hold control sequences).
    Line {
        text: String,
        /// Where to go on from after this line.
        offset_after: u64,
    },
    /// The file became shorter or is another one; it is read again from its beginning.
    Gap { why: String },
    /// The connection was lost and is back. Nothing is missing.
    Reattached,
}

/// The file, and whether root must read it.
#[derive(Debug, Clone)]
pub struct Source {
    pub path: String,
    pub sudo: bool,
}

impl From<&str> for Source {
    fn from(path: &str) -> Self {
        Self { path: path.to_owned(), sudo: false }
    }
}

impl From<String> for Source {
    fn from(path: String) -> Self {
        Self { path, sudo: false }
    }
}

/// When to stop. Then everything that is in the file is read, a last line without a newline too, and the stream ends.
#[derive(Debug, Clone)]
pub enum Until {
    /// The stream is dropped.
    Dropped,
    Told(CancellationToken),
    /// The job in that directory (see [`super::job`]) has ended or is lost.
    JobEnds {
        place: String,
    },
}

/// `$1` path, `$2` offset, `$3` where to read from, `$4` most bytes, `$5` looks, `$6` place of the job or nothing.
/// Whether the job has ended is looked at before the size, so that the last size of an ended job is its final one.
const LOOK: &str = r#"looks=0
while :; do
  ended=0
  if [ -n "$6" ]; then
    if [ -e "$6/status" ]; then ended=1
    elif [ -s "$6/pid" ] && ! kill -0 "$(cat "$6/pid")" 2>/dev/null; then ended=1; fi
  fi
  size=0
  if [ -e "$1" ]; then
    if [ ! -r "$1" ]; then echo "may not read $1" >&2; exit 1; fi
    size=$(wc -c <"$1") || exit 1
    size=$((size))
    if [ "$size" -ne "$2" ]; then break; fi
  fi
  if [ "$ended" = 1 ] || [ "$looks" -ge "$5" ]; then break; fi
  looks=$((looks + 1))
  sleep 0.15
done
if [ -e "$1" ]; then echo "$size $ended"; else echo "absent $ended"; fi
if [ "$size" -gt "$2" ]; then tail -c "+$(($3 + 1))" "$1" | head -c "$4"; fi"#;

/// The lines of `source` behind the byte `offset`, as they come. The file need not be there yet. A lost connection is
/// waited for without end.
pub fn follow(
    host: Arc<dyn Host>,
    source: impl Into<Source>,
    offset: u64,
    until: Until,
) -> BoxStream<'static, TailItem> {
    let tail = Tail { host, source: source.into(), until, at: offset, partial: Vec::new(), overlap: Vec::new() };
    pump::from_task(move |sender| async move {
        // The receiver is gone or all is told: either way it is over.
        let _over = tail.run(&sender).await;
    })
}

struct Tail {
    host: Arc<dyn Host>,
    source: Source,
    until: Until,
    /// Bytes of the file that were read.
    at: u64,
    /// Those of them that are no whole line yet.
    partial: Vec<u8>,
    /// The last of them.
    overlap: Vec<u8>,
}

/// What the host answered.
enum Look {
    Nothing { ended: bool },
    More { bytes: Vec<u8> },
    Other { why: &'static str },
}

/// Nobody listens any more.
struct Unheard;

impl Tail {
    async fn run(mut self, sender: &mpsc::Sender<TailItem>) -> Result<(), Unheard> {
        let told = match &self.until {
            Until::Told(token) => token.clone(),
            Until::Dropped | Until::JobEnds { .. } => CancellationToken::new(),
        };
        let mut lost = false;
        let mut failures = 0u32;
        loop {
            let last = told.is_cancelled();
            let looked = tokio::select! {
                looked = self.look(if last { 0 } else { LOOKS }) => looked,
                () = told.cancelled(), if !last => continue,
            };
            if let Err(why) = &looked {
                lost |= why.is_link();
                failures = failures.saturating_add(1);
                if failures == 1 {
                    tracing::warn!(path = self.source.path, %why, "cannot read the log now");
                }
                // Connecting has pauses of its own; this one is for all other errors.
                sleep(Duration::from_millis(500).saturating_mul(failures.min(10))).await;
                continue;
            }
            failures = 0;
            if std::mem::take(&mut lost) {
                send(sender, TailItem::Reattached).await?;
            }
            match looked {
                Ok(Look::More { bytes }) => self.take(&bytes, sender).await?,
                Ok(Look::Other { why }) => {
                    (self.at, self.partial, self.overlap) = (0, Vec::new(), Vec::new());
                    send(sender, TailItem::Gap { why: why.to_owned() }).await?;
                }
                Ok(Look::Nothing { ended }) if ended || last => return self.finish(sender).await,
                Ok(Look::Nothing { .. }) | Err(_) => {}
            }
        }
    }

    async fn look(&self, looks: u32) -> Result<Look, HostError> {
        let from = self.at.saturating_sub(self.overlap.len() as u64);
        let place = match &self.until {
            Until::JobEnds { place } => place.as_str(),
            Until::Dropped | Until::Told(_) => "",
        };
        let cmd =
            Cmd::sh(LOOK).arg(&self.source.path).args([self.at, from, (CHUNK + OVERLAP) as u64].map(|n| n.to_string()));
        let cmd = cmd.arg(looks.to_string()).arg(place).timeout(Some(Duration::from_secs(60)));
        let output = self.host.exec(&Cmd { sudo: self.source.sudo, ..cmd }).await?;
        if !output.ok() {
            return Err(files::failed(&*self.host, format!("reading {}", self.source.path), &output));
        }
        let end = output.stdout.iter().position(|byte| *byte == b'\n').unwrap_or(output.stdout.len());
        let (head, bytes) = output.stdout.split_at(end);
        let bytes = bytes.get(1..).unwrap_or_default();
        let head = String::from_utf8_lossy(head);
        let Some((size, ended)) = head.split_once(' ') else {
            return Err(HostError::Other {
                host: self.host.name().to_owned(),
                what: format!("reading {}", self.source.path),
                why: format!("odd answer {:?}", pump::clean(&head)),
            });
        };
        let ended = ended == "1";
        Ok(match size.parse::<u64>() {
            // Not there yet, or moved away to make room for a new one: which, the new one will show.
            Err(_) => Look::Nothing { ended },
            Ok(size) if size < self.at => Look::Other { why: "the file became shorter" },
            Ok(size) if size == self.at => Look::Nothing { ended },
            Ok(_) => match bytes.strip_prefix(self.overlap.as_slice()) {
                // It shrank while it was read; the next look shows.
                Some([]) => Look::Nothing { ended: false },
                Some(new) => Look::More { bytes: new.to_vec() },
                None => Look::Other { why: "the file was replaced by another" },
            },
        })
    }

    /// Note what was read and tell its whole lines.
    async fn take(&mut self, bytes: &[u8], sender: &mpsc::Sender<TailItem>) -> Result<(), Unheard> {
        self.at += bytes.len() as u64;
        self.overlap.extend_from_slice(bytes);
        self.overlap.drain(..self.overlap.len().saturating_sub(OVERLAP));
        let mut offset_after = self.at - (self.partial.len() + bytes.len()) as u64;
        self.partial.extend_from_slice(bytes);
        let all = std::mem::take(&mut self.partial);
        let mut pieces = all.split_inclusive(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_none() && !piece.ends_with(b"\n") && piece.len() < CHUNK {
                self.partial = piece.to_vec();
                break;
            }
            offset_after += piece.len() as u64;
            send(sender, line(piece, offset_after)).await?;
        }
        Ok(())
    }

    async fn finish(self, sender: &mpsc::Sender<TailItem>) -> Result<(), Unheard> {
        if self.partial.is_empty() { Ok(()) } else { send(sender, line(&self.partial, self.at)).await }
    }
}

fn line(bytes: &[u8], offset_after: u64) -> TailItem {
    let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    TailItem::Line { text: String::from_utf8_lossy(text).into_owned(), offset_after }
}

async fn send(sender: &mpsc::Sender<TailItem>, item: TailItem) -> Result<(), Unheard> {
    sender.send(item).await.map_err(|_| Unheard)
}
