//! A run as one page that needs nothing but itself: how it ended, how long its stages took, what was found, what was done
//! about it, by whom, and with which versions. Well-formed as XML; no reference leads out of it.

use std::fmt::Write;

use jiff::Timestamp;

use super::Recording;
use super::chart::{self, clock, told};
use crate::headless::size;
use crate::model::RunModel;
use crate::model::event::{CheckState, Data, Event, Outcome, RunOutcome};
use crate::model::run::{FindingRecord, Status};
use crate::model::text::{dollars, xml};
use crate::record::scrub::Removal;
use crate::ui::Texts;

const STYLE: &str = "\
:root{color-scheme:light dark;--paper:#fff;--ink:#1f2328;--soft:#5a6370;--line:#d0d7de;--ok:#116329;--run:#0550ae;\
--warn:#7d4e00;--fail:#b3151c;--wait:#5a6370}\
@media(prefers-color-scheme:dark){:root{--paper:#101216;--ink:#d7dbe0;--soft:#9aa3ad;--line:#3a424c;--ok:#7fc97f;\
--run:#6cb6ff;--warn:#e7c547;--fail:#ff7b72;--wait:#9aa3ad}}\
body{background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.15rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--line)}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.25rem .75rem .25rem 0;\
border-bottom:1px solid var(--line)}td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}\
pre{white-space:pre-wrap;overflow-wrap:anywhere;border-left:3px solid var(--line);padding-left:.75rem;margin:.25rem 0}\
.ok{color:var(--ok)}.run{color:var(--run)}.warn{color:var(--warn)}.fail{color:var(--fail)}.wait,.skip,.soft{color:var(--soft)}\
.big{font-size:1.15rem;font-weight:600}svg{width:100%;height:auto}svg text{font:13px system-ui,sans-serif;fill:var(--ink)}\
svg .axis{fill:var(--soft);font-size:11px}svg .grid{stroke:var(--line)}svg rect.stage{fill:currentColor;opacity:.35}\
svg rect.step{fill:currentColor}svg rect.fail{stroke:currentColor;stroke-width:2;stroke-dasharray:4 2}";

/// The page. `texts` gives the checks their titles.
pub fn html(recording: &Recording, texts: &Texts) -> String {
    let model = recording.model();
    let title = format!("{}.{} {}", model.cluster.name, model.cluster.base_domain, model.cluster.version);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>bartizan: {}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n",
        xml(&title)
    );
    let parts = [
        heading(&model, &title),
        section("How long the stages took", &chart::svg(&model)),
        section("Stages", &stages(&model)),
        section("What was found", &findings(&model, texts)),
        section("Recoveries and decisions", &decisions(&recording.events)),
        section("The mirror", &mirror(&model)),
        section("What was made", &objects(&model)),
        section("Versions", &versions(&model, &recording.events)),
        section("Taken out of this page", &removed(&recording.removed())),
    ];
    parts.iter().for_each(|part| page.push_str(part));
    page.push_str("</body>\n</html>\n");
    page
}

fn section(title: &str, body: &str) -> String {
    if body.is_empty() { String::new() } else { format!("<section>\n<h2>{title}</h2>\n{body}</section>\n") }
}

fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut out = String::from("<table>\n<tr>");
    head.iter().for_each(|name| out.push_str(&format!("<th>{name}</th>")));
    out.push_str("</tr>\n");
    for row in rows {
        out.push_str("<tr>");
        row.iter().for_each(|cell| out.push_str(cell));
        out.push_str("</tr>\n");
    }
    out.push_str("</table>\n");
    out
}

fn cell(text: &str) -> String {
    format!("<td>{}</td>", xml(text))
}

fn number(text: &str) -> String {
    format!("<td class=\"n\">{}</td>", xml(text))
}

fn status(status: Status) -> String {
    let (mark, word) = told(status);
    format!("<td class=\"{word}\">{mark} {word}</td>")
}

fn when(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "–".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

fn span(from: Option<Timestamp>, to: Option<Timestamp>) -> String {
    match (from, to) {
        (Some(from), Some(to)) => clock(to.duration_since(from).as_secs().max(0)),
        _ => String::new(),
    }
}

fn heading(model: &RunModel, title: &str) -> String {
    let (class, words) = match &model.closed {
        Some((RunOutcome::Done, exit, summary)) => ("ok", format!("✔ done: {summary} (exit {exit})")),
        Some((RunOutcome::Failed, exit, summary)) => ("fail", format!("✖ failed: {summary} (exit {exit})")),
        Some((RunOutcome::Cancelled, exit, summary)) => ("warn", format!("! cancelled: {summary} (exit {exit})")),
        Some((RunOutcome::Stopped, exit, summary)) => ("warn", format!("! stopped: {summary} (exit {exit})")),
        None => ("run", "▶ not ended when this was written".to_owned()),
    };
    let (opened, now) = (model.opened, model.now);
    format!(
        "<header>\n<h1>{}</h1>\n<p class=\"big {class}\">{}</p>\n<p class=\"soft\">run {} by {} in {} · {} to {} · {}</p>\n\
         </header>\n",
        xml(title),
        xml(&words),
        xml(&model.run),
        xml(&model.operator),
        xml(&model.cluster.region),
        when(opened),
        when(now),
        span(opened, now)
    )
}

fn stages(model: &RunModel) -> String {
    let mut rows = Vec::new();
    for stage in &model.plan.stages {
        let state = model.stage_status(&stage.id);
        rows.push(vec![
            format!("<th>{}</th>", xml(stage.id.as_str())),
            status(state.status),
            number(&span(state.started, state.ended.or(model.now))),
            number(""),
            cell(&stage.goal),
        ]);
        for step in &stage.steps {
            let Some(record) = model.step(&step.id).filter(|record| record.started.is_some()) else { continue };
            let proof = match &record.outcome {
                Some(Outcome::Failed { causes }) => causes.join(": "),
                Some(Outcome::Warning { message }) => message.clone(),
                Some(Outcome::Skipped { why }) => why.clone(),
                _ => record
                    .evidence
                    .last()
                    .map_or_else(String::new, |proof| format!("{}: {}", proof.asked, proof.answer)),
            };
            rows.push(vec![
                cell(&format!("  {}", step.title)),
                status(record.status),
                number(&span(record.started, record.ended.or(model.now))),
                number(&if record.attempt > 1 { format!("{}×", record.attempt) } else { String::new() }),
                cell(&proof),
            ]);
        }
    }
    table(&["", "", "time", "tries", "proof, or why not"], &rows)
}

fn findings(model: &RunModel, texts: &Texts) -> String {
    let mut out = String::new();
    for record in &model.findings {
        out.push_str(&finding(record, texts));
    }
    if out.is_empty() { "<p>Nothing.</p>\n".to_owned() } else { out }
}

fn finding(record: &FindingRecord, texts: &Texts) -> String {
    let found = &record.finding;
    let (class, mark) = if record.cleared.is_some() { ("ok", "✔") } else { ("fail", "✖") };
    let end = record.cleared.as_ref().map_or_else(|| "still open".to_owned(), |(_, because)| because.clone());
    let mut out = format!(
        "<h3 class=\"{class}\">{mark} {} <span class=\"soft\">{}</span></h3>\n<pre>{} {}: {}</pre>\n<p>{}</p>\n",
        xml(&found.title),
        xml(&found.signature),
        when(Some(found.at)),
        xml(&found.source),
        xml(&found.line),
        xml(&end)
    );
    if let Some(cause) = &found.explained_by {
        let _infallible = writeln!(out, "<p class=\"soft\">explained by {}</p>", xml(cause));
    }
    let checks: Vec<Vec<String>> = record
        .checks
        .iter()
        .map(|check| {
            let state = match check.state {
                CheckState::Passed => Status::Done,
                CheckState::Failed => Status::Failed,
                CheckState::Running => Status::Running,
                CheckState::Unknown => Status::Warned,
            };
            vec![status(state), cell(texts.check(found, &check.check)), cell(&check.evidence)]
        })
        .collect();
    out.push_str(&table(&["", "check", "answer"], &checks));
    out
}

fn decisions(events: &[Event]) -> String {
    let rows: Vec<Vec<String>> = events
        .iter()
        .filter_map(|event| {
            let words = match &event.data {
                Data::Decision { command, args, operator, reason } => {
                    let reason = reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
                    format!("{operator}: {command} {}{reason}", args.join(" "))
                }
                Data::RunResumed { operator, from, .. } => {
                    let from = from.as_ref().map_or_else(String::new, |stage| format!(" from {stage}"));
                    format!("{operator}: resumed{from}")
                }
                Data::Rewound { stage, because } => format!("again from {stage}: {because}"),
                _ => return None,
            };
            Some(vec![cell(&when(Some(event.at))), cell(&words)])
        })
        .collect();
    table(&["when", "what"], &rows)
}

fn mirror(model: &RunModel) -> String {
    let sync = &model.sync;
    if !sync.planned {
        return String::new();
    }
    let (done, all) = sync.done();
    let proven = match &sync.proven {
        Some((images, missing)) if missing.is_empty() => format!("all {images} digests answered in the mirror"),
        Some((images, missing)) => format!("{} of {images} digests are missing: {}", missing.len(), missing.join(" ")),
        None => "not proven".to_owned(),
    };
    let rows = [
        ("images", format!("{done} of {all}")),
        (
            "bytes",
            format!("{} in {} blobs, {} were there already", size(sync.bytes), sync.blobs, size(sync.present_bytes)),
        ),
        ("asked again", format!("{} requests", sync.retries())),
        ("proof", proven),
    ];
    let rows: Vec<Vec<String>> = rows.iter().map(|(name, text)| vec![cell(name), cell(text)]).collect();
    table(&["", ""], &rows)
}

fn objects(model: &RunModel) -> String {
    let mut objects: Vec<_> = model.objects.iter().collect();
    objects.sort_by_key(|(_, record)| record.order);
    let rows: Vec<Vec<String>> = objects
        .iter()
        .map(|(object, record)| {
            let state = match (&record.gone, record.state.is_empty()) {
                (Some(proof), _) => format!("gone: {proof}"),
                (None, true) => "stands".to_owned(),
                (None, false) => record.state.clone(),
            };
            vec![cell(&object.kind), cell(&object.name), cell(record.id.as_deref().unwrap_or("–")), cell(&state)]
        })
        .collect();
    let cost = model.now.map(|now| model.cost(now)).unwrap_or_default();
    let mut out = table(&["kind", "name", "id", "state"], &rows);
    if cost.so_far > 0 {
        let _infallible = writeln!(
            out,
            "<p>About {} so far, {} per hour now, by list prices: an estimate, no bill.</p>",
            dollars(cost.so_far),
            dollars(cost.hourly)
        );
    }
    out
}

fn versions(model: &RunModel, events: &[Event]) -> String {
    let mut rows = vec![vec![cell("OpenShift"), cell(&model.cluster.version)]];
    for event in events {
        if let Data::RunOpened { format, bartizan, spec_digest, .. } = &event.data {
            rows.push(vec![cell("bartizan of the run"), cell(bartizan)]);
            rows.push(vec![cell("format of the record"), cell(&format.to_string())]);
            rows.push(vec![cell("spec"), cell(spec_digest)]);
        }
    }
    rows.push(vec![cell("bartizan of this page"), cell(env!("CARGO_PKG_VERSION"))]);
    for (key, value) in model.facts.iter().filter(|(key, _)| key.contains("version") || key.contains("digest")) {
        rows.push(vec![cell(key), cell(value)]);
    }
    table(&["", ""], &rows)
}

fn removed(removed: &[Removal]) -> String {
    let rows: Vec<Vec<String>> =
        removed.iter().map(|one| vec![number(&one.count.to_string()), cell(&one.kind), cell(&one.file)]).collect();
    if rows.is_empty() { "<p>Nothing was found that had to be.</p>\n".to_owned() } else { table(&["", "", ""], &rows) }
}
