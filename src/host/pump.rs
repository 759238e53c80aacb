//! Moving bytes between a running command and whoever asked for it. Same for every kind of host.

use futures::stream::{self, BoxStream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{HostError, Output, Stdin, StreamItem};

/// A longer line of a stream is given in pieces of exactly this size.
const LONGEST_LINE: usize = 1 << 20;
/// More output than this from one command is a mistake, and would fill the memory.
const LARGEST_OUTPUT: u64 = 256 << 20;

type Item = Result<StreamItem, HostError>;

/// Items that a task makes. The task ends when the stream is dropped.
pub(super) fn from_task<T, F, W>(make: F) -> BoxStream<'static, T>
where
    T: Send + 'static,
    F: FnOnce(mpsc::Sender<T>) -> W,
    W: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(256);
    let task = AbortOnDropHandle::new(tokio::spawn(make(sender)));
    stream::unfold((receiver, task), |(mut receiver, task)| async {
        receiver.recv().await.map(|item| (item, (receiver, task)))
    })
    .boxed()
}

/// The lines of a running command, then its end. `held` is kept until then.
pub(super) fn lines<O, E, W, K>(stdout: O, stderr: E, wait: W, held: K) -> BoxStream<'static, Item>
where
    O: AsyncRead + Send + Unpin + 'static,
    E: AsyncRead + Send + Unpin + 'static,
    W: Future<Output = Result<i32, HostError>> + Send + 'static,
    K: Send + 'static,
{
    from_task(move |sender| async move {
        let (out, err) = tokio::join!(split(stdout, &sender, StreamItem::Out), split(stderr, &sender, StreamItem::Err));
        let ended = wait.await;
        drop(held);
        // A line that the connection cut in half is not a line.
        let rest = if ended.is_ok() { [out.map(StreamItem::Out), err.map(StreamItem::Err)] } else { [None, None] };
        let last = rest.into_iter().flatten().map(Ok).chain([ended.map(StreamItem::Exit)]);
        for item in last {
            if sender.send(item).await.is_err() {
                return;
            }
        }
    })
}

/// Send the lines of `reader`; what has no newline after it is returned.
async fn split<R: AsyncRead + Unpin>(
    mut reader: R,
    sender: &mpsc::Sender<Item>,
    wrap: fn(Vec<u8>) -> StreamItem,
) -> Option<Vec<u8>> {
    let mut buffer = Vec::new();
    loop {
        // An error here is the end of the pipe; how the command ended says why.
        if !matches!(reader.read_buf(&mut buffer).await, Ok(read) if read > 0) {
            break;
        }
        let mut rest = buffer.as_slice();
        let mut items = Vec::new();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            items.push(line.to_vec());
            rest = after.get(1..).unwrap_or_default();
        }
        while let Some((piece, after)) = rest.split_at_checked(LONGEST_LINE) {
            items.push(piece.to_vec());
            rest = after;
        }
        buffer = rest.to_vec();
        for item in items {
            if sender.send(Ok(wrap(item))).await.is_err() {
                return None;
            }
        }
    }
    (!buffer.is_empty()).then_some(buffer)
}

/// Feed a command and gather what it says. Standard input closes after its content, or at the end when there is none.
pub(super) async fn collect<I, O, E, W>(
    host: &str,
    content: &Stdin,
    stdin: Option<I>,
    (stdout, stderr): (O, E),
    wait: W,
) -> Result<Output, HostError>
where
    I: AsyncWrite + Unpin,
    O: AsyncRead + Unpin,
    E: AsyncRead + Unpin,
    W: Future<Output = Result<i32, HostError>>,
{
    let mut held = None;
    let feed = async {
        match (stdin, content.content()) {
            // A command may end without reading all; its status tells.
            (Some(mut stdin), Some(content)) => {
                let _broken_pipe = stdin.write_all(content).await;
                let _broken_pipe = stdin.shutdown().await;
            }
            (stdin, _) => held = stdin,
        }
    };
    let ((), stdout, stderr) = tokio::join!(feed, gather(stdout), gather(stderr));
    let status = wait.await?;
    drop(held);
    match (stdout, stderr) {
        (Some(stdout), Some(stderr)) => Ok(Output { status, stdout, stderr }),
        _ => Err(HostError::Other {
            host: host.to_owned(),
            what: "reading the output of a command".to_owned(),
            why: format!("more than {LARGEST_OUTPUT} bytes"),
        }),
    }
}

/// All of it, or `None` when it is too much.
async fn gather<R: AsyncRead + Unpin>(reader: R) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut reader = reader.take(LARGEST_OUTPUT + 1);
    // An error here is the end of the pipe; how the command ended says why.
    let _cut = reader.read_to_end(&mut bytes).await;
    (bytes.len() as u64 <= LARGEST_OUTPUT).then_some(bytes)
}

/// What another machine said, fit for one line of an error or event: no control characters, no secrets, not endless.
pub(super) fn clean(text: &str) -> String {
    const LONGEST: usize = 400;
    let text: Vec<String> = text
        .lines()
        .map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>().trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    let text = crate::spec::secret::redact(&text.join("; "));
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// Give a streamed command its standard input, or keep it open, until the result is dropped.
pub(super) fn feed<I>(content: &Stdin, mut stdin: I) -> AbortOnDropHandle<()>
where
    I: AsyncWrite + Send + Unpin + 'static,
{
    let content = content.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        match content.content() {
            Some(content) => {
                let _broken_pipe = stdin.write_all(content).await;
                let _broken_pipe = stdin.shutdown().await;
            }
            None => std::future::pending().await,
        }
    }))
}
