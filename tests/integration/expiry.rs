//! Tests of the expiry of the agent's certificate: where the agent publishes it and when it warns.

use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serial_test::parallel;

use crate::support::prometheus::get;
use crate::support::{Agent, Authority, DEADLINE, KEY, MadeByOpenssl, OpenSsl, wait};

/// Makes a certificate for localhost that is valid from `from` to `until` and can sign other certificates.
pub(crate) fn dated(made: &MadeByOpenssl, name: &str, from: SystemTime, until: SystemTime) {
    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    let mut params = CertificateParams::new(names).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (from.into(), until.into());
    let key = KeyPair::generate().unwrap();
    made.write(&format!("{name}.key"), key.serialize_pem());
    made.write(
        &format!("{name}.pem"),
        params.self_signed(&key).unwrap().pem(),
    );
}

#[test]
#[parallel]
fn the_expiry_of_the_certificate_is_published_and_warned_of() {
    let made = MadeByOpenssl::new();
    let second = |moment: SystemTime| {
        let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
    };
    let now = second(SystemTime::now());
    let days = |days: u64| Duration::from_secs(days * 86_400);
    for (name, from, until, warning, verdict) in [
        ("good", now - days(1), now + days(15), None, "PASS"),
        (
            "soon",
            now - days(1),
            now + days(13),
            Some("expires in 12 days"),
            "PASS",
        ),
        (
            "expired",
            now - days(9),
            now - days(1),
            Some("has expired"),
            "FAIL",
        ),
        (
            "early",
            now + days(1),
            now + days(99),
            Some("not valid yet"),
            "FAIL",
        ),
    ] {
        dated(&made, name, from, until);
        let launch = made.launch(&format!("{name}.pem"), &format!("{name}.key"));
        let agent = launch.clone().var("PUBLISH_INTERVAL", "200ms").start();
        let warnings = agent.events_with("variable", "TLS_CERT_FILE");
        match warning {
            None => assert!(warnings.is_empty(), "{name}: {warnings:?}"),
            Some(words) => {
                assert_eq!(warnings.len(), 1, "{name}: {warnings:?}");
                assert_eq!(warnings[0].level(), "WARN");
                assert!(
                    warnings[0].message().contains(words),
                    "{name}: {warnings:?}"
                );
            }
        }
        let mut client = OpenSsl::connect(agent.address(), &[] as &[&str]);
        client.send(format!("{KEY}\n"));
        let shown = client.snapshot()["agent"]["certificate_expires_at"].clone();
        assert_eq!(
            shown,
            humantime::format_rfc3339_millis(until).to_string(),
            "{name}"
        );
        let checked = launch.args(["check"]).run();
        let line = checked
            .stdout
            .iter()
            .find(|line| line.contains("TLS files"));
        let line = line.unwrap_or_else(|| panic!("{checked:?}"));
        assert!(line.starts_with(verdict), "{name}: {line}");
        assert!(
            line.contains(&humantime::format_rfc3339_seconds(until).to_string()),
            "{name}: {line}"
        );
    }
}

#[test]
#[parallel]
fn a_reload_changes_the_expiry_and_without_tls_there_is_none() {
    let made = MadeByOpenssl::new();
    let now = SystemTime::now();
    let days = |days: u64| Duration::from_secs(days * 86_400);
    dated(&made, "agent", now - days(9), now + days(3));
    let launch = made
        .launch("agent.pem", "agent.key")
        .var("PUBLISH_INTERVAL", "200ms");
    let agent = launch.var("METRICS_PORT", "0").start();
    let mut client = OpenSsl::connect(agent.address(), &[] as &[&str]);
    client.send(format!("{KEY}\n"));
    let before = client.snapshot()["agent"]["certificate_expires_at"].clone();
    dated(&made, "new", now - days(9), now + days(5));
    made.write("agent.key", made.read("new.key"));
    made.write("agent.pem", made.read("new.pem"));
    agent.signal(Signal::SIGHUP);
    let renewed = agent.event("the certificate expires in 4 days: renew it");
    assert_eq!(renewed.text("variable"), "TLS_CERT_FILE");
    let after = wait::until("the new expiry", DEADLINE, || {
        let after = client.snapshot()["agent"]["certificate_expires_at"].clone();
        (after != before).then_some(after)
    });
    assert!(after.as_str() > before.as_str(), "{before} {after}");

    let agent = Agent::start(&[("METRICS_PORT", "0")]);
    let metrics = agent
        .event("metrics at /metrics")
        .text("address")
        .parse()
        .unwrap();
    let snapshot = agent.login().snapshot();
    assert_eq!(snapshot["agent"].get("certificate_expires_at"), None);
    let figures = get(metrics, "/metrics", &[]).body;
    assert!(!figures.contains("certificate_not_after"), "{figures}");
}

#[test]
#[parallel]
fn the_earliest_expiry_in_a_chain_counts() {
    let authority = Authority::new();
    let identity = authority.issue("agent");
    let made = MadeByOpenssl::new();
    let now = SystemTime::now();
    dated(
        &made,
        "short",
        now - Duration::from_secs(60),
        now + Duration::from_secs(86_400 * 2),
    );
    let chain = [
        std::fs::read(&identity.certificate).unwrap(),
        made.read("short.pem"),
    ]
    .concat();
    made.write("chain.pem", chain);
    let agent = identity
        .launch()
        .var("TLS_CERT_FILE", made.path("chain.pem"))
        .start();
    let warnings = agent.events_with("variable", "TLS_CERT_FILE");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0].number("certificate"), 2);
    assert!(
        warnings[0].message().contains("expires in 1 day:"),
        "{warnings:?}"
    );
}
