//! Rows from a socket.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use crate::support::{Folder, Ran, component};

#[test]
fn lines_of_a_socket_are_counted_as_they_come_until_it_closes() {
    let folder = Folder::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let wc = component("word_count");
    let mut child =
        folder.start(&["run", "-c", "word_count", "-p", "3", &wc, "--host", "127.0.0.1", "--port", &port]);
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(b"to be\n").unwrap();
    // The rows of a line come without waiting for the next.
    let mut seen = [0; 16];
    child.stdout.as_mut().unwrap().read_exact(&mut seen).unwrap();
    peer.write_all(b"or not to be").unwrap();
    drop(peer);
    let ran = Ran::of(child.wait_with_output().unwrap());
    let rows = Ran { out: format!("{}{}", String::from_utf8_lossy(&seen), ran.succeeds().out), ..ran }.rows();
    assert_eq!(rows, ["(be,1)", "(be,2)", "(not,1)", "(or,1)", "(to,1)", "(to,2)"]);
}

/// Counts the words of two lines that come with a pause, with these faults.
fn counted(faults: &str) -> Ran {
    let folder = Folder::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut command = folder.command();
    command.args(["run", "-p", "2", &component("word_count"), "--host", "127.0.0.1", "--port", &port]);
    command.env("MILLSTREAM_FAULTS", faults).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let peer = platform::spawn_thread("peer", move || {
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"to be\n").unwrap();
        platform::Clock::system().sleep(Duration::from_millis(50));
        // Who fails has gone.
        drop(peer.write_all(b"or not to be"));
    });
    let ran = Ran::of(child.wait_with_output().unwrap());
    peer.join().unwrap();
    ran
}

#[test]
fn a_network_that_fails_is_tried_again_until_it_is_connected_and_then_fails_the_job() {
    let all = ["(be,1)", "(be,2)", "(not,1)", "(or,1)", "(to,1)", "(to,2)"];
    for faults in ["network.connect@1=eio", "network.connect=stall:300,network.read@2=stall:300"] {
        assert_eq!(counted(faults).succeeds().rows(), all, "{faults}");
    }
    counted("network.read@2=eio").fails(1, &["lost the connection", "(os error 5)"]);
    assert_eq!(counted("network.read@2=kill").code, -1);
}

#[test]
fn a_refused_connection_is_tried_for_a_while() {
    let folder = Folder::new();
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port().to_string()
    };
    let run = folder.streamctl(&["run", &component("word_count"), "--host", "127.0.0.1", "--port", &port]);
    run.fails(1, &[&format!("cannot connect to `127.0.0.1:{port}`"), "tried for 10 s", "hint: "]);
}
