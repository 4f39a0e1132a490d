//! TLS of the page's server.

use std::fs;
use std::process::Command;

use serde_json::Value;
use serial_test::parallel;

use super::browser::PageServer;
use crate::support::{Authority, DEADLINE, Identity, Launch, OpenSsl, wait};

fn server(identity: &Identity) -> PageServer {
    let launch = Launch::new()
        .args(["web"])
        .var("WEB_TLS_CERT_FILE", &identity.certificate)
        .var("WEB_TLS_KEY_FILE", &identity.key);
    PageServer::launch(launch)
}

/// Connects with TLS, and returns the lines of the answer and the common name of the certificate.
fn ask(server: &PageServer, authority: &Authority) -> (String, String) {
    let options = ["-CAfile".as_ref(), authority.certificate.as_os_str()];
    let mut client = OpenSsl::connect(server.address, &options);
    let request = format!(
        "GET /api/v1/session HTTP/1.0\r\nHost: {}\r\n\r\n",
        server.address
    );
    client.send(request);
    let mut answer = String::new();
    while let Some(line) = client.line() {
        answer += &line;
        if line.contains("\"version\"") {
            break;
        }
    }
    let name = client.says("Peer certificate: CN");
    (answer, name)
}

#[test]
#[parallel]
fn a_new_certificate_is_used_without_a_restart() {
    let authority = Authority::new();
    let identity = authority.issue("first");
    let server = server(&identity);
    let (answer, name) = ask(&server, &authority);
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert!(answer.contains("strict-transport-security"), "{answer}");
    assert!(name.ends_with("first"), "{name}");

    let renewed = authority.issue("second");
    fs::copy(&renewed.key, &identity.key).unwrap();
    fs::copy(&renewed.certificate, &identity.certificate).unwrap();
    server.process.event("certificate of the page reloaded");
    let (_, name) = ask(&server, &authority);
    assert!(name.ends_with("second"), "{name}");

    // A file that cannot be used changes nothing.
    fs::write(&identity.certificate, "no certificate").unwrap();
    let kept = "certificate of the page not reloaded: the previous certificate stays in use";
    server.process.event(kept);
    let (_, name) = ask(&server, &authority);
    assert!(name.ends_with("second"), "{name}");
}

#[test]
#[parallel]
fn a_browser_that_does_not_finish_its_handshake_delays_nobody() {
    let authority = Authority::new();
    let server = server(&authority.issue("server"));
    let silent: Vec<_> = (0..50)
        .map(|_| std::net::TcpStream::connect(server.address).unwrap())
        .collect();
    let (answer, _) = ask(&server, &authority);
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    wait::until("the end of silent connections", DEADLINE, || {
        let mut closed = silent.iter().map(|mut stream| {
            stream.set_nonblocking(true).unwrap();
            matches!(std::io::Read::read(&mut stream, &mut [0]), Ok(0))
        });
        closed.all(|closed| closed).then_some(())
    });
}

/// A client with HTTP/2: the address, the file of the authority. Prints the protocol, the status and the body.
const HTTP_2: &str = r#"
const session = require("http2").connect(process.argv[1], {
    ca: require("fs").readFileSync(process.argv[2]),
    checkServerIdentity: () => undefined,
});
session.on("error", (error) => { console.error(error); process.exit(1); });
const request = session.request({ ":path": "/api/v1/session" });
let body = "";
request.on("response", (head) => console.log(session.socket.alpnProtocol, head[":status"]));
request.setEncoding("utf8").on("data", (part) => (body += part));
request.on("end", () => { console.log(body); session.close(); });
"#;

#[test]
#[parallel]
fn a_browser_can_use_http_2() {
    let authority = Authority::new();
    let server = server(&authority.issue("page"));
    let url = format!("https://{}", server.address);
    let client = Command::new("node")
        .args(["-e", HTTP_2, "--", &url])
        .arg(&authority.certificate)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&client.stdout).into_owned();
    let (head, body) = printed
        .split_once('\n')
        .unwrap_or_else(|| panic!("{client:?}"));
    assert_eq!(head, "h2 200");
    let session: Value = serde_json::from_str(body).unwrap();
    assert_eq!(session["login"], false);
}
