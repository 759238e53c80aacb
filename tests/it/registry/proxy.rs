//! A source that only a proxy can reach.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::*;

/// Answers `CONNECT` with a tunnel, or with 407 when it is not `open`. Gives its address and what it was asked for.
fn proxy(open: bool) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&asked);
    // It ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, log) = (stream.unwrap(), Arc::clone(&log));
            std::thread::spawn(move || tunnel(stream, open, &log));
        }
    });
    (address, asked)
}

fn tunnel(mut client: TcpStream, open: bool, log: &Mutex<Vec<String>>) -> Option<()> {
    let mut lines = BufReader::new(client.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    while !lines.next()?.ok()?.is_empty() {}
    let host = first.split(' ').nth(1)?.to_owned();
    log.lock().unwrap().push(host.clone());
    if !open {
        return client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n").ok();
    }
    let mut server = TcpStream::connect(host).ok()?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    let (mut back, mut to) = (server.try_clone().ok()?, client.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ended = std::io::copy(&mut back, &mut to);
        let _gone = to.shutdown(std::net::Shutdown::Both);
    });
    let _ended = std::io::copy(&mut client, &mut server);
    server.shutdown(std::net::Shutdown::Both).ok()
}

#[test]
fn the_source_is_read_through_the_proxy_and_the_mirror_is_not() {
    let world = World::new(&Recipe { more: &[], ..Recipe::default() });
    let to = format!("localhost:{}", world.mirror.port);
    world.write_auth(&to, world.mirror.auth());
    let mirror = |proxy: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_bartizan"))
            .arg("--state")
            .arg(world.dir.path())
            .args([
                "mirror",
                "--json",
                "--release",
                &world.release.pull_spec,
                "--to",
                &format!("{to}/ocp"),
                "--authfile",
            ])
            .arg(world.authfile())
            .arg("--source-ca")
            .arg(world.source.ca_file())
            .arg("--mirror-ca")
            .arg(world.mirror.ca_file())
            .envs([("HTTPS_PROXY", proxy), ("NO_PROXY", "localhost")])
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (closed, _) = proxy(false);
    let (exit, text) = mirror(&closed);
    assert_eq!(exit, Some(9), "{text}");
    assert!(text.contains(r#""side":"source","class":"proxy""#), "{text}");

    let (open, asked) = proxy(true);
    let (exit, text) = mirror(&open);
    assert_eq!(exit, Some(0), "{text}");
    let asked = asked.lock().unwrap();
    assert!(!asked.is_empty() && asked.iter().all(|host| *host == world.source.host()), "{asked:?}");
}
