//! What earlier runs took is what the plan of the next one calls usual.

use bartizan::model::plan::{Plan, StepId};
use bartizan::stages;
use bartizan::stages::usual::learn;

#[test]
fn what_earlier_runs_of_the_same_site_took_is_usual() {
    let dir = tempfile::tempdir().unwrap();
    let mut plan = stages::plan().unwrap();
    let step = StepId::new("08-install/bootstrap");
    let usual = |plan: &Plan| plan.step(&step).unwrap().usual_s;
    let first = usual(&plan);
    let run = |name: &str, domain: &str, outcome: &str, seconds: u64| {
        let folder = dir.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let at = "\"at\":\"2026-01-01T10:00:00Z\"";
        let opened = format!(
            "{{\"seq\":1,{at},\"kind\":\"run-opened\",\"format\":1,\"run\":\"{name}\",\"bartizan\":\"0\",\"cluster\":\
             {{\"name\":\"a\",\"base_domain\":\"{domain}\",\"version\":\"4.18.1\",\"region\":\"r\"}},\"spec_digest\":\"\",\
             \"plan\":{{\"stages\":[]}},\"operator\":\"me\"}}"
        );
        let ended = format!(
            "{{\"seq\":2,{at},\"kind\":\"step-ended\",\"step\":\"{step}\",\"attempt\":1,\"outcome\":{{\"as\":\"{outcome}\"}},\
             \"elapsed_ms\":{}000,\"evidence\":[]}}",
            seconds
        );
        // A stage that failed once; it was read long after it had ended.
        let stages = [("running", 0), ("failed", 50), ("running", 60), ("done", 60 + seconds)].map(|(state, second)| {
            let since = jiff::Timestamp::from_second(1_767_261_600 + i64::try_from(second).unwrap()).unwrap();
            format!(
                "{{\"seq\":3,{at},\"kind\":\"observed\",\"object\":\"bootkube\",\"stage\":\"cb-bootstrap\",\"state\":\"{state}\",\
                 \"evidence\":\"x\",\"since\":\"{since}\"}}\n"
            )
        });
        let text = format!("{opened}\n{ended}\n{}not a line\n", stages.concat());
        std::fs::write(folder.join("run.jsonl"), text).unwrap();
        folder
    };
    let mut runs = vec![run("1", "example.com", "success", 700), run("2", "other.com", "success", 5)];
    runs.push(run("3", "example.com", "already-true", 1));
    learn(&mut plan, &runs, "example.com");
    assert_eq!(usual(&plan), first, "one run is no experience");
    assert_eq!(plan.usual_boot("cb-bootstrap"), Some((1, 700)), "what was already true says nothing of a step only");
    runs.push(run("4", "example.com", "success", 1500));
    runs.push(dir.path().join("gone"));
    learn(&mut plan, &runs, "example.com");
    assert_eq!(usual(&plan), (700, 1500));
    assert_eq!((plan.usual_boot("cb-bootstrap"), plan.usual_boot("unknown")), (Some((1, 1500)), None));
}
