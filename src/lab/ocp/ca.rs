//! Certificate authorities of the lab: of the source registry, of the cluster, and the mirror's second one.

use std::path::Path;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};

use super::OcpError;

/// A certificate authority. It is kept in a directory of the lab, so that a restarted lab is trusted as before.
pub struct Ca {
    certificate: String,
    key: String,
}

/// A certificate with its key, both PEM.
#[derive(Debug, Clone)]
pub struct Leaf {
    pub certificate: String,
    pub key: String,
}

impl Ca {
    pub fn open(dir: &Path, file: &str, name: &str) -> Result<Self, OcpError> {
        let (certificate_path, key_path) = (dir.join(format!("{file}.crt")), dir.join(format!("{file}.key")));
        if let (Ok(certificate), Ok(key)) =
            (std::fs::read_to_string(&certificate_path), std::fs::read_to_string(&key_path))
        {
            return Ok(Self { certificate, key });
        }
        let ca = Self::make(name)?;
        std::fs::create_dir_all(dir).map_err(OcpError::file(dir))?;
        std::fs::write(&certificate_path, &ca.certificate).map_err(OcpError::file(&certificate_path))?;
        std::fs::write(&key_path, &ca.key).map_err(OcpError::file(&key_path))?;
        Ok(ca)
    }

    pub fn make(name: &str) -> Result<Self, OcpError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    pub fn pem(&self) -> &str {
        &self.certificate
    }

    /// For a server that is known by `names`, host names or addresses.
    pub fn server(&self, names: &[&str]) -> Result<Leaf, OcpError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("lab"));
        params.subject_alt_names = names.iter().map(|name| subject(name)).collect::<Result<_, OcpError>>()?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// For a client whose user name is `name`, member of `group`.
    pub fn client(&self, name: &str, group: &str) -> Result<Leaf, OcpError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Leaf, OcpError> {
        // Made a day ago: a clock that is far behind does not accept it yet.
        let made = (Timestamp::now() - SignedDuration::from_hours(24)).to_zoned(TimeZone::UTC);
        params.not_before = date_time_ymd(made.year().into(), made.month() as u8, made.day() as u8);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, KeyPair::from_pem(&self.key)?)?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Leaf { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn subject(name: &str) -> Result<SanType, OcpError> {
    Ok(match name.parse() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(name.try_into()?),
    })
}
