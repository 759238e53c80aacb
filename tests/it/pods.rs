//! Pods in trouble, asked for by `oc` where there is no way to the API.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bartizan::host::{Cmd, Host, HostError, Output, Stdin, StreamItem, Tunnel};
use bartizan::model::event::{Data, Observed, Operator, Tri};
use bartizan::record::{Hub, Recorder, SegmentReader};
use bartizan::watch::Out;
use bartizan::watch::pods::{Seen, Way, look};
use futures::stream::BoxStream;
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// A bastion whose `oc` knows one pod, which fails until it is well.
#[derive(Default)]
struct Bastion {
    asked: Mutex<Vec<String>>,
    well: Mutex<bool>,
    said: Mutex<String>,
}

#[async_trait]
impl Host for Bastion {
    fn name(&self) -> &str {
        "bastion"
    }

    async fn exec(&self, cmd: &Cmd) -> Result<Output, HostError> {
        let line = cmd.line();
        let state = match *self.well.lock().unwrap() {
            true => json!({"running": {}}),
            false => json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}),
        };
        let pod = json!({"metadata": {"name": "etcd-m0", "namespace": "openshift-etcd"}, "spec": {"nodeName": "m0"},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "etcd", "ready": *self.well.lock().unwrap(), "restartCount": 2, "state": state}]}});
        let answer = match line.contains(" get pods ") {
            true => json!({"kind": "List", "items": [pod]}).to_string(),
            false => self.said.lock().unwrap().clone(),
        };
        self.asked.lock().unwrap().push(line);
        Ok(Output { status: 0, stdout: answer.into_bytes(), stderr: Vec::new() })
    }

    async fn stream(&self, _: &Cmd) -> Result<BoxStream<'static, Result<StreamItem, HostError>>, HostError> {
        unreachable!("nothing is followed by oc")
    }

    async fn put(&self, _: &str, _: Stdin, _: u32) -> Result<(), HostError> {
        unreachable!("nothing is written")
    }

    async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, HostError> {
        unreachable!("no file is read")
    }

    async fn tunnel(&self, _: &str, _: u16) -> Result<Box<dyn Tunnel>, HostError> {
        unreachable!("there is no way")
    }
}

#[tokio::test]
async fn by_oc_the_log_of_the_life_before_is_read_and_each_line_kept_once() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(Recorder::open(dir.path()).unwrap());
    let out = Out::new(hub.sink(), CancellationToken::new());
    let host = Arc::new(Bastion::default());
    let way = Way::Oc { host: host.as_ref(), kubeconfig: "/c1/auth/kubeconfig" };
    let mut seen = Seen::default();

    // Of operators that are well nobody asks.
    look(&way, &mut seen, &out).await;
    assert_eq!(host.asked.lock().unwrap().len(), 0);
    let etcd = Operator {
        name: "etcd".into(),
        available: Tri::True,
        degraded: Tri::True,
        namespaces: vec!["openshift-etcd".into()],
        ..Operator::default()
    };
    hub.sink().commit(Data::Observed(Observed::Operator(etcd))).await;
    let first = "2025-03-01T10:00:00Z starting\n2025-03-01T10:00:01Z E0301 10:00:01.000000 1 main.go:7] no quorum";
    first.clone_into(&mut host.said.lock().unwrap());
    look(&way, &mut seen, &out).await;
    // Nothing has changed: neither the pod nor its lines are told again.
    look(&way, &mut seen, &out).await;
    let model = hub.sink().model().await;
    let pod = &model.cluster_state.pods["openshift-etcd/etcd-m0"];
    assert_eq!((pod.reason.as_str(), pod.container.as_str(), pod.node.as_str()), ("CrashLoopBackOff", "etcd", "m0"));
    assert_eq!(pod.tail.last().unwrap(), "E0301 10:00:01.000000 1 main.go:7] no quorum");
    let logs: Vec<String> = host.asked.lock().unwrap().iter().filter(|line| line.contains(" logs ")).cloned().collect();
    assert_eq!(
        logs,
        ["oc --kubeconfig /c1/auth/kubeconfig --request-timeout=10s -n openshift-etcd logs etcd-m0 -c etcd \
          --timestamps --tail=100 --previous"]
    );
    let lines = SegmentReader::new(dir.path()).read("pods:openshift-etcd", 1, 10).unwrap();
    let told: Vec<(&str, &str)> = lines.iter().map(|line| (line.unit.as_str(), line.text.as_str())).collect();
    assert_eq!(told, [("etcd-m0/etcd", "starting"), ("etcd-m0/etcd", "E0301 10:00:01.000000 1 main.go:7] no quorum")]);
    assert_eq!(lines[0].at.to_string(), "2025-03-01T10:00:00Z");

    *host.well.lock().unwrap() = true;
    look(&way, &mut seen, &out).await;
    assert!(hub.sink().model().await.cluster_state.pods.is_empty());
}
