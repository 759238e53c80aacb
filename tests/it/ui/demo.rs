//! The program itself in a pseudo-terminal: an installation in the lab, watched to its end and left.

use std::time::Duration;

use portable_pty::CommandBuilder;

use super::live::Live;

fn demo(state: &std::path::Path, scenario: &str, speed: &str) -> Live {
    let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_bartizan"));
    command.args(["--state", state.to_str().unwrap(), "demo", "--scenario", scenario]);
    command.args(["--speed", speed, "--payload-mb", "40"]);
    Live::start(command, &[])
}

#[test]
fn an_installation_is_seen_to_its_end_and_q_leaves_with_its_exit_code() {
    let state = tempfile::tempdir().unwrap();
    let mut live = demo(state.path(), "happy", "60");
    live.wait_long_for("▶ 01 infrastructure", Duration::from_secs(30));
    live.wait_long_for("✔ done", Duration::from_secs(180));
    // A frame does not come in one piece.
    live.wait_until("every stage done", |live| {
        let text = live.text();
        (1..=10).all(|stage| text.contains(&format!("✔ {stage:02} ")))
    });
    // The end stays on the screen until somebody has seen it.
    std::thread::sleep(Duration::from_secs(2));
    assert!(live.text().contains("✔ done"));
    live.type_keys("q");
    assert_eq!(live.child.wait().unwrap().exit_code(), 0);
    live.wait_long_for("every stage is done", Duration::from_secs(5));
    live.is_given_back();
}

#[test]
fn two_interrupts_detach_and_say_how_to_come_back() {
    let state = tempfile::tempdir().unwrap();
    let mut live = demo(state.path(), "happy", "20");
    live.wait_long_for("▶ 06 image-sync", Duration::from_secs(60));
    live.type_keys("\u{3}");
    live.wait_long_for("Ctrl-C once more", Duration::from_secs(5));
    live.type_keys("\u{3}");
    assert_eq!(live.child.wait().unwrap().exit_code(), 8);
    live.wait_long_for("run --resume", Duration::from_secs(5));
    live.is_given_back();
}
