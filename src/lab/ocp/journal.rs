//! What the lab's nodes write to their journals, and the service records of the bootstrap machine
//! (openshift/installer `data/data/bootstrap/files/usr/local/bin/bootstrap-service-record.sh`).
//!
//! Some lines of a bootstrap machine carry a number, ` lab#000123` at their end, without a hole from 1 on: who follows
//! the journal can count that it lost none and saw none twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};

use crate::lab::machines::{Entry, Machine};

/// The number in a numbered line.
pub fn number(line: &str) -> Option<u64> {
    line.trim_end().rsplit_once(" lab#").and_then(|(_, digits)| digits.parse().ok())
}

/// Writes the journal of one machine.
#[derive(Clone)]
pub struct Pen {
    pub machine: Arc<Machine>,
    numbers: Arc<AtomicU64>,
    /// podman logs to the journal too, so lines of containers are there twice (up to 4.20).
    twice: bool,
}

impl Pen {
    pub fn new(machine: Arc<Machine>, twice: bool) -> Self {
        Self { machine, numbers: Arc::new(AtomicU64::new(0)), twice }
    }

    /// The same pen for the machine after a reboot.
    pub fn after_reboot(self, machine: Arc<Machine>) -> Self {
        Self { machine, ..self }
    }

    fn write(&self, unit: &str, identifier: &str, priority: u8, message: String, container: Option<&str>) {
        let pid = unit.bytes().fold(1500_u32, |pid, byte| pid.wrapping_mul(3).wrapping_add(u32::from(byte)) % 30_000);
        self.machine.journal().append(Entry {
            unit: format!("{unit}.service"),
            identifier: identifier.into(),
            priority,
            message: message.into_bytes(),
            pid: pid + 1000,
            container: container.map(str::to_owned),
            about_unit: None,
        });
    }

    pub fn line(&self, unit: &str, identifier: &str, text: impl Into<String>) {
        self.write(unit, identifier, 6, text.into(), None);
    }

    /// A line with the next number.
    pub fn numbered(&self, unit: &str, identifier: &str, text: &str) {
        let text = self.with_number(text);
        self.write(unit, identifier, 6, text, None);
    }

    fn with_number(&self, text: &str) -> String {
        format!("{text} lab#{:06}", self.numbers.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// A line of a container that bootkube.sh runs.
    pub fn container(&self, container: &str, text: &str) {
        self.write("bootkube", "bootkube.sh", 6, text.into(), None);
        if self.twice {
            self.write("bootkube", container, 6, text.into(), Some(container));
        }
    }

    pub fn numbered_container(&self, container: &str, text: &str) {
        let text = self.with_number(text);
        self.container(container, &text);
    }

    pub fn podman(&self, verb: &str, image: &str, name: &str) {
        let id = super::payload::digest(name.as_bytes());
        let id = id.trim_start_matches("sha256:");
        self.write("bootkube", "podman", 6, format!("container {verb} {id} (image={image}, name={name})"), None);
    }

    /// What systemd itself says about a unit.
    pub fn systemd(&self, unit: &str, text: impl Into<String>) {
        self.machine.journal().append(Entry {
            unit: "init.scope".into(),
            identifier: "systemd".into(),
            priority: 6,
            message: text.into().into_bytes(),
            pid: 1,
            container: None,
            about_unit: Some(format!("{unit}.service")),
        });
    }

    pub fn kernel(&self, text: &str) {
        self.line("init", "kernel", text);
    }
}

/// `/var/log/openshift/<service>.json`: an array that is written anew for every entry.
pub struct Records {
    machine: Arc<Machine>,
    path: String,
    entries: Vec<Value>,
}

impl Records {
    pub fn open(machine: Arc<Machine>, service: &str) -> Self {
        let path = format!("/var/log/openshift/{service}.json");
        let entries = machine.fs().read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { machine, path, entries: entries.unwrap_or_default() }
    }

    pub fn service_start(&mut self) {
        self.add("service start", &[]);
    }

    pub fn service_end(&mut self, result: Result<(), &str>) {
        self.end("service end", &[], result);
    }

    pub fn stage_start(&mut self, stage: &str) {
        self.add("stage start", &[("stage", stage)]);
    }

    pub fn stage_end(&mut self, stage: &str, result: Result<(), &str>) {
        self.end("stage end", &[("stage", stage)], result);
    }

    pub fn pre_command(&mut self, phase: &str, command: &str) {
        let result: &[(&str, &str)] = if phase.ends_with("end") { &[("result", "success")] } else { &[] };
        let mut fields = vec![("preCommand", command)];
        fields.extend(result);
        self.add(phase, &fields);
    }

    fn end(&mut self, phase: &str, fields: &[(&str, &str)], result: Result<(), &str>) {
        let mut all = fields.to_vec();
        match result {
            Ok(()) => all.push(("result", "success")),
            Err(message) => {
                all.extend([("result", "failure"), ("errorLine", "1 main /usr/local/bin/bootkube.sh")]);
                all.push(("errorMessage", message));
            }
        }
        self.add(phase, &all);
    }

    fn add(&mut self, phase: &str, fields: &[(&str, &str)]) {
        let mut entry = Map::new();
        let at = self.machine.skew().now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        entry.insert("timestamp".into(), json!(at));
        entry.insert("phase".into(), json!(phase));
        for (key, value) in fields {
            entry.insert((*key).into(), json!(value));
        }
        self.entries.push(Value::Object(entry));
        let text = format!("{:#}\n", Value::Array(self.entries.clone()));
        let temporary = format!("{}.tmp", self.path);
        // A node whose disk is gone writes no records.
        let _ = self.machine.fs().write(&temporary, text.as_bytes());
        let _ = self.machine.fs().rename(&temporary, &self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_back() {
        assert_eq!(number("I0301 kubelet.go:1] \"SyncLoop ADD\" lab#000042"), Some(42));
        assert_eq!(number("Rendering CEO Manifests..."), None);
    }
}
