//! A certificate authority: one per control plane, for its servers and for the users whom it knows by certificate.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// An authority with its own key.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: PathBuf,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The certificate.
    pub(crate) certificate: String,
    /// Its private key, as PKCS #8.
    pub(crate) key: String,
}

impl Authority {
    /// A new one, which writes its certificate to `ca.crt` in `dir`.
    ///
    /// # Errors
    /// No key can be made, or the file cannot be written.
    pub(crate) fn new(dir: &Path) -> Result<Authority> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "podnet");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let authority = Authority { issuer, dir: dir.to_owned() };
        authority.write("ca.crt", &authority.pem())?;
        authority.write("ca.key", &authority.issuer.key().serialize_pem())?;
        Ok(authority)
    }

    /// Its own certificate, in PEM.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a server with these names and addresses, or, as `user` in `group`, for a client (Kubernetes
    /// takes the common name for the user and the organization for a group).
    ///
    /// # Errors
    /// No key can be made, or a name cannot be in a certificate.
    pub(crate) fn identity(&self, user: &str, group: Option<&str>, servers: &[String]) -> Result<Identity> {
        let mut params = CertificateParams::new(servers).context("names of a certificate")?;
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// [`Authority::identity`] in two files, `NAME.crt` and `NAME.key`.
    ///
    /// # Errors
    /// Likewise, or they cannot be written.
    pub(crate) fn files(
        &self,
        name: &str,
        user: &str,
        group: Option<&str>,
        servers: &[String],
    ) -> Result<[PathBuf; 2]> {
        let identity = self.identity(user, group, servers)?;
        Ok([
            self.write(&format!("{name}.crt"), &identity.certificate)?,
            self.write(&format!("{name}.key"), &identity.key)?,
        ])
    }

    /// A key that signs tokens: `NAME.key` and, for who checks them, `NAME.pub`.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub(crate) fn signer(&self, name: &str) -> Result<[PathBuf; 2]> {
        let key = KeyPair::generate()?;
        Ok([
            self.write(&format!("{name}.key"), &key.serialize_pem())?,
            self.write(&format!("{name}.pub"), &key.public_key_pem())?,
        ])
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}
