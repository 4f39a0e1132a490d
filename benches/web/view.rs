//! The bytes of the first view: the files of the page, and the first answers of the API.

use crate::browser;
use crate::queries::{self, HOST_SERIES};
use crate::server::Server;

/// Measures the table of hosts and the view of one host.
pub(crate) fn measure(server: &Server) {
    let address = server.address;
    let length = |path: &str| {
        let answer = browser::get(address, path, true);
        (path.to_owned(), answer.body.len(), answer.head)
    };
    let index = browser::get(address, "/", false);
    let index = String::from_utf8(index.body).unwrap();
    let linked = index
        .split(['"', '\''])
        .filter(|text| text.starts_with('/'));
    let mut files = vec![length("/")];
    files.extend(linked.map(length));
    let host = &server.hosts[0];
    let of_host = [
        length(&queries::path(host, HOST_SERIES, 3600)),
        length(&format!("/api/v1/hosts/{host}/events")),
    ];
    let table = browser::first_events(address, "/api/v1/stream", &["hosts"]);
    let one = browser::first_events(
        address,
        &format!("/api/v1/stream?host={host}"),
        &["host", "hosts"],
    );
    println!("\n## Bytes of the first view\n\n| | bytes | encoding |\n|---|--:|---|");
    for (path, length, head) in files.iter().chain(&of_host) {
        let head = head.to_ascii_lowercase();
        let encoding = match head.contains("content-encoding: gzip") {
            true => "gzip",
            false => "none",
        };
        let path = path.split('?').next().unwrap_or_default();
        let path = path.replace(host, "{host}");
        println!("| `{path}` | {length} | {encoding} |");
    }
    println!("| `/api/v1/stream`: the first table of hosts | {table} | gzip |");
    println!(
        "| `/api/v1/stream?host={{host}}`: the same, and the first state of the host | {one} | gzip |"
    );
    let sum =
        |list: &[(String, usize, String)]| list.iter().map(|(_, length, _)| length).sum::<usize>();
    let table_view = sum(&files) + table;
    let host_view = sum(&files) + sum(&of_host) + one;
    println!(
        "| **first view: the table of {} hosts** | {table_view} | |",
        server.hosts.len()
    );
    println!("| **first view: one host** | {host_view} | |");
}
