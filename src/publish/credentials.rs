//! Passwords and TLS material, read from the files that the settings name.
//!
//! Secrets are read anew for every connection, so that a renewed one is used without a restart, and never printed. Not
//! here: what they are used for (`connection`).

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rumqttc::tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use rumqttc::tokio_rustls::rustls::client::{ClientConfig, WebPkiServerVerifier};
use rumqttc::tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use rumqttc::tokio_rustls::rustls::pki_types::pem::PemObject;
use rumqttc::tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rumqttc::tokio_rustls::rustls::{self, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::error::PublishError;
use super::options::{Options, Tls};

/// The systemd credential that holds the password (`LoadCredential=mqtt-password:…`).
const CREDENTIAL: &str = "mqtt-password";
/// The largest password, certificate or key file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A password; its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    /// The password, for the broker only.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The password that goes with `options.username`: the first line of its file, or of the systemd credential.
pub(super) fn password(options: &Options) -> Result<Option<Secret>, PublishError> {
    let credential = || {
        let path = PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?).join(CREDENTIAL);
        path.exists().then_some(path)
    };
    let Some(path) = options.password_file.clone().or_else(credential) else {
        return Ok(None);
    };
    let bytes = read("password_file", &path)?;
    let failed = |reason: &str| file_error("password_file", &path, reason);
    let text = String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8 text"))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Some(Secret(line.to_owned()))),
        _ => Err(failed("its first line, which should be the password, is empty")),
    }
}

/// The TLS client that `[mqtt.tls]` describes.
pub(super) fn tls(options: &Tls) -> Result<Arc<ClientConfig>, PublishError> {
    let setup = |reason: rustls::Error| PublishError::TlsSetup(reason.to_string());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let roots = Arc::new(roots(options.ca_file.as_deref())?);
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(setup)?;
    let builder = match &options.server_name {
        None => builder.with_root_certificates(roots),
        Some(name) => {
            let verifier = NamedVerifier::new(name, roots, provider)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    let config = match (&options.certificate_file, &options.key_file) {
        (Some(certificate), Some(key)) => {
            let key_pem = read("tls.key_file", key)?;
            let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|e| {
                file_error("tls.key_file", key, &format!("it holds no PEM private key ({e})"))
            })?;
            builder
                .with_client_auth_cert(certificates("tls.certificate_file", certificate)?, key)
                .map_err(setup)?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, PublishError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca_file else {
        let found = rustls_native_certs::load_native_certs();
        let (added, _ignored) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let why = found.errors.first().map_or(String::new(), |error| format!(" ({error})"));
            return Err(PublishError::TlsSetup(format!(
                "this box knows no authority that could vouch for the broker{why}: name one as mqtt.tls.ca_file, or \
                 install the system's (Debian: ca-certificates)"
            )));
        }
        return Ok(roots);
    };
    let (added, _ignored) = roots.add_parsable_certificates(certificates("tls.ca_file", path)?);
    if added == 0 {
        let reason =
            "none of its certificates can be used: give that of the authority that signed the broker's";
        return Err(file_error("tls.ca_file", path, reason));
    }
    Ok(roots)
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, PublishError> {
    let pem = read(key, path)?;
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| {
            file_error(
                key,
                path,
                &format!("it is no PEM file ({e}): copy it again, or convert it with openssl"),
            )
        })?;
    if certificates.is_empty() {
        let reason = "it holds no PEM certificate: give one that begins with -----BEGIN CERTIFICATE-----";
        return Err(file_error(key, path, reason));
    }
    Ok(certificates)
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, PublishError> {
    let failed = |e: std::io::Error| {
        let remedy = match e.kind() {
            ErrorKind::NotFound => "correct the path, or put the file there",
            ErrorKind::PermissionDenied => {
                "let the daemon's user read it; to the service's, only what `LoadCredential=` or the group names is open"
            }
            _ => "name a file that can be read",
        };
        file_error(key, path, &format!("{e}: {remedy}"))
    };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(file_error(key, path, "it is larger than 1 MiB: this cannot be the file that is meant"));
    }
    Ok(bytes)
}

fn file_error(key: &'static str, path: &Path, reason: &str) -> PublishError {
    PublishError::File { key, path: path.to_owned(), reason: reason.to_owned() }
}

/// The usual verification, with the name from the settings in place of the host's.
#[derive(Debug)]
struct NamedVerifier {
    name: ServerName<'static>,
    inner: Arc<WebPkiServerVerifier>,
}

impl NamedVerifier {
    fn new(
        name: &str,
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, PublishError> {
        let bad = |e: String| PublishError::TlsSetup(format!("server_name `{}`: {e}", name.escape_debug()));
        Ok(Self {
            name: ServerName::try_from(name.to_owned()).map_err(|e| bad(e.to_string()))?,
            inner: WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|e| bad(e.to_string()))?,
        })
    }
}

impl ServerCertVerifier for NamedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.inner.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(file: &Path) -> Options {
        Options { username: Some("box".into()), password_file: Some(file.to_owned()), ..Options::default() }
    }

    #[test]
    fn a_password_is_the_first_line_and_never_printed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "s3cret \nsecond\n").unwrap();
        let secret = password(&options(&file)).unwrap().unwrap();
        assert_eq!(secret.expose(), "s3cret ");
        assert!(!format!("{secret:?}").contains("s3cret"));
    }

    #[test]
    fn a_password_file_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let error = || password(&options(&file)).unwrap_err().to_string();
        assert!(error().contains("mqtt.password_file") && error().contains("password: "), "{}", error());
        std::fs::write(&file, "\n").unwrap();
        assert!(error().contains("empty"));
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(error().contains("UTF-8"));
    }

    #[test]
    fn a_certificate_file_without_certificates_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, "no certificate").unwrap();
        let options = Tls { enabled: true, ca_file: Some(file), ..Tls::default() };
        let error = tls(&options).unwrap_err().to_string();
        assert!(error.contains("mqtt.tls.ca_file") && error.contains("no PEM certificate"), "{error}");
        let ca_file = options.ca_file.as_ref().unwrap();
        std::fs::write(ca_file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let error = tls(&options).unwrap_err().to_string();
        assert!(error.contains("ca.pem") && error.contains("can be used"), "{error}");
    }
}
