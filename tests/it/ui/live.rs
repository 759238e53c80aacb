//! The real loop in a real pseudo-terminal: what it shows, and that the terminal comes back whatever happens.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bartizan::model::event::{Data, Level};
use bartizan::record::Recorded;
use bartizan::ui::UiOptions;
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use tokio::sync::mpsc;

use super::fixture;

/// What the child does, by this variable.
const SCENE: &str = "BARTIZAN_TEST_SCENE";

/// Not a test: the process in the pseudo-terminal.
#[test]
#[ignore = "run by the other tests of this file, in a pseudo-terminal"]
fn child() {
    let Ok(scene) = std::env::var(SCENE) else { return };
    let mut run = fixture::install_running();
    let mut options = UiOptions::from_env();
    options.screenshots = std::env::var_os("BARTIZAN_TEST_DIR").map(Into::into).unwrap_or_default();
    let past = std::mem::take(&mut run.events);
    if scene == "replay" {
        options.replay = Some(past);
    } else {
        options.past = past;
    }
    let (events, incoming) = mpsc::channel::<Recorded>(16);
    let (commands, mut asked) = mpsc::channel(16);
    let model = run.model.clone();
    run.add(Data::Note { level: Level::Info, text: "news from the run".into() });
    let news = run.events.clone();
    let exit = tokio::runtime::Runtime::new().unwrap().block_on(async move {
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            for event in news {
                events.send(event).await.unwrap();
            }
            std::future::pending::<()>().await;
        });
        if scene == "panic" {
            let cockpit = bartizan::ui::run(options, model, incoming, commands, Box::new(run.shelf));
            let exit = tokio::time::timeout(Duration::from_secs(2), cockpit).await;
            return format!("{:?}", exit.expect("this panic is the scene"));
        }
        let exit = bartizan::ui::run(options, model, incoming, commands, Box::new(run.shelf)).await.unwrap();
        format!("exit {exit:?} asked {:?}", asked.try_recv().ok())
    });
    println!("\n{exit}");
    // The blocked reader of a test harness is nobody's concern.
    std::process::exit(0);
}

fn cells(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).unwrap()
}

pub struct Live {
    screen: Arc<Mutex<vt100::Parser>>,
    raw: Arc<Mutex<Vec<u8>>>,
    keys: Box<dyn Write + Send>,
    pub child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ended = self.child.kill();
    }
}

impl Live {
    fn open(scene: &str, vars: &[(&str, &str)]) -> Self {
        let mut command = CommandBuilder::new(std::env::current_exe().unwrap());
        command.args(["--exact", "ui::live::child", "--ignored", "--nocapture"]);
        command.env(SCENE, scene);
        Self::start(command, vars)
    }

    /// A command in a terminal of 110 columns and 30 rows.
    pub fn start(mut command: CommandBuilder, vars: &[(&str, &str)]) -> Self {
        let size = PtySize { rows: 30, cols: 110, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        for (name, value) in
            [("RUST_BACKTRACE", "0"), ("TERM", "xterm-256color"), ("LC_ALL", "C.UTF-8")].iter().chain(vars)
        {
            command.env(name, value);
        }
        for name in ["NO_COLOR", "COLORTERM", "SSH_TTY", "TMUX", "COLORFGBG"] {
            if !vars.iter().any(|(known, _)| *known == name) {
                command.env_remove(name);
            }
        }
        let child = pair.slave.spawn_command(command).unwrap();
        let mut reader = pair.master.try_clone_reader().unwrap();
        let keys = pair.master.take_writer().unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(cells(30), cells(110), 200)));
        let raw = Arc::new(Mutex::new(Vec::new()));
        let (shown, kept) = (screen.clone(), raw.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = reader.read(&mut bytes) {
                if count == 0 {
                    break;
                }
                shown.lock().unwrap().process(&bytes[..count]);
                kept.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Live { screen, raw, keys, child, master: pair.master }
    }

    pub fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Everything that was ever sent to the terminal.
    pub fn raw(&self) -> Vec<u8> {
        self.raw.lock().unwrap().clone()
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        self.screen.lock().unwrap().screen_mut().set_size(cells(rows), cells(columns));
        self.master.resize(PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 }).unwrap();
    }

    pub fn is_taken(&self) -> bool {
        self.screen.lock().unwrap().screen().alternate_screen()
    }

    /// Rows in which a cell is drawn in reverse: where the choice is.
    pub fn reversed_rows(&self) -> usize {
        let parser = self.screen.lock().unwrap();
        let screen = parser.screen();
        let (rows, columns) = (screen.size().0.get(), screen.size().1.get());
        let reversed = |row| (0..columns).any(|column| screen.cell(row, column).is_some_and(|cell| cell.inverse()));
        (0..rows).filter(|row| reversed(*row)).count()
    }

    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_raw(i32::try_from(self.child.process_id().unwrap()).unwrap()).unwrap()
    }

    /// Waits until `what` holds of it.
    #[track_caller]
    pub fn wait_until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what} did not come to be in\n{}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        self.wait_long_for(text, Duration::from_secs(20));
    }

    #[track_caller]
    pub fn wait_long_for(&self, text: &str, limit: Duration) {
        let begun = Instant::now();
        while !self.text().contains(text) {
            assert!(begun.elapsed() < limit, "no {text:?} in\n{}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn type_keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    #[track_caller]
    pub fn is_given_back(&self) {
        let parser = self.screen.lock().unwrap();
        let screen = parser.screen();
        assert!(
            !screen.alternate_screen() && !screen.hide_cursor() && !screen.bracketed_paste(),
            "{}",
            screen.contents()
        );
    }
}

#[test]
fn the_loop_shows_news_takes_keys_and_leaves_the_terminal_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let mut live = Live::open("plain", &[("BARTIZAN_TEST_DIR", directory.path().to_str().unwrap())]);
    live.wait_for("▶ 08 install");
    live.type_keys("7");
    live.wait_for("news from the run");
    live.type_keys("3");
    live.wait_for("SyncLoop ADD");
    live.resize(80, 24);
    live.wait_for("…09 …10");
    live.type_keys("s");
    live.wait_for("written to");
    let files = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(files, 3, "text, styles and a picture");
    live.type_keys("q");
    live.wait_for("Leave this screen?");
    std::thread::sleep(Duration::from_millis(500));
    live.type_keys("y");
    live.wait_for("exit Detached asked Some(Detach)");
    live.is_given_back();
}

#[test]
fn a_signal_gives_the_terminal_back_and_detaches() {
    let live = Live::open("plain", &[]);
    live.wait_for("▶ 08 install");
    rustix::process::kill_process(live.pid(), rustix::process::Signal::TERM).unwrap();
    live.wait_for("exit Signal(15) asked Some(Detach)");
    live.is_given_back();
}

#[test]
fn a_panic_gives_the_terminal_back_before_it_speaks() {
    let live = Live::open("panic", &[]);
    live.wait_for("this panic is the scene");
    live.is_given_back();
}

#[test]
fn a_replay_plays_in_the_same_screen() {
    let mut live = Live::open("replay", &[]);
    live.wait_for("replay");
    live.wait_for("play 1×");
    live.type_keys("++++++");
    live.wait_for("64×");
    live.type_keys("\u{1b}[F");
    live.wait_for("end 64×");
    live.wait_for("▶ 08 install");
    live.type_keys("q");
    live.wait_for("exit Closed asked None");
    live.is_given_back();
}

#[test]
fn no_color_sends_no_colour() {
    let mut live = Live::open("plain", &[("NO_COLOR", "1")]);
    live.wait_for("▶ 08 install");
    live.type_keys("5?");
    live.wait_for("Help");
    let raw = String::from_utf8_lossy(&live.raw.lock().unwrap()).into_owned();
    for sgr in raw.split("\u{1b}[").filter_map(|part| part.split_once('m').map(|(sgr, _)| sgr)) {
        if sgr.chars().all(|c| c.is_ascii_digit() || c == ';') {
            let coloured =
                sgr.split(';').any(|code| matches!(code.parse(), Ok(30..=38 | 40..=48 | 90..=97 | 100..=107)));
            assert!(!coloured, "{sgr}");
        }
    }
}
