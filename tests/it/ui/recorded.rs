//! A run of the lab as the program itself recorded it: `tests/fixtures/runs/record` makes it anew.

use std::path::Path;
use std::sync::LazyLock;

use bartizan::model::event::{BootStage, Data, Observed, Outcome, Standing, SyncEvent};
use bartizan::model::{RunModel, reduce};
use bartizan::record::{Recorded, SegmentReader, bundle, read_events};

use super::fixture::{Builder, Shelf};

/// All events, and the lines of all logs.
static RUN: LazyLock<(Vec<Recorded>, Shelf)> = LazyLock::new(|| {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/runs/mirror-ca.tar.gz");
    let place = tempfile::tempdir().unwrap();
    let dir = bundle::unpack(&file, place.path()).unwrap();
    let events: Vec<Recorded> = read_events(&dir.join("run.jsonl")).unwrap().into_iter().map(Recorded::new).collect();
    let mut model = RunModel::default();
    events.iter().for_each(|event| reduce(&mut model, event));
    let (shelf, mut reader) = (Shelf::default(), SegmentReader::new(&dir));
    for (source, log) in &model.logs {
        shelf.put(source, reader.read(source, 1, usize::try_from(log.lines).unwrap()).unwrap());
    }
    (events, shelf)
});

/// Moments of that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Half of the bytes of the image sync have come.
    Sync,
    /// The bootstrap is about to fail, and it is known why.
    Bootstrap,
    /// After the repair: bootkube is at work.
    Bootkube,
    /// It has failed: its checks are answered, and nothing is done about it yet.
    Failed,
    /// After the repair: operators come up.
    Operators,
    /// It is taken down.
    Teardown,
    End,
}

/// The run as it was then.
pub fn at(moment: Moment) -> Builder {
    let (events, shelf) = &*RUN;
    let mut model = RunModel::default();
    let mut count = events.len();
    for (place, event) in events.iter().enumerate() {
        reduce(&mut model, event);
        let here = match moment {
            Moment::Sync => {
                matches!(event.data, Data::Sync(SyncEvent::Progress { .. } | SyncEvent::Moved { .. }))
                    && model.sync.moved() * 2 > model.sync.bytes - model.sync.present_bytes
            }
            Moment::Bootstrap => matches!(event.data, Data::FindingOpened { .. }),
            Moment::Bootkube => {
                matches!(&event.data, Data::Observed(Observed::Bootkube { state: BootStage::Running, .. }))
                    && model.bootkube.len() > 12
            }
            Moment::Failed => matches!(events.get(place + 1).map(|next| &next.data), Some(Data::RunClosed { .. })),
            Moment::Operators => {
                matches!(event.data, Data::Observed(Observed::Operator(_))) && model.cluster_state.operators.len() > 12
            }
            Moment::Teardown => {
                matches!(&event.data, Data::Observed(Observed::Resource { standing: Standing::Leaving, .. }))
                    && model.standing_objects().len() < 12
            }
            Moment::End => false,
        };
        if here {
            count = place + 1;
            break;
        }
    }
    assert!(moment == Moment::End || count < events.len(), "the recorded run has no moment {moment:?}");
    Builder::of(events.iter().take(count).cloned().collect(), shelf.clone())
}

#[test]
fn the_recorded_run_has_what_its_pictures_are_about() {
    let run = at(Moment::End);
    let failed = |event: &Recorded| matches!(event.data, Data::StepEnded { outcome: Outcome::Failed { .. }, .. });
    assert!(run.events.iter().any(failed), "it failed");
    assert!(run.model.findings.iter().all(|record| record.cleared.is_some()), "it was repaired");
    assert_eq!(run.model.standing_objects().len(), 0, "it was taken down");
    let text: String = run.events.iter().map(|event| serde_json::to_string(&**event).unwrap()).collect();
    assert!(!text.contains("PRIVATE KEY-----\\n"), "a record holds no secret");
}
