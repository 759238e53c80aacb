//! 07: what the installer and the bastion say of the install-config, before the installer eats it. Changes nothing.

use serde_json::Value;

use crate::engine::StepError;
use crate::host::Cmd;
use crate::model::event::{Evidence, Level};
use crate::spec::Secret;
use crate::spec::install_fields::{ASKED, explained, unexplained};
use crate::spec::install_site::{elsewhere, same_release};

use super::s04_tools::tool;
use super::world::{Cx, exec, fact, must};

/// Ask for everything that a table of versions cannot know.
///
/// # Errors
/// When the installer does not know a field, was built for another release, or cannot reach a service.
pub(super) async fn ask(cx: &Cx, config: &Secret) -> Result<Vec<Evidence>, StepError> {
    let mut evidence = fields(cx, config).await?;
    evidence.extend(release(cx).await?);
    evidence.extend(place(cx).await?);
    evidence.extend(endpoints(cx).await?);
    Ok(evidence)
}

/// It only warns of unknown keys, and only when it reads them.
async fn fields(cx: &Cx, config: &Secret) -> Result<Vec<Evidence>, StepError> {
    let root: Value = yaml_serde::from_str(config.reveal())
        .map_err(|_| StepError::fatal("install-config.yaml, as it was just written, is no YAML"))?;
    let bastion = cx.world.bastion(cx)?;
    let mut evidence = Vec::new();
    for path in ASKED {
        let dotted = if path.is_empty() { "installconfig".to_owned() } else { format!("installconfig.{path}") };
        let cmd = tool(cx, "openshift-install")?.args(["explain", &dotted]);
        let output = exec(cx, &bastion, cmd.clone()).await?;
        let known = explained(&output.text());
        if !output.ok() || known.is_empty() {
            // It was asked out of caution: the table of versions stands.
            cx.note(Level::Info, format!("openshift-install explains no {dotted}: its fields were not compared")).await;
            continue;
        }
        let strange = unexplained(&root, path, &known);
        if !strange.is_empty() {
            return Err(StepError::fatal(format!("this installer does not know {}", strange.join(", ")))
                .during("comparing install-config.yaml with what openshift-install explains"));
        }
        evidence.push(Evidence::new(cmd.line(), format!("{} fields, ours are among them", known.len())));
    }
    Ok(evidence)
}

async fn release(cx: &Cx) -> Result<Option<Evidence>, StepError> {
    if cx.world.spec.release.pull_spec.is_some() {
        // The mirrored one is named to the installer then.
        return Ok(None);
    }
    let Some(digest) = cx.fact(fact::RELEASE_DIGEST) else { return Ok(None) };
    let cmd = tool(cx, "openshift-install")?.arg("version");
    let output = must(cx, &cx.world.bastion(cx)?, cmd.clone()).await?;
    let image = same_release(&output.text(), &digest).map_err(StepError::fatal)?;
    Ok(Some(Evidence::new(cmd.line(), format!("release image {image}"))))
}

async fn place(cx: &Cx) -> Result<Option<Evidence>, StepError> {
    let network = cx.fact(fact::MACHINE_NETWORK).unwrap_or_else(|| cx.world.spec.network.vpc_cidr.clone());
    let cmd = Cmd::new("hostname").arg("-I");
    let output = exec(cx, &cx.world.bastion(cx)?, cmd.clone()).await?;
    if let Some(why) = elsewhere(&output.text(), &network) {
        cx.note(Level::Warn, why).await;
        return Ok(None);
    }
    Ok(output.ok().then(|| Evidence::new(cmd.line(), output.text())))
}

/// The installer asks each of them for its head, from where it runs.
async fn endpoints(cx: &Cx) -> Result<Vec<Evidence>, StepError> {
    let bastion = cx.world.bastion(cx)?;
    let mut evidence = Vec::new();
    for (name, url) in &cx.world.spec.install.service_endpoints {
        // Any answer will do, also one that says no.
        let ask = ["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "20", "--head"];
        let cmd = Cmd::new("curl").args(ask).arg(url);
        let output = exec(cx, &bastion, cmd.clone()).await?;
        if !output.ok() {
            let said = output.error_text();
            return Err(StepError::fatal(format!("the bastion does not reach {url} ({name}): {}", said.trim()))
                .during("asking the services of install.service_endpoints")
                .hint(
                    "the installer asks them from the bastion too; correct the address, or let the bastion reach it",
                ));
        }
        evidence.push(Evidence::new(cmd.line(), format!("HTTP {}", output.text())));
    }
    Ok(evidence)
}
