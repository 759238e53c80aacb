//! What the cluster trusts: the CA of the mirror, and the certificate that it signed.

use async_trait::async_trait;

use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::{Cmd, Stdin};
use crate::model::event::{Action, Evidence};
use crate::spec::{MirrorKind, RegistrySoftware};
use crate::stages::certificate;
use crate::stages::s05_mirror_registry::{Service, answers, ca_path, directory};
use crate::stages::world::{Cx, World, action, bytes, fact, file, get, put};

pub(super) struct FetchMirrorCa;

impl FetchMirrorCa {
    /// The CA and the certificate as they stand in the registry's directory.
    async fn read(cx: &Cx) -> Result<(String, String), StepError> {
        let bastion = cx.world.bastion(cx)?;
        let mut texts = Vec::new();
        for path in [ca_path(cx)?, format!("{}/certs/tls.crt", directory(cx)?)] {
            let found = get(&bastion, &path).await?.ok_or_else(|| StepError::fatal(format!("{path} is not there")))?;
            texts.push(String::from_utf8_lossy(&found).into_owned());
        }
        match <[String; 2]>::try_from(texts) {
            Ok([ca, server]) => Ok((ca, server)),
            Err(_) => Err(StepError::fatal("the registry's directory holds no pair")),
        }
    }
}

#[async_trait]
impl Step<World> for FetchMirrorCa {
    fn preview(&self, world: &World) -> Vec<Action> {
        vec![action("bastion", &Cmd::new("cat").arg(format!("~/{}/certs/ca.crt", world.spec.mirror.storage)))]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let (ca, _) = Self::read(cx).await?;
        Ok(if cx.fact(fact::MIRROR_CA).as_ref() == Some(&ca) {
            Probe::True(vec![Evidence::new(ca_path(cx)?, "is the CA that the run knows")])
        } else {
            Probe::Missing("the run knows another CA".into())
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let (ca, server) = Self::read(cx).await?;
        if let Some(complaint) = certificate::complaint(&server, &ca, &cx.world.spec.mirror.host) {
            return Err(StepError::fatal(format!("the registry's own directory holds no good pair: {complaint}"))
                .hint(
                    "put the CA that signed certs/tls.crt into certs/ca.crt, or delete both and run stage 05 again",
                ));
        }
        cx.set_fact(fact::MIRROR_CA, ca).await;
        Ok(Ran::Ok)
    }

    /// Over TLS with this CA, as a node will ask.
    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let ca = cx.need(fact::MIRROR_CA)?;
        Ok(vec![Evidence::new("CA", certificate::subject(&ca).unwrap_or_default()), answers(cx).await?])
    }
}

/// A certificate by the CA that every trust bundle has already: nothing but the registry has to change.
pub(super) struct RenewCertificate;

impl RenewCertificate {
    async fn texts(cx: &Cx) -> Result<(String, String), StepError> {
        let bastion = cx.world.bastion(cx)?;
        let text = |found: Option<Vec<u8>>| String::from_utf8_lossy(&found.unwrap_or_default()).into_owned();
        let ca = text(get(&bastion, &ca_path(cx)?).await?);
        Ok((ca, text(get(&bastion, &server_path(cx)?).await?)))
    }
}

fn server_path(cx: &Cx) -> Result<String, StepError> {
    Ok(format!("{}/certs/tls.crt", directory(cx)?))
}

#[async_trait]
impl Step<World> for RenewCertificate {
    fn preview(&self, world: &World) -> Vec<Action> {
        let base = format!("~/{}/certs", world.spec.mirror.storage);
        [("tls.key", 0o600), ("tls.crt", 0o644), ("ca.crt", 0o644)]
            .map(|(name, mode)| file("bastion", &format!("{base}/{name}"), mode))
            .to_vec()
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let mirror = &cx.world.spec.mirror;
        if mirror.kind == MirrorKind::Existing || mirror.registry == RegistrySoftware::Quay {
            return Ok(Probe::NotApplicable("the certificate of this registry is not bartizan's to make".into()));
        }
        let Some(trusted) = cx.fact(fact::MIRROR_CA) else {
            return Ok(Probe::NotApplicable("no CA of the mirror is trusted anywhere yet".into()));
        };
        let (ca, server) = Self::texts(cx).await?;
        let Some(complaint) = certificate::complaint(&server, &trusted, &mirror.host) else {
            // It is read when the registry starts.
            return Ok(match answers(cx).await {
                Ok(evidence) => Probe::True(vec![evidence]),
                Err(error) => Probe::Missing(error.causes.join(": ")),
            });
        };
        if certificate::complaint(&server, &ca, &mirror.host).is_none() {
            let why =
                format!("somebody gave the registry a good pair of {}", certificate::subject(&ca).unwrap_or_default());
            return Ok(Probe::NotApplicable(why));
        }
        Ok(match certificate::is_key_of(&cx.world.mirror_ca_key, &trusted) {
            true => Probe::Missing(complaint),
            false => Probe::NotApplicable("this run does not have the key of the CA that the nodes trust".into()),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let bastion = cx.world.bastion(cx)?;
        let trusted = cx.need(fact::MIRROR_CA)?;
        if certificate::complaint(&Self::texts(cx).await?.1, &trusted, &cx.world.spec.mirror.host).is_none() {
            return Service.run(cx).await;
        }
        let addresses: Vec<String> = cx.fact(fact::BASTION_PRIVATE_IP).into_iter().collect();
        let (host, key) = (&cx.world.spec.mirror.host, &cx.world.mirror_ca_key);
        let issued = certificate::renew(&trusted, host, &addresses, key)?;
        let base = format!("{}/certs", directory(cx)?);
        put(cx, &bastion, &format!("{base}/tls.key"), Stdin::Secret(issued.key), 0o600).await?;
        put(cx, &bastion, &server_path(cx)?, bytes(issued.certificate), 0o644).await?;
        put(cx, &bastion, &ca_path(cx)?, bytes(issued.ca), 0o644).await?;
        Service.run(cx).await
    }

    /// Over TLS, against the CA that the nodes have.
    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        Service.verify(cx).await
    }
}
