//! Logs: all of one, all of them together, the way to what went wrong, and out of the screen with it.

use bartizan::model::event::Level;
use bartizan::ui::logs::{ALL, Mode};
use bartizan::ui::{Effect, Input};

use super::Cockpit;
use super::fixture::{self, Builder};

/// A log of which the view holds the end only, with one line far before it.
fn needle_in(lines: usize) -> Builder {
    let mut run = fixture::install_running();
    for place in 0..lines {
        let text = if place == 77 { "here is the needle".to_owned() } else { format!("hay {place}") };
        run.log("journal:bootstrap", "kubelet", Level::Info, &text);
    }
    run
}

#[test]
fn a_search_finds_what_is_far_outside_the_view() {
    let mut cockpit = Cockpit::new(needle_in(20_000), 110, 24);
    cockpit.keys("3");
    assert!(cockpit.screen.log.first() > 10_000, "the whole log was read at once");
    cockpit.keys("/");
    cockpit.typed("needle");
    cockpit.keys("enter");
    cockpit.shows("here is the needle");
    cockpit.shows("hay 76");
    cockpit.shows("/needle 1/1");
    assert_eq!(cockpit.screen.log.seen(), None, "all of it has been looked through");
    // What comes later is found too.
    cockpit.run.log("journal:bootstrap", "kubelet", Level::Info, "a second needle");
    cockpit.tell(Input::Tick(cockpit.now));
    cockpit.shows("/needle 1/2");
    cockpit.keys("n");
    cockpit.shows("a second needle");
    cockpit.keys("esc");
    cockpit.shows("following");
    cockpit.keys("/");
    cockpit.typed("pitchfork");
    cockpit.keys("enter");
    cockpit.shows("is not in the 20,");
}

#[test]
fn a_filter_reaches_all_of_the_log_and_escape_goes_back_to_the_line() {
    let mut cockpit = Cockpit::new(needle_in(20_000), 110, 24);
    cockpit.keys("3 k k k k k");
    let before = cockpit.screen.log.mode;
    let line = cockpit.screen.log.current().unwrap().1.text.clone();
    cockpit.keys("f");
    cockpit.typed("needle");
    cockpit.keys("enter");
    cockpit.shows("here is the needle");
    cockpit.shows("(1 shown)");
    cockpit.keys("esc");
    assert_eq!((cockpit.screen.log.mode, &cockpit.screen.log.current().unwrap().1.text), (before, &line));
    // From a filtered line to its neighbours, far from where the view was.
    cockpit.keys("f");
    cockpit.typed("needle");
    cockpit.keys("enter home c");
    cockpit.shows("hay 78");
    assert!(cockpit.screen.log.filter.is_none());
    // A search looks at what the filter lets through.
    cockpit.keys("end f");
    cockpit.typed("hay !9 !8");
    cockpit.keys("enter /");
    cockpit.typed("hay 77");
    cockpit.keys("enter");
    cockpit.shows("hay 777");
    cockpit.hides("/hay 77 0/");
}

/// Two logs whose lines alternate in time, recorded one after the other.
fn two_logs() -> Builder {
    let mut run = Builder::new();
    run.until("08-install").start("08-install/bootstrap");
    let begun = run.now();
    for place in 0..5 {
        run.wait(10).log("installer", "installer", Level::Info, &format!("installer says {place}"));
    }
    run.go_back_to(begun).wait(5);
    for place in 0..5 {
        let level = if place == 2 { Level::Error } else { Level::Info };
        run.log("journal:bootstrap", "kubelet", level, &format!("kubelet says {place}")).wait(10);
    }
    run
}

#[test]
fn all_logs_together_stand_in_the_order_of_their_time() {
    let mut cockpit = Cockpit::new(two_logs(), 110, 24);
    cockpit.keys("3 M");
    cockpit.shows("all logs by time");
    let text = cockpit.text();
    let said: Vec<&str> = text.lines().filter(|line| line.contains(" says ")).collect();
    assert_eq!(said.len(), 10, "{text}");
    for (place, line) in said.iter().enumerate() {
        let who = if place % 2 == 0 { "kubelet says" } else { "installer says" };
        assert!(line.contains(&format!("{who} {}", place / 2)), "{place}: {line}");
        assert!(line.contains(if place % 2 == 0 { "bootstrap  " } else { "installer  " }), "{line}");
    }
    // What comes later comes last, whatever its time.
    cockpit.run.log("journal:bootstrap", "kubelet", Level::Info, "kubelet says more");
    cockpit.tell(Input::Tick(cockpit.now));
    assert_eq!(cockpit.screen.log.current().unwrap().1.text, "kubelet says more");
    // From here into the log that a line is of.
    cockpit.keys("k k c");
    assert_eq!(cockpit.screen.log.source(), "journal:bootstrap");
    assert_eq!(cockpit.screen.log.current().unwrap().1.text, "kubelet says 4");
    // Back to all: a filter works there as well.
    cockpit.keys("M f");
    cockpit.typed("says.3");
    cockpit.keys("enter");
    cockpit.shows("(2 shown)");
    assert_eq!(cockpit.screen.log.source(), ALL);
}

#[test]
fn the_next_error_and_warning_are_found_in_whichever_log_they_are() {
    let mut run = two_logs();
    run.log("installer", "installer", Level::Warn, "installer warns");
    let mut cockpit = Cockpit::new(run, 110, 24);
    // Wherever the operator is: the log is shown at the line.
    cockpit.keys("1 E");
    assert_eq!(cockpit.screen.log.source(), "journal:bootstrap");
    assert_eq!(cockpit.screen.log.current().unwrap().1.text, "kubelet says 2");
    cockpit.keys("x");
    assert_eq!(cockpit.screen.log.source(), "installer");
    assert_eq!(cockpit.screen.log.current().unwrap().1.text, "installer warns");
    cockpit.keys("x");
    cockpit.shows("no warning after this line, in any log");
    cockpit.keys("X");
    assert_eq!(cockpit.screen.log.current().unwrap().1.text, "kubelet says 2");
    cockpit.keys("M end E");
    assert_eq!(cockpit.screen.log.source(), ALL);
    assert_eq!(cockpit.screen.log.current().unwrap().1.text, "kubelet says 2");
}

#[test]
fn lines_are_marked_and_copied_and_a_whole_log_is_saved() {
    let directory = tempfile::tempdir().unwrap();
    let mut cockpit = Cockpit::new(needle_in(9_000), 110, 24);
    cockpit.screen.saves = directory.path().to_owned();
    cockpit.keys("3 k v k k");
    cockpit.shows("3 marked");
    let copied = cockpit.keys("y");
    let [Effect::Copy(text)] = &copied[..] else { panic!("{copied:?}") };
    assert_eq!(text.lines().count(), 3);
    assert!(text.ends_with("kubelet: hay 8998"), "{text}");
    cockpit.hides("marked");
    // All of it, far more than the view holds; and only what the filter lets through.
    cockpit.keys("S");
    cockpit.shows("lines written to");
    let saved = |contains: &str| {
        let files = std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path());
        let texts = files.map(|path| std::fs::read_to_string(path).unwrap());
        texts.filter(|text| text.contains(contains)).map(|text| text.lines().count()).max()
    };
    assert!(saved("here is the needle").unwrap() >= 9_000);
    // Another pane is saved as text, by whoever can write files.
    assert!(
        matches!(&cockpit.keys("4 S")[..], [Effect::Save { name, text }] if name == "bootkube" && text.contains("wait-for-etcd"))
    );
}

#[test]
fn a_line_of_ninety_thousand_characters_is_cut_and_says_so() {
    let mut run = fixture::install_running();
    run.log("journal:bootstrap", "crio", Level::Error, &"漢x".repeat(45_000));
    let mut cockpit = Cockpit::new(run, 80, 24);
    cockpit.keys("3 k j w");
    cockpit.shows("漢x漢x");
    let line = &cockpit.screen.log.current().unwrap().1.text;
    assert!(line.len() < 17_000 && line.ends_with("KiB more in the record"), "{}", line.len());
    cockpit.keys("w l l l");
    cockpit.shows("column 48");
    assert!(matches!(cockpit.screen.log.mode, Mode::Paused { .. }));
}
