//! Everything that is known about one row: why it is so, and by which commands.

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use crate::cluster::operators;
use crate::model::event::{Condition, ImageState, Object, Outcome, Pod, Tri, Warning};
use crate::model::plan::StepId;
use crate::model::run::{HOURS_OF_A_MONTH, RunModel};
use crate::model::text::dollars;
use crate::ui::panes::{Cx, checks, place, sync, typed};
use crate::ui::recovery::RecoveryText;
use crate::ui::screen::{Screen, Target};
use crate::ui::text as words;
use crate::ui::theme::Token;

pub fn draw(cx: &Cx, target: &Target, scroll: usize, field: Option<usize>, area: Rect, buf: &mut Buffer) {
    let width = area.width.saturating_sub(area.width / 10).min(130);
    let room = usize::from(width).saturating_sub(4);
    let mut lines = Vec::new();
    let mut shown = 0..0;
    for (place, paragraph) in text(cx.model, cx.screen, target).into_iter().enumerate().skip(1) {
        let heading = is_heading(&paragraph);
        let chosen = field == Some(place);
        let style = cx.style(match (heading, chosen) {
            (_, true) => Token::Selection,
            (true, _) => Token::Title,
            (false, _) => Token::Text,
        });
        if heading && place > 1 {
            lines.push(Line::default());
        }
        if chosen {
            shown.start = lines.len();
        }
        let indent = paragraph.len() - paragraph.trim_start().len();
        for (row, part) in words::wrap(&paragraph, room.saturating_sub(indent), 400).into_iter().enumerate() {
            let part = if row > 0 { format!("{}{part}", " ".repeat(indent)) } else { part };
            lines.push(Line::styled(part, style));
        }
        if chosen {
            shown.end = lines.len();
        }
    }
    let title = text(cx.model, cx.screen, target).into_iter().next().unwrap_or_default();
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height.saturating_sub(area.height / 10));
    let inner = super::dialog(cx, area, width, height.max(area.height.min(6)), &title, buf);
    let text_area = Rect { x: inner.x + u16::from(inner.width > 1), width: inner.width.saturating_sub(2), ..inner };
    // What is chosen is in sight.
    let scroll = match field {
        Some(_) => scroll.max(shown.end.saturating_sub(usize::from(text_area.height))).min(shown.start),
        None => scroll,
    };
    super::scrolled(&lines, scroll, text_area, buf);
}

fn is_heading(paragraph: &str) -> bool {
    paragraph.ends_with(':') && !paragraph.starts_with(' ')
}

/// The paragraph after this one that can be copied alone, round and round.
pub fn next_field(text: &[String], field: Option<usize>, back: bool) -> Option<usize> {
    let fields: Vec<usize> =
        (1..text.len()).filter(|place| !text.get(*place).is_some_and(|text| is_heading(text))).collect();
    let here = field.and_then(|field| fields.iter().position(|place| *place == field));
    let next = match (here, back) {
        (None, false) => 0,
        (None, true) => fields.len().checked_sub(1)?,
        (Some(here), false) => (here + 1) % fields.len(),
        (Some(here), true) => (here + fields.len() - 1) % fields.len(),
    };
    fields.get(next).copied()
}

/// A paragraph without the name before it: `state     available` is `available`.
pub fn value(paragraph: &str) -> String {
    let text = paragraph.trim();
    text.split_once("  ").map_or(text, |(_, value)| value.trim_start()).to_owned()
}

/// The text of a row: its title first, then paragraphs; one that ends with a colon is a heading.
pub fn text(model: &RunModel, screen: &Screen, target: &Target) -> Vec<String> {
    match target {
        Target::Stage(id) => {
            let mut out = vec![id.to_string()];
            if let Some(stage) = model.plan.stage(id) {
                out.push(format!("goal  {}", stage.goal));
                out.push("Steps:".into());
                for step in &stage.steps {
                    let status = model.step(&step.id).map(|record| format!("{:?}", record.status).to_lowercase());
                    out.push(format!("  {}  {}", status.unwrap_or_else(|| "waiting".into()), step.title));
                }
            }
            out
        }
        Target::Step(id) => step(model, screen, id),
        Target::Image(name) => image(model, name),
        Target::Phase(place) => match model.installer.phases.get(*place) {
            Some(phase) => {
                let mut out = vec![format!("installer: {}", phase.name), phase.message.clone()];
                out.push(format!("started   {}", time(phase.started)));
                out.extend(phase.ended.map(|at| format!("ended     {}", time(at))));
                out.extend(phase.deadline.map(|at| format!("deadline  {}", time(at))));
                out
            }
            None => Vec::new(),
        },
        Target::Boot(stage) => match model.bootkube.iter().find(|record| record.stage == *stage) {
            Some(record) => {
                let mut out =
                    vec![format!("bootkube: {stage}"), format!("state     {:?}", record.state).to_lowercase()];
                out.push(format!("started   {} (start {})", time(record.started), record.starts));
                out.extend(record.ended.map(|at| format!("ended     {}", time(at))));
                let usual = model.plan.usual_boot(stage);
                out.extend(usual.map(|(low, high)| {
                    format!("usual     {}–{}, by earlier runs here", words::clock(low), words::clock(high))
                }));
                out.push("Evidence:".into());
                out.push(format!("  {}", record.evidence));
                out
            }
            None => Vec::new(),
        },
        Target::Unit(host, unit) => match model.units.get(&(host.clone(), unit.clone())) {
            Some(record) => vec![
                format!("{unit} on {host}"),
                format!("state     {}", record.state),
                format!("restarts  {}", record.restarts),
                format!("changed   {}", time(record.changed)),
            ],
            None => Vec::new(),
        },
        Target::ClusterVersion
        | Target::Operator(_)
        | Target::Node(_)
        | Target::Machine(_)
        | Target::Pool(_)
        | Target::Csr(_) => cluster(model, target),
        Target::Finding(id)
        | Target::Evidence(id)
        | Target::Next(id)
        | Target::Check(id, _)
        | Target::Recovery(id, _) => finding(model, screen, id),
        Target::Resource(object) => resource(model, object),
        Target::Activity(place) => match model.activity.get(*place) {
            Some(activity) => vec![format!("{} {}", time(activity.at), activity.text), activity.text.clone()],
            None => Vec::new(),
        },
        Target::Line(number) => match screen.log.line(*number) {
            Some(line) => vec![
                format!("{} {}: {}", words::time_of_day(line.at), line.unit, line.text),
                format!("{} line {number}, {} {:?}", screen.log.source(), time(line.at), line.level),
                format!("unit  {}", line.unit),
                "Line:".into(),
                format!("  {}", line.text),
            ],
            None => Vec::new(),
        },
    }
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// What the step is going to do, in the words of `bartizan plan`.
fn will_run(screen: &Screen, id: &StepId) -> Vec<String> {
    let commands = screen.texts.commands(id, usize::MAX);
    if commands.is_empty() {
        return Vec::new();
    }
    std::iter::once("Will run:".to_owned()).chain(commands.into_iter().map(|command| format!("  {command}"))).collect()
}

fn step(model: &RunModel, screen: &Screen, id: &StepId) -> Vec<String> {
    let mut out = vec![id.to_string()];
    if let Some(plan) = model.plan.step(id) {
        out.push(plan.title.clone());
        let (low, high) = plan.usual_s;
        out.push(format!(
            "usual     {}–{}, at most {} per attempt",
            words::clock(low),
            words::clock(high),
            words::clock(plan.timeout_s)
        ));
    }
    let Some(record) = model.step(id) else {
        out.extend(will_run(screen, id));
        return out;
    };
    let attempts = model.plan.step(id).map_or(String::new(), |plan| format!(" of {}", plan.attempts));
    out.push(format!(
        "status    {}, attempt {}{attempts}",
        format!("{:?}", record.status).to_lowercase(),
        record.attempt
    ));
    out.extend(record.host.as_ref().map(|host| format!("host      {host}")));
    out.extend(record.started.map(|at| format!("started   {}", time(at))));
    out.extend(record.ended.map(|at| format!("ended     {}", time(at))));
    out.extend(record.last_evidence.map(|at| format!("evidence  last at {}", time(at))));
    out.extend(record.inferred.as_ref().map(|because| format!("inferred  {because}")));
    if let Some(note) = record.progress.as_ref().and_then(|progress| progress.note.as_ref()) {
        out.push(format!("now       {note}"));
    }
    match &record.outcome {
        Some(Outcome::Failed { causes }) => {
            out.push("Failed because:".into());
            out.extend(causes.iter().map(|cause| format!("  {cause}")));
        }
        Some(Outcome::Warning { message }) => out.push(format!("warning   {message}")),
        Some(Outcome::Skipped { why }) => out.push(format!("skipped   {why}")),
        _ => {}
    }
    if !record.evidence.is_empty() {
        out.push("Evidence:".into());
        for evidence in &record.evidence {
            out.push(format!("  asked   {}", evidence.asked));
            out.push(format!("  answer  {}", evidence.answer));
        }
    }
    if !record.actions.is_empty() {
        out.push("Commands, newest first:".into());
        for action in record.actions.iter().rev() {
            let exit = match action.exit {
                Some(exit) => format!("exit {exit}"),
                None if action.runs() => "at work".to_owned(),
                None => "no answer".to_owned(),
            };
            out.push(format!(
                "  {} {} {exit}, {}.{:01}s",
                words::time_of_day(action.at),
                place(&action.action),
                action.elapsed_ms / 1000,
                action.elapsed_ms % 1000 / 100,
            ));
            out.push(format!("    {}", typed(&action.action)));
        }
    }
    // What failed is run again as it was.
    if record.ended.is_none() || matches!(record.outcome, Some(Outcome::Failed { .. })) {
        out.extend(will_run(screen, id));
    }
    out
}

fn resource(model: &RunModel, object: &Object) -> Vec<String> {
    let Some(record) = model.objects.get(object) else { return Vec::new() };
    let mut out = vec![format!("{} {}", object.kind, object.name)];
    out.extend(record.id.as_ref().map(|id| format!("id        {id}")));
    out.extend(Some(&record.state).filter(|state| !state.is_empty()).map(|state| format!("state     {state}")));
    out.extend(record.hourly.map(|hourly| {
        let month = hourly.saturating_mul(HOURS_OF_A_MONTH);
        format!("cost      about {} per hour, {} per month by list price", dollars(hourly), dollars(month))
    }));
    for (word, at) in
        [("asked", record.asked), ("ready", record.ready), ("leaving", record.leaving), ("gone", record.ended)]
    {
        out.extend(at.map(|at| format!("{word:<10}{}", time(at))));
    }
    if let Some(blocker) = &record.waits_for {
        out.push("Waits for:".into());
        out.push(format!("  {blocker}"));
    }
    if let Some(proof) = &record.gone {
        out.push("Proof that it is gone:".into());
        out.push(format!("  {proof}"));
    }
    out
}

fn image(model: &RunModel, name: &str) -> Vec<String> {
    let Some(record) = model.sync.images.iter().find(|record| record.image.name == name) else { return Vec::new() };
    let image = &record.image;
    let mut out = vec![
        format!("image {}", image.name),
        format!("digest      {}", image.digest),
        format!("repository  {}", image.repository),
        format!("layers      {}", image.layers),
        format!("bytes       {} ({} moved)", words::exact(image.bytes), words::exact(record.bytes)),
        format!("state       {}, attempt {}", sync::state_word(&record.state), record.attempt),
    ];
    if record.retries > 0 {
        let last = record.trouble.as_ref().map_or_else(String::new, |trouble| format!(", waiting after {trouble}"));
        out.push(format!("retries     {}{last}", record.retries));
    }
    if let ImageState::Failed { side, class, why } = &record.state {
        out.push(format!("Failed at the {side} ({class}):"));
        out.push(format!("  {why}"));
    }
    out.extend(record.changed.map(|at| format!("changed     {}", time(at))));
    out
}

fn tri(value: Tri) -> &'static str {
    match value {
        Tri::True => "True",
        Tri::False => "False",
        Tri::Unknown => "Unknown",
        Tri::Absent => "-",
    }
}

/// What an operator in trouble waits for, when that is in trouble itself.
fn because(model: &RunModel, name: &str) -> Option<String> {
    let state = &model.cluster_state;
    let workers = state.nodes.values().filter(|node| node.ready && node.role.contains("worker")).count();
    let all = state.operators.values().map(|record| &record.operator);
    operators::troubles(all, workers).into_iter().find(|trouble| trouble.name == name)?.because
}

/// A condition on a line of its own.
fn condition(condition: &Condition) -> String {
    let since = condition.since.map_or(String::new(), |at| format!(" since {}", time(at)));
    let words = [condition.reason.as_str(), condition.message.as_str()];
    let words: Vec<&str> = words.into_iter().filter(|words| !words.is_empty()).collect();
    let words = if words.is_empty() { String::new() } else { format!(": {}", words.join(", ")) };
    format!("  {} {}{since}{words}", condition.kind, tri(condition.status))
}

/// The warnings among the cluster's Events that are about it, newest last.
fn warnings(model: &RunModel, about_it: impl Fn(&Warning) -> bool) -> Vec<String> {
    let all = model.cluster_state.warnings.values().flatten();
    let mut mine: Vec<&Warning> = all.filter(|warning| about_it(warning)).collect();
    mine.sort_by_key(|warning| warning.last);
    let head = (!mine.is_empty()).then(|| "Warnings:".to_owned());
    let line = |warning: &&Warning| {
        let at = warning.last.map_or(String::new(), words::time_of_day);
        let Warning { about, reason, message, count, .. } = warning;
        format!("  {at} {about} {reason}, {count} times: {message}")
    };
    head.into_iter().chain(mine.iter().map(line)).collect()
}

/// Pods that do not get on, with the end of what they said.
fn pods(model: &RunModel, mine: impl Fn(&Pod) -> bool) -> Vec<String> {
    let ill: Vec<&Pod> = model.cluster_state.pods.values().filter(|pod| mine(pod)).collect();
    let mut out = Vec::from_iter((!ill.is_empty()).then(|| "Pods:".to_owned()));
    for pod in ill {
        let Pod { namespace, name, node, container, reason, message, restarts, tail } = pod;
        let on = if node.is_empty() { String::new() } else { format!(" on {node}") };
        out.push(format!("  {namespace}/{name}{on}: {reason}, {restarts} restarts: {message}"));
        if !tail.is_empty() {
            out.push(format!("    the last lines of {container}; more in the journal, pods:{namespace}"));
        }
        out.extend(tail.iter().map(|line| format!("      {line}")));
    }
    out
}

fn cluster(model: &RunModel, target: &Target) -> Vec<String> {
    let state = &model.cluster_state;
    let known = match target {
        Target::Operator(name) => state.operators.get(name).map(|record| {
            let operator = &record.operator;
            let mut out = vec![
                format!("clusteroperator/{name}"),
                format!("version      {}", operator.version.as_deref().unwrap_or("-")),
                format!("Available    {}", tri(operator.available)),
                format!("Progressing  {}", tri(operator.progressing)),
                format!("Degraded     {}", tri(operator.degraded)),
            ];
            out.extend(operator.since.map(|at| format!("since        {}", time(at))));
            out.extend(record.stable_since.map(|at| format!("stable since {}", time(at))));
            out.push(format!("changed      {}", time(record.changed)));
            out.extend(because(model, name).map(|root| format!("because      {root} comes first")));
            out.push("Message:".into());
            out.extend(operator.message.lines().map(|line| format!("  {line}")));
            if !operator.conditions.is_empty() {
                out.push("Conditions:".into());
                out.extend(operator.conditions.iter().map(condition));
            }
            out.extend(pods(model, |pod| operator.namespaces.contains(&pod.namespace)));
            out.extend(warnings(model, |warning| operator.namespaces.contains(&warning.namespace)));
            out.push("To read on:".into());
            out.push(format!("  oc adm inspect clusteroperator/{name}"));
            out.extend(operator.namespaces.iter().map(|namespace| format!("  oc -n {namespace} get pods -o wide")));
            out
        }),
        Target::Node(name) => state.nodes.get(name).map(|node| {
            let about = format!("node/{name}");
            let mut out = vec![
                format!("node/{name}"),
                format!("ready    {}", node.ready),
                format!("role     {}", node.role),
                format!("version  {}", node.version),
                format!("changed  {}", time(node.changed)),
                format!("message  {}", node.message),
            ];
            out.extend(pods(model, |pod| pod.node == *name));
            out.extend(warnings(model, |warning| warning.about == about));
            out.push("To read on:".into());
            out.push(format!("  oc describe node/{name}"));
            out.push(format!("  oc adm node-logs {name} -u kubelet"));
            out
        }),
        Target::Machine(name) => state.machines.get(name).map(|machine| {
            let about = format!("machine/{name}");
            let mut out = vec![
                format!("machine/{name}"),
                format!("phase    {}", machine.phase),
                format!("role     {}", machine.role),
                format!("message  {}", machine.message),
            ];
            out.extend(warnings(model, |warning| warning.about == about));
            out.push("To read on:".into());
            out.push(format!("  oc -n openshift-machine-api describe machine/{name}"));
            out.push("  oc -n openshift-machine-api logs deployment/machine-api-controllers -c machine-controller".into());
            out
        }),
        Target::Pool(name) => state.pools.get(name).map(|pool| {
            let about = format!("machineconfigpool/{name}");
            let mut out = vec![
                format!("machineconfigpool/{name}"),
                format!("machines  {}", pool.machines),
                format!("ready     {}", pool.ready),
                format!("updated   {}", pool.updated),
                format!("degraded  {}", pool.degraded),
                format!("changed   {}", time(pool.changed)),
                format!("message   {}", pool.message),
            ];
            out.extend(warnings(model, |warning| warning.about == about));
            out.push("To read on:".into());
            out.push(format!("  oc describe machineconfigpool/{name}"));
            out.push("  oc -n openshift-machine-config-operator logs daemonset/machine-config-daemon -c machine-config-daemon".into());
            out
        }),
        Target::Csr(name) => state.csrs.get(name).map(|csr| {
            vec![
                format!("csr/{name}"),
                format!("state      {:?}", csr.state),
                format!("requester  {}", csr.requester),
                format!("signer     {}", csr.signer),
                format!("changed    {}", time(csr.changed)),
            ]
        }),
        _ => state.version.as_ref().map(|version| {
            vec![
                format!("clusterversion {}", version.desired),
                format!("Available    {}", tri(version.available)),
                format!("Progressing  {} {}", tri(version.progressing), version.message),
                format!("Failing      {} {}", tri(version.failing), version.failing_message),
            ]
        }),
    };
    known.unwrap_or_default()
}

fn finding(model: &RunModel, screen: &Screen, id: &str) -> Vec<String> {
    let Some(record) = checks::record(model, id) else { return Vec::new() };
    let finding = &record.finding;
    let mut out = vec![
        format!("{} {}", finding.signature, finding.title),
        format!("opened    {}, seen {} times", time(record.opened), record.count),
    ];
    out.extend(record.cleared.as_ref().map(|(at, because)| format!("cleared   {}: {because}", time(*at))));
    out.extend(finding.explained_by.as_ref().map(|other| format!("because   of {other}")));
    out.push("Evidence:".into());
    let number = finding.line_number.map_or(String::new(), |number| format!(" line {number}"));
    out.push(format!("  {}{number}, {} at {}", finding.source, finding.unit, time(finding.at)));
    out.push(format!("  {}", finding.line));
    if let Some(next) = &finding.next {
        out.push("Next:".into());
        out.push(format!("  {next}"));
    }
    if !finding.captures.is_empty() {
        out.push("What the line names:".into());
        out.extend(finding.captures.iter().map(|(key, value)| format!("  {key} = {value}")));
    }
    if !record.checks.is_empty() {
        out.push("Checks:".into());
        for check in &record.checks {
            let title = screen.texts.check(finding, &check.check);
            out.push(format!("  {} {title}", format!("{:?}", check.state).to_lowercase()));
            if let Some(action) = &check.action {
                out.push(format!("    {}: {}", place(action), typed(action)));
            }
            out.push(format!("    {}", check.evidence));
        }
    }
    for id in RecoveryText::offered(finding) {
        let Some(recovery) = RecoveryText::of(finding, &id, &screen.texts.previews) else { continue };
        out.push("Recovery:".into());
        out.push(format!("  {}", recovery.title));
        out.extend(recovery.plan.iter().map(|line| format!("    {line}")));
    }
    out
}
