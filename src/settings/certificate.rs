//! Reads an X.509 certificate: its dates, its public key, its names and its purposes.
//!
//! rustls reads only certificates of X.509 version 3, and does not return the dates of a certificate. The agent also serves and
//! trusts certificates of version 1, because `openssl x509 -req` makes such certificates if it gets no extensions. This module
//! reads only the fields that the agent needs. rustls verifies the signatures.

use std::time::{Duration, SystemTime};

use der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use der::{Decode as _, Reader as _, SliceReader, Tag, TagNumber, Tagged as _};
use tokio_rustls::rustls::pki_types::CertificateDer;

/// Object identifiers in their DER encoding.
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 17];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
const ANY_USAGE: &[u8] = &[0x55, 0x1d, 37, 0];

/// The side of a connection that a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A server's certificate.
    Server,
    /// A client's certificate.
    Client,
}

/// The fields of a certificate that the agent needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Certificate<'c> {
    /// The version of X.509: 1, 2 or 3.
    pub(crate) version: u8,
    /// The first moment at which the certificate is valid.
    pub(crate) not_before: SystemTime,
    /// The final moment at which the certificate is valid.
    pub(crate) not_after: SystemTime,
    /// The `SubjectPublicKeyInfo`, in DER.
    pub(crate) public_key: &'c [u8],
    subject: &'c [u8],
    extensions: Option<&'c [u8]>,
}

impl<'c> Certificate<'c> {
    /// Reads a certificate. Returns none if the bytes are not a certificate.
    pub(crate) fn read(der: &'c CertificateDer<'_>) -> Option<Self> {
        let mut whole = contents(der.as_ref(), Tag::Sequence)?;
        let mut fields = contents(whole.tlv_bytes().ok()?, Tag::Sequence)?;
        let version = match fields.peek_byte()? {
            0xa0 => {
                let version = fields.decode::<AnyRef<'_>>().ok()?;
                u8::from_der(version.value()).ok()?.checked_add(1)?
            }
            _ => 1,
        };
        let _serial = fields.tlv_bytes().ok()?;
        let _signature = fields.tlv_bytes().ok()?;
        let _issuer = fields.tlv_bytes().ok()?;
        let mut validity = contents(fields.tlv_bytes().ok()?, Tag::Sequence)?;
        let not_before = moment(validity.tlv_bytes().ok()?)?;
        let not_after = moment(validity.tlv_bytes().ok()?)?;
        let subject = fields.tlv_bytes().ok()?;
        let public_key = fields.tlv_bytes().ok()?;
        contents(public_key, Tag::Sequence)?;
        let mut extensions = None;
        while !fields.is_finished() {
            let field = fields.decode::<AnyRef<'_>>().ok()?;
            if field.tag() == context(3) {
                extensions = Some(field.value());
            }
        }
        Some(Self {
            version,
            not_before,
            not_after,
            public_key,
            subject,
            extensions,
        })
    }

    /// Whether the certificate has a `subjectAltName`. The common name of such a certificate does not count as a host name.
    pub(crate) fn has_alternative_names(&self) -> bool {
        self.extension(SUBJECT_ALT_NAME).is_some()
    }

    /// Whether the common name is the host name `host`, or a wildcard (such as `*.example`) that matches the host name.
    pub(crate) fn is_commonly_named(&self, host: &str) -> bool {
        let Some(name) = self.common_name() else {
            return false;
        };
        let host = host.trim_end_matches('.');
        match name.strip_prefix("*.") {
            Some(domain) => {
                let rest = host.split_once('.').map(|(_, rest)| rest);
                rest.is_some_and(|rest| rest.eq_ignore_ascii_case(domain))
            }
            None => name.eq_ignore_ascii_case(host),
        }
    }

    /// Whether the extended key usages allow this purpose. A certificate without extended key usages allows every purpose.
    pub(crate) fn is_for(&self, purpose: Purpose) -> bool {
        let Some(usages) = self.extension(EXTENDED_KEY_USAGE) else {
            return true;
        };
        // id-kp-serverAuth and id-kp-clientAuth.
        let wanted: &[u8] = match purpose {
            Purpose::Server => &[0x2b, 6, 1, 5, 5, 7, 3, 1],
            Purpose::Client => &[0x2b, 6, 1, 5, 5, 7, 3, 2],
        };
        let mut usages = elements(usages);
        usages.any(|usage| usage.value() == wanted || usage.value() == ANY_USAGE)
    }

    /// The common name. If the certificate has several common names, returns the final common name, as OpenSSL does.
    fn common_name(&self) -> Option<&'c str> {
        let attributes = elements(self.subject).flat_map(|set| elements_of(set.value()));
        let named = attributes.filter_map(|attribute| {
            let mut parts = elements_of(attribute.value());
            let is_name = parts.next()?.value() == COMMON_NAME;
            is_name.then(|| parts.next()).flatten()
        });
        let name = named.last()?;
        // Host names are ASCII. All string types except BMPString and UniversalString encode ASCII as UTF-8 does.
        std::str::from_utf8(name.value()).ok()
    }

    /// The value of the extension with this object identifier.
    fn extension(&self, id: &[u8]) -> Option<&'c [u8]> {
        elements(self.extensions?)
            .find_map(|extension| {
                let mut parts = elements_of(extension.value());
                let is_wanted = parts.next()?.value() == id;
                // An extension has an identifier, sometimes the flag `critical`, and the value. So the value is the final
                // element.
                is_wanted.then(|| parts.last()).flatten()
            })
            .map(|value| value.value())
    }
}

/// Returns a reader of an element's contents. Returns none if the element does not have this tag.
fn contents(element: &[u8], tag: Tag) -> Option<SliceReader<'_>> {
    let element = AnyRef::from_der(element).ok()?;
    (element.tag() == tag).then(|| SliceReader::new(element.value()).ok())?
}

/// The elements of a sequence, up to the first element that cannot be read. `sequence` begins with the tag and the length.
fn elements(sequence: &[u8]) -> impl Iterator<Item = AnyRef<'_>> {
    let inside = AnyRef::from_der(sequence).map(|element| element.value());
    elements_of(inside.unwrap_or_default())
}

/// The elements of a sequence, up to the first element that cannot be read. `inside` has no tag and no length.
fn elements_of(inside: &[u8]) -> impl Iterator<Item = AnyRef<'_>> {
    let mut reader = SliceReader::new(inside).ok();
    std::iter::from_fn(move || {
        let reader = reader.as_mut().filter(|reader| !reader.is_finished())?;
        reader.decode::<AnyRef<'_>>().ok()
    })
}

fn context(number: u8) -> Tag {
    Tag::ContextSpecific {
        constructed: true,
        number: TagNumber::new(number),
    }
}

/// Reads a time. A time before 1970 counts as the start of 1970.
fn moment(element: &[u8]) -> Option<SystemTime> {
    let element_tag = AnyRef::from_der(element).ok()?;
    let since_1970 = match element_tag.tag() {
        Tag::UtcTime => match UtcTime::from_der(element) {
            Ok(time) => time.to_unix_duration(),
            Err(_) => before_1970(element_tag.value())?,
        },
        Tag::GeneralizedTime => match GeneralizedTime::from_der(element) {
            Ok(time) => time.to_unix_duration(),
            Err(_) => before_1970(element_tag.value())?,
        },
        _ => return None,
    };
    SystemTime::UNIX_EPOCH.checked_add(since_1970)
}

/// Returns zero for a valid time before 1970, because `der` cannot read such a time. Returns none for any other text.
fn before_1970(digits: &[u8]) -> Option<Duration> {
    let (zulu, digits) = digits.split_last()?;
    let is_time = *zulu == b'Z' && digits.iter().all(u8::is_ascii_digit);
    let is_early = match digits.len() {
        // UTCTime has only two digits for the year. The digits 50 to 99 mean the years 1950 to 1999.
        12 => (b"50".as_slice()..b"70").contains(&&digits[..2]),
        14 => digits[..4] < *b"1970".as_slice(),
        _ => false,
    };
    (is_time && is_early).then_some(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
    use tokio_rustls::rustls::pki_types::CertificateDer;

    use super::{Certificate, Purpose};

    fn days(days: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400)
    }

    fn made(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    fn called(name: &str) -> CertificateDer<'static> {
        made(|params| {
            let names = &mut params.distinguished_name;
            names.push(DnType::CommonName, name);
        })
    }

    #[test]
    fn dates_before_and_after_2050_are_read_and_dates_before_1970_count_as_1970() {
        let of_years = |from, to| {
            let der = made(|params| {
                params.not_before = rcgen::date_time_ymd(from, 1, 1);
                params.not_after = rcgen::date_time_ymd(to, 1, 1);
            });
            let read = Certificate::read(&der).unwrap();
            (read.not_before, read.not_after)
        };
        assert_eq!(of_years(1971, 1999), (days(365), days(10_592)));
        assert_eq!(of_years(2049, 2050), (days(28_855), days(29_220)));
        assert_eq!(of_years(1960, 9999).0, SystemTime::UNIX_EPOCH);
        assert_eq!(of_years(1960, 1965).1, SystemTime::UNIX_EPOCH);
        assert!(of_years(1960, 9999).1 > days(2_000_000));
    }

    #[test]
    fn a_common_name_matches_its_host_and_alternative_names_are_found() {
        let common = called("Web.example");
        let read = Certificate::read(&common).unwrap();
        assert_eq!(read.version, 3);
        assert!(!read.has_alternative_names());
        assert!(read.is_commonly_named("web.EXAMPLE"));
        assert!(!read.is_commonly_named("xweb.example") && !read.is_commonly_named(""));
        let all = called("*.example");
        let read = Certificate::read(&all).unwrap();
        assert!(read.is_commonly_named("web.example"));
        assert!(!read.is_commonly_named("a.web.example") && !read.is_commonly_named("example"));
        let names = vec!["web.example".to_owned()];
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names).unwrap();
        let alternative = params.self_signed(&key).unwrap();
        assert!(
            Certificate::read(alternative.der())
                .unwrap()
                .has_alternative_names()
        );
    }

    #[test]
    fn extended_key_usages_limit_the_purpose_and_no_usages_allow_all() {
        use rcgen::ExtendedKeyUsagePurpose::{Any, ClientAuth, ServerAuth};
        for (usages, server, client) in [
            (vec![], true, true),
            (vec![ServerAuth], true, false),
            (vec![ClientAuth], false, true),
            (vec![ClientAuth, ServerAuth], true, true),
            (vec![Any], true, true),
        ] {
            let der = made(|params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.extended_key_usages.clone_from(&usages);
            });
            let read = Certificate::read(&der).unwrap();
            assert_eq!(read.is_for(Purpose::Server), server, "{usages:?}");
            assert_eq!(read.is_for(Purpose::Client), client, "{usages:?}");
        }
    }

    #[test]
    fn fuzz_certificates() {
        let der = called("localhost");
        let seeds: [&[u8]; 1] = [&der];
        crate::fuzzing::run("certificate", &seeds, |bytes| {
            let der = CertificateDer::from(bytes);
            if let Some(read) = Certificate::read(&der) {
                let _ = read.is_commonly_named("localhost");
                let _ = read.is_for(Purpose::Server) && read.has_alternative_names();
            }
        });
    }
}
