//! The certificate of a managed mirror, and what can be said of one that is there.

use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::GeneralName;

use crate::engine::StepError;
use crate::spec::Secret;

/// PEM texts.
pub struct Issued {
    pub ca: String,
    pub certificate: String,
    pub key: Secret,
}

/// Days that a new certificate is good for; an installation and the cluster's first years.
const DAYS: i64 = 1095;

/// A key for the CA of a mirror. It stays where the run is kept and never goes to the bastion: whoever has the registry can
/// sign no other name with it.
///
/// # Errors
/// When there are no random numbers.
pub fn new_ca_key() -> std::io::Result<Secret> {
    KeyPair::generate().map(|key| Secret::new(key.serialize_pem())).map_err(std::io::Error::other)
}

/// A CA of the mirror's own and a server certificate with `host` (and `addresses`) as subjectAltName.
///
/// # Errors
/// When the names are none that a certificate can hold, or the key is none.
pub fn issue(cluster: &str, host: &str, addresses: &[String], ca_key: &Secret) -> Result<Issued, StepError> {
    let wrong = |error: rcgen::Error| StepError::fatal(format!("making a certificate for {host}: {error}"));
    let mut ca = CertificateParams::new(Vec::new()).map_err(wrong)?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    ca.distinguished_name = name(&format!("{cluster} mirror CA"));
    validity(&mut ca);
    let key = KeyPair::from_pem(ca_key.reveal()).map_err(wrong)?;
    let pem = ca.self_signed(&key).map_err(wrong)?.pem();
    renew(&pem, host, addresses, ca_key)
}

/// Another server certificate by a CA that is out there already.
///
/// # Errors
/// When `ca_key` is not the key of `ca`, or the names are none that a certificate can hold.
pub fn renew(ca: &str, host: &str, addresses: &[String], ca_key: &Secret) -> Result<Issued, StepError> {
    let wrong = |error: rcgen::Error| StepError::fatal(format!("making a certificate for {host}: {error}"));
    if !is_key_of(ca_key, ca) {
        return Err(StepError::fatal("the key that this run keeps is not the one of the mirror's CA"));
    }
    let issuer = Issuer::from_ca_cert_pem(ca, KeyPair::from_pem(ca_key.reveal()).map_err(wrong)?).map_err(wrong)?;
    let names: Vec<String> = std::iter::once(host.to_owned()).chain(addresses.iter().cloned()).collect();
    let mut server = CertificateParams::new(names).map_err(wrong)?;
    server.distinguished_name = name(host);
    server.use_authority_key_identifier_extension = true;
    validity(&mut server);
    let key = KeyPair::generate().map_err(wrong)?;
    let certificate = server.signed_by(&key, &issuer).map_err(wrong)?;
    Ok(Issued { ca: ca.to_owned(), certificate: certificate.pem(), key: Secret::new(key.serialize_pem()) })
}

/// Whether a private key belongs to a certificate.
pub fn is_key_of(key: &Secret, certificate: &str) -> bool {
    let Ok(key) = KeyPair::from_pem(key.reveal()) else { return false };
    let Ok((_, pem)) = parse_x509_pem(certificate.as_bytes()) else { return false };
    pem.parse_x509().is_ok_and(|known| known.public_key().subject_public_key.data.as_ref() == key.public_key_raw())
}

fn name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn validity(params: &mut CertificateParams) {
    // An hour back, for clocks that are late.
    let now = Timestamp::now();
    let date = |seconds: i64| {
        let zoned = Timestamp::from_second(now.as_second() + seconds).unwrap_or(now).to_zoned(jiff::tz::TimeZone::UTC);
        rcgen::date_time_ymd(
            i32::from(zoned.year()),
            u8::try_from(zoned.month()).unwrap_or(1),
            u8::try_from(zoned.day()).unwrap_or(1),
        )
    };
    params.not_before = date(-86_400);
    params.not_after = date(DAYS * 86_400);
}

/// What is wrong with a server certificate for `host`, signed by `ca`; `None` when nothing is.
pub fn complaint(certificate: &str, ca: &str, host: &str) -> Option<String> {
    let Ok((_, server_pem)) = parse_x509_pem(certificate.as_bytes()) else { return Some("it is no PEM".into()) };
    let Ok((_, ca_pem)) = parse_x509_pem(ca.as_bytes()) else { return Some("the CA is no PEM".into()) };
    let (Ok(server), Ok(ca)) = (server_pem.parse_x509(), ca_pem.parse_x509()) else {
        return Some("it is no X.509 certificate".into());
    };
    let names = server.subject_alternative_name().ok().flatten();
    let named = names.is_some_and(|names| {
        names.value.general_names.iter().any(|name| matches!(name, GeneralName::DNSName(dns) if *dns == host))
    });
    if !named {
        return Some(format!("it does not name {host}"));
    }
    if !server.validity().is_valid() {
        return Some(format!(
            "it is not valid now ({} to {})",
            server.validity().not_before,
            server.validity().not_after
        ));
    }
    if server.issuer() != ca.subject() {
        return Some(format!("it is signed by {}, and the CA beside it is {}", server.issuer(), ca.subject()));
    }
    server.verify_signature(Some(ca.public_key())).err().map(|_| format!("{} did not sign it", ca.subject()))
}

/// The subject of a certificate, for people.
pub fn subject(pem: &str) -> Option<String> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
    Some(pem.parse_x509().ok()?.subject().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issued_certificate_has_no_complaint_and_others_do() {
        let keys = [new_ca_key().unwrap(), new_ca_key().unwrap()];
        let one = issue("edge", "registry.example.com", &["10.0.0.5".into()], &keys[0]).unwrap();
        let two = issue("edge", "registry.example.com", &[], &keys[1]).unwrap();
        assert_eq!(complaint(&one.certificate, &one.ca, "registry.example.com"), None);
        assert!(complaint(&one.certificate, &one.ca, "other.example.com").unwrap().contains("does not name"));
        assert!(complaint(&one.certificate, &two.ca, "registry.example.com").unwrap().contains("did not sign"));
        assert!(complaint("rubbish", &two.ca, "x").is_some());
        assert_eq!(subject(&one.ca).as_deref(), Some("CN=edge mirror CA"));
    }

    #[test]
    fn a_certificate_is_renewed_by_the_ca_that_is_out_there_and_by_no_other_key() {
        let keys = [new_ca_key().unwrap(), new_ca_key().unwrap()];
        let first = issue("edge", "registry.example.com", &[], &keys[0]).unwrap();
        let next = renew(&first.ca, "registry.example.com", &["10.0.0.5".into()], &keys[0]).unwrap();
        assert_eq!(complaint(&next.certificate, &first.ca, "registry.example.com"), None);
        assert_ne!(next.certificate, first.certificate);
        assert!(renew(&first.ca, "registry.example.com", &[], &keys[1]).is_err());
    }
}
