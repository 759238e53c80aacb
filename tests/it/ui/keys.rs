//! What keys do: the log, the questions, the palette, help, time.

use bartizan::engine::command::Command;
use bartizan::model::event::{Data, ImageState, Level, PlannedImage, RunOutcome, SyncEvent};
use bartizan::model::plan::{StageId, StepId};
use bartizan::model::run::RunModel;
use bartizan::ui::command::{Context, TABLE, Verb};
use bartizan::ui::history::{History, Seek};
use bartizan::ui::layout::PaneId;
use bartizan::ui::logs::Mode;
use bartizan::ui::{Access, Effect, Input};
use jiff::SignedDuration;

use super::Cockpit;
use super::fixture::{self, Builder};

fn long_log(lines: usize) -> Builder {
    let mut run = fixture::install_running();
    for place in 0..lines {
        let level = if place % 100 == 50 { Level::Error } else { Level::Info };
        run.log("journal:bootstrap", "kubelet", level, &format!("line {place} of the log"));
    }
    run
}

#[test]
fn the_log_follows_pauses_counts_what_is_new_and_follows_again() {
    let mut cockpit = Cockpit::new(long_log(500), 80, 24);
    cockpit.keys("3");
    cockpit.shows("following");
    cockpit.shows("line 499 of the log");
    cockpit.keys("k k k");
    cockpit.shows("paused");
    let before = cockpit.text();
    for place in 0..142 {
        cockpit.run.log("journal:bootstrap", "kubelet", Level::Info, &format!("later {place}"));
    }
    cockpit.tell(Input::Tick(cockpit.now));
    cockpit.shows("142 new");
    // What is being read stays where it is.
    let rows = |text: &str| text.lines().skip(3).take(18).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(rows(&before), rows(&cockpit.text()));
    cockpit.keys("F");
    cockpit.shows("later 141");
    cockpit.shows("following");
    cockpit.keys("pageup end");
    assert_eq!(cockpit.screen.log.mode, Mode::Following);
    // Down from the last line follows too.
    cockpit.keys("k j j");
    assert_eq!(cockpit.screen.log.mode, Mode::Following);
}

#[test]
fn a_long_log_can_be_read_back_to_its_first_line() {
    let mut cockpit = Cockpit::new(long_log(9000), 80, 24);
    cockpit.keys("3");
    assert!(cockpit.screen.log.first() > 1, "the whole log was read at once");
    for _ in 0..6 {
        cockpit.keys("home");
    }
    cockpit.shows("Started kubelet");
}

#[test]
fn search_moves_and_counts_and_escape_goes_back() {
    let mut cockpit = Cockpit::new(long_log(300), 100, 24);
    cockpit.keys("3 /");
    cockpit.typed("line 4[0-9] ");
    cockpit.keys("enter");
    cockpit.shows("10/10");
    cockpit.shows("line 49 of the log");
    // Nothing is hidden.
    cockpit.shows("line 50 of the log");
    cockpit.keys("N");
    cockpit.shows("9/10");
    cockpit.keys("n n");
    cockpit.shows("1/10");
    cockpit.keys("esc");
    cockpit.shows("following");
    cockpit.keys("/");
    cockpit.typed("no such thing");
    cockpit.keys("enter");
    cockpit.shows("is not in the");
}

#[test]
fn filter_keeps_and_hides_and_context_brings_the_neighbours_back() {
    let mut cockpit = Cockpit::new(long_log(300), 100, 30);
    cockpit.keys("3 f");
    cockpit.typed("line !kubelet");
    cockpit.shows("no line passes");
    cockpit.keys("ctrl-u");
    cockpit.typed("LINE");
    cockpit.shows("no line passes");
    cockpit.keys("ctrl-u");
    cockpit.typed("line 2.0 !250");
    cockpit.keys("enter");
    cockpit.shows("(9 shown)");
    cockpit.shows("line 240 of");
    cockpit.hides("line 241 of");
    cockpit.keys("k k k c");
    cockpit.shows("line 261 of");
    cockpit.shows("line 259 of");
    assert!(cockpit.screen.log.filter.is_none());
}

#[test]
fn errors_are_found_and_repeats_are_one_row() {
    let mut cockpit = Cockpit::new(long_log(300), 100, 24);
    cockpit.keys("3 E");
    cockpit.shows("line 250 of");
    cockpit.keys("E");
    assert_eq!(cockpit.screen.log.current().unwrap().1.text, "line 150 of the log");
    cockpit.keys("e");
    assert_eq!(cockpit.screen.log.current().unwrap().1.text, "line 250 of the log");
    cockpit.keys("home");
    cockpit.shows("×31");
    cockpit.keys("[");
    cockpit.shows("Waiting up to 45m0s for bootstrapping");
}

#[test]
fn a_change_is_asked_for_and_no_is_the_default() {
    let mut cockpit = Cockpit::new(fixture::install_failed(), 120, 40);
    assert_eq!(cockpit.keys("g r"), []);
    cockpit.shows("Try 08-install/bootstrap again?");
    assert_eq!(cockpit.keys("enter"), []);
    cockpit.hides("Try 08-install");
    cockpit.keys("g r");
    // A key that is still held from before does not count, however long it is held.
    for _ in 0..50 {
        assert_eq!(cockpit.key("y", 30), []);
    }
    let retry = Command::Retry(Some(StepId::new("08-install/bootstrap")));
    assert_eq!(cockpit.key("y", 400), [Effect::Send(retry.clone())]);
    cockpit.keys("g r");
    assert_eq!(cockpit.keys("left enter"), [Effect::Send(retry)]);
}

#[test]
fn what_destroys_needs_the_name_of_the_cluster() {
    let mut cockpit = Cockpit::new(fixture::install_failed(), 120, 40);
    cockpit.shows("Give the mirror a new certificate");
    cockpit.keys("6 g a");
    cockpit.shows("loses: the machines and the cluster");
    cockpit.shows("Type edge-lab");
    cockpit.shows("destroy what the installer made, by infraID");
    cockpit.shows("then the run goes on from 07-install-config");
    assert_eq!(cockpit.keys("y enter"), []);
    cockpit.keys("ctrl-u");
    cockpit.tell(Input::Paste("edge-lab".into()));
    assert_eq!(cockpit.keys("enter"), [], "a name must be typed, not pasted");
    cockpit.typed("edge-la");
    assert_eq!(cockpit.keys("enter"), []);
    cockpit.typed("b");
    assert_eq!(
        cockpit.keys("enter"),
        [Effect::Send(Command::Recover {
            finding: "REG-CA/registry".into(),
            recovery: Some("trust-mirror-ca".into())
        })]
    );
}

#[test]
fn verbs_are_aimed_at_the_chosen_row_and_say_why_not() {
    let mut cockpit = Cockpit::new(fixture::sync_running(), 120, 40);
    assert_eq!(cockpit.keys("2 r"), [Effect::Send(Command::Resync { image: "cli".into() })]);
    assert_eq!(cockpit.keys("1 home G g t"), []);
    cockpit.shows("End the run after 10-cleanup?");
    assert_eq!(cockpit.keys("y"), [Effect::Send(Command::StopAfter(StageId::new("10-cleanup")))]);
    assert_eq!(cockpit.keys("g a"), []);
    cockpit.shows("apply fix: there is no open finding");
    let mut cockpit = Cockpit::new(fixture::install_failed(), 120, 40);
    assert_eq!(cockpit.keys("5 a y"), [Effect::Send(Command::ApproveCsr { name: "csr-8x2lp".into() })]);
    assert_eq!(cockpit.keys("6 r"), [Effect::Send(Command::RunChecks { finding: "REG-CA/registry".into() })]);
    for (access, why) in [(Access::ReadOnly, "only watches"), (Access::Replay, "cannot be changed")] {
        cockpit.screen.access = access;
        assert_eq!(cockpit.keys("g r"), []);
        cockpit.shows(why);
    }
}

#[test]
fn an_image_is_left_out_after_a_question_that_says_what_it_means() {
    let mut run = fixture::sync_running();
    let extra = "registry.redhat.io/ubi9/ubi:latest";
    run.sync(SyncEvent::Driven {
        engine: "oc-mirror".into(),
        images: vec![PlannedImage {
            name: extra.into(),
            digest: String::new(),
            repository: "ubi9/ubi".into(),
            layers: 0,
            bytes: 0,
        }],
    });
    let mut cockpit = Cockpit::new(run, 120, 40);
    // The first row is an image of the release that failed.
    assert_eq!(cockpit.keys("2 g o"), []);
    cockpit.shows("Do without cli?");
    cockpit.shows("It is part of the release");
    assert_eq!(cockpit.keys("y enter esc"), [], "the cluster's name is asked for");
    let down = cockpit.run.model.sync.images.len();
    cockpit.keys("home");
    let asked = (0..down).find_map(|_| {
        cockpit.keys("j g o");
        let found = cockpit.text().contains(&format!("Do without {extra}?"));
        if found {
            Some(cockpit.keys("y"))
        } else {
            cockpit.keys("esc");
            None
        }
    });
    assert_eq!(asked, Some(vec![Effect::Send(Command::LeaveOut { image: extra.into() })]));
    cockpit.run.image(extra, ImageState::Skipped, 1);
    cockpit.tell(Input::Tick(cockpit.now));
    cockpit.shows("1 skipped");
    cockpit.shows("the operator does without it");
}

#[test]
fn leaving_asks_and_escape_never_leaves() {
    let mut cockpit = Cockpit::new(fixture::install_running(), 80, 24);
    assert_eq!(cockpit.keys("esc esc esc q"), []);
    cockpit.shows("The work goes on");
    assert_eq!(cockpit.keys("y"), [Effect::Exit]);
    assert_eq!(cockpit.key("ctrl-c", 1000), []);
    assert_eq!(cockpit.key("ctrl-c", 5000), [], "too long after the first");
    cockpit.shows("Ctrl-C once more");
    assert_eq!(cockpit.key("ctrl-c", 200), [Effect::Exit]);
    cockpit.run.add(Data::RunClosed { outcome: RunOutcome::Failed, exit: 5, summary: "bootstrap failed".into() });
    assert_eq!(cockpit.keys("q"), [Effect::Exit]);
}

#[test]
fn the_palette_finds_every_verb_by_its_name() {
    let mut cockpit = Cockpit::new(fixture::install_failed(), 120, 40);
    for command in TABLE {
        let found = cockpit.screen.palette(command.id);
        assert_eq!(found.first(), Some(&command.verb), "{} {found:?}", command.id);
    }
    assert_eq!(cockpit.screen.palette("").len(), TABLE.len());
    cockpit.keys(":");
    cockpit.typed("zom");
    cockpit.shows("zoom");
    cockpit.keys("enter");
    assert!(cockpit.screen.zoom);
    cockpit.keys(":");
    cockpit.typed("approve");
    cockpit.shows("not now: no certificate signing request is chosen");
}

#[test]
fn help_shows_the_keys_that_work_here_and_no_others() {
    for pane in PaneId::ALL {
        let mut cockpit = Cockpit::new(fixture::install_failed(), 120, 120);
        cockpit.keys(&format!("{} ?", pane.number()));
        for command in TABLE {
            let works =
                !cockpit.screen.keymap.keys_of(&cockpit.screen.contexts(cockpit.model()), command.verb).is_empty();
            assert_eq!(cockpit.text().contains(command.doc), works, "{pane:?} {}\n{}", command.id, cockpit.text());
        }
    }
    let mut own = Cockpit::new(fixture::install_failed(), 120, 60);
    own.screen.keymap = bartizan::ui::keymap::Keymap::load(Some(("my", "[global]\nzoom = [\"Z\"]\n"))).unwrap();
    own.keys("?");
    own.shows("Z                  Give the focused pane");
}

#[test]
fn a_row_opens_to_all_that_is_known_of_it() {
    let mut cockpit = Cockpit::new(fixture::install_running(), 120, 40);
    cockpit.keys("1 enter");
    cockpit.shows("openshift-install wait-for bootstrap-complete");
    cockpit.shows("usual     1:00–3:00");
    assert!(matches!(&cockpit.keys("Y")[..], [Effect::Copy(text)] if text.starts_with("openshift-install wait-for")));
    cockpit.keys("esc 5 j enter");
    cockpit.shows("OAuthServerRouteEndpointAccessibleControllerDegraded: no such host");
    let mut cockpit = Cockpit::new(fixture::install_failed(), 120, 40);
    cockpit.keys("6 enter");
    cockpit.shows("registry = registry.edge-lab.example.com:5000");
    cockpit.shows("bastion: bartizan-check certificate-chains");
    cockpit.keys("esc j enter");
    cockpit.shows("paused");
    assert_eq!(cockpit.screen.log.current().unwrap().1.text, "x509: certificate signed by unknown authority");
}

#[test]
fn a_failure_calls_whoever_looks_where_and_a_warning_only_who_looks_away_once_in_five_seconds() {
    let run = fixture::install_failed();
    let event = run.events.iter().find(|event| matches!(event.data, Data::FindingOpened { .. })).unwrap().clone();
    let mut warning = bartizan::model::event::Event::clone(&event);
    if let Data::FindingOpened { finding } = &mut warning.data {
        finding.severity = bartizan::model::event::Level::Warn;
    }
    let warning = bartizan::record::Recorded::new(warning);
    let mut cockpit = Cockpit::new(run, 120, 40);
    assert_eq!(cockpit.tell(Input::Recorded(warning.clone())), [], "somebody looks");
    let told = cockpit.tell(Input::Recorded(event.clone()));
    assert!(matches!(&told[..], [Effect::Notify { title, .. }] if title.contains("REG-CA")), "{told:?}");
    cockpit.tell(Input::Focus(false));
    assert_eq!(cockpit.tell(Input::Recorded(warning)), [], "twice in five seconds");
    let soon = event.at + SignedDuration::from_secs(4);
    assert_eq!(cockpit.tell(Input::Tick(soon)), []);
    let later = event.at + SignedDuration::from_secs(6);
    assert!(matches!(&cockpit.tell(Input::Tick(later))[..], [Effect::Notify { .. }]), "it is told when its turn comes");
    assert_eq!(cockpit.tell(Input::Tick(later + SignedDuration::from_secs(6))), [], "and only once");
}

#[test]
fn panes_keep_their_chosen_row_when_rows_move() {
    let mut cockpit = Cockpit::new(fixture::sync_running(), 120, 40);
    cockpit.keys("2 j");
    let chosen = cockpit.screen.target(cockpit.model(), PaneId::Sync);
    cockpit.run.image("ovn-kubernetes", bartizan::model::event::ImageState::Copying, 1);
    assert_eq!(cockpit.screen.target(cockpit.model(), PaneId::Sync), chosen);
}

#[test]
fn time_goes_back_and_forth_over_the_same_models() {
    let mut run = fixture::install_failed();
    for place in 0..3000 {
        run.log("journal:bootstrap", "kubelet", Level::Info, &format!("{place}"));
    }
    let mut history = History::new(run.events.clone(), run.model.clone());
    assert_eq!(history.model(), &run.model);
    for count in [0, 1, 7, 999, 1000, 1001, 2500, run.events.len(), usize::MAX] {
        let mut expected = RunModel::default();
        for event in run.events.iter().take(count) {
            bartizan::model::reduce(&mut expected, event);
        }
        assert!(history.at(count) == expected, "after {count} events");
    }
    history.seek(Seek::Beginning);
    assert_eq!(history.model().seq, 1);
    history.seek(Seek::NextFailure);
    assert!(matches!(run.events[history.place().position - 1].data, Data::FindingOpened { .. }));
    history.seek(Seek::By(-1));
    assert!(history.model().findings.is_empty());
    history.seek(Seek::PreviousStage);
    assert_eq!(history.model().current_stage(), Some(&StageId::new("08-install")));
    history.seek(Seek::PreviousStage);
    assert_eq!(history.model().current_stage(), Some(&StageId::new("07-install-config")));
    // A live run goes on meanwhile.
    run.log("installer", "installer", Level::Info, "news");
    history.push(run.events.last().unwrap().clone());
    assert!(history.place().back);
    history.seek(Seek::Now);
    assert_eq!(history.model(), &run.model);
    assert!(!history.place().back);
}

#[test]
fn a_replay_plays_at_its_speed_and_stops_at_the_end() {
    let run = fixture::install_failed();
    let mut history = History::replay(run.events.clone());
    let before = history.place().at;
    for _ in 0..9 {
        history.seek(Seek::Faster);
    }
    assert_eq!(history.place().speed, 64);
    history.play(std::time::Duration::from_secs(1));
    assert_eq!(history.place().at.duration_since(before).as_secs(), 64);
    for _ in 0..60 {
        history.play(std::time::Duration::from_secs(1));
    }
    assert!(!history.playing());
    assert_eq!(history.model(), &run.model);
    let mut cockpit = Cockpit::new(run, 120, 40);
    cockpit.screen.timeline = true;
    cockpit.tell(Input::Moved(history.place()));
    cockpit.shows("now 64×");
    cockpit.screen.access = Access::Replay;
    cockpit.shows("end 64×");
    assert_eq!(
        cockpit.keys("space ! } left"),
        [Seek::Play, Seek::NextFailure, Seek::NextStage, Seek::By(-1)].map(Effect::Seek)
    );
    assert_eq!(cockpit.screen.contexts(cockpit.model())[0], Context::Timeline);
    assert_eq!(Verb::Now.command().footer, 6);
}

#[test]
fn looking_back_shows_the_log_as_it_was() {
    let mut cockpit = Cockpit::new(long_log(300), 100, 24);
    cockpit.keys("3");
    cockpit.shows("line 299 of");
    let now = std::mem::take(&mut cockpit.run.model);
    cockpit.run.model = History::new(cockpit.run.events.clone(), now.clone()).at(cockpit.run.events.len() - 100);
    cockpit.tell(Input::Tick(cockpit.now));
    cockpit.shows("line 199 of");
    cockpit.hides("line 200 of");
    cockpit.run.model = now;
    cockpit.tell(Input::Tick(cockpit.now));
    cockpit.shows("line 299 of");
}
