//! A peer that sends lines, stops in the middle of one, is not there, or goes away.

use std::io::{Read as _, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream as Peer};
use std::sync::mpsc::{SyncSender, sync_channel};

use arrow_schema::DataType;
use model::diagnostic::Retry;
use platform::network::runtime;
use platform::spawn_thread;
use tokio::net::TcpSocket;

use super::*;
use crate::test_support::{Given, World, connection, error_of, schema, text_schema, texts, with_format};

const HERE: &str = "127.0.0.1";

fn socket(port: u16, retry: &str) -> Connection {
    connection("socket", &[("host", HERE), ("port", &port.to_string()), ("retry", retry)])
}

fn lines_from(port: u16, retry: &str) -> SocketFactory {
    SocketFactory::of(&socket(port, retry), &text_schema()).unwrap()
}

/// A listener whose one peer does this; and its port.
fn peer(serve: impl FnOnce(Peer) + Send + 'static) -> u16 {
    let listener = TcpListener::bind((HERE, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    spawn_thread("peer", move || serve(listener.accept().unwrap().0));
    port
}

/// A port that is taken, and on which nobody listens.
fn silent_port() -> (u16, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    (socket.local_addr().unwrap().port(), socket)
}

fn read(port: u16) -> Given {
    World::system().read(&lines_from(port, "1"), 1).unwrap()
}

#[test]
fn lines_come_in_order_until_the_peer_closes() {
    let lines: Vec<String> = (0..50_000).map(|i| format!("line {i}")).collect();
    let text = lines.join("\n") + "\n";
    let bytes = text.len() as u64;
    let given = read(peer(move |mut peer| peer.write_all(text.as_bytes()).unwrap()));
    assert_eq!(given.texts(), lines);
    assert_eq!((given.failures, given.bytes_read), (Vec::new(), bytes));
}

#[test]
fn a_line_in_whose_middle_the_peer_closes_is_the_last() {
    assert_eq!(read(peer(|mut peer| peer.write_all(b"one\r\ntw").unwrap())).texts(), ["one", "tw"]);
    assert_eq!(read(peer(drop)).texts(), Vec::<String>::new());
}

/// Serves one text for each thing that is sent.
fn told_peer() -> (u16, SyncSender<&'static str>) {
    let (tell, told) = sync_channel::<&'static str>(10);
    let port = peer(move |mut peer| told.iter().for_each(|text| peer.write_all(text.as_bytes()).unwrap()));
    (port, tell)
}

/// Polls until rows come.
fn next_rows(world: &mut World, source: &mut dyn Source) -> Vec<String> {
    loop {
        match source.poll().unwrap() {
            SourcePoll::Rows(decoded) => return texts(&decoded.batch),
            SourcePoll::Pending => drop(world.wait()),
            SourcePoll::End => return Vec::new(),
        }
    }
}

#[test]
fn a_line_comes_before_the_next_is_there() {
    let (port, tell) = told_peer();
    let mut world = World::system();
    let mut source = lines_from(port, "1").open(world.context(0, 1)).unwrap();
    tell.send("\u{FEFF}one\ntw").unwrap();
    assert_eq!(next_rows(&mut world, source.as_mut()), ["one"]);
    assert!(matches!(source.poll(), Ok(SourcePoll::Pending)));
    tell.send("o\n").unwrap();
    assert_eq!(next_rows(&mut world, source.as_mut()), ["two"]);
    drop(tell);
    assert_eq!(next_rows(&mut world, source.as_mut()), Vec::<String>::new());
}

#[test]
fn bad_records_name_the_socket_and_the_line() {
    let port = peer(|mut peer| peer.write_all(b"{\"n\":1}\nx\n{\"n\":2}\n").unwrap());
    let json = with_format(socket(port, "1"), "json", &[]);
    let factory = SocketFactory::of(&json, &schema(&[("n", DataType::Int64, false)])).unwrap();
    let given = World::system().read(&factory, 1).unwrap();
    assert_eq!(given.batches.iter().map(|(_, batch)| batch.num_rows()).sum::<usize>(), 2);
    assert_eq!(given.failures.len(), 1);
    assert_eq!(given.failures[0].place, format!("{HERE}:{port}, line 2"));
}

#[test]
fn a_refused_connection_is_told_after_the_time_of_retry() {
    let (port, _silent) = silent_port();
    let mut world = World::system();
    let error = error_of(world.read(&lines_from(port, "1"), 1));
    assert_eq!(error.message, format!("cannot connect to `{HERE}:{port}`"));
    let detail = error.detail.unwrap();
    assert!(detail.contains("refused") && detail.ends_with("; tried for 1 s"), "{detail}");
    assert_eq!(error.hint.as_deref(), Some("is something listening there? `nc -lk PORT` does, for a try"));
    assert_eq!(error.retry, Retry::Backoff);
    let took = world.platform.clock.now();
    assert!(Duration::from_millis(500) < took && took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn without_retry_a_refused_connection_is_told_at_once() {
    let (port, _silent) = silent_port();
    let mut world = World::system();
    error_of(world.read(&lines_from(port, "0"), 1));
    assert!(world.platform.clock.now() < Duration::from_secs(1));
}

#[test]
fn a_peer_that_comes_late_is_waited_for() {
    let (port, socket) = silent_port();
    let mut world = World::system();
    let clock = world.platform.clock.clone();
    let late = spawn_thread("late peer", move || {
        clock.sleep(Duration::from_millis(400));
        let _inside = runtime().enter();
        let listener = socket.listen(1).unwrap().into_std().unwrap();
        listener.set_nonblocking(false).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"late\n").unwrap();
    });
    assert_eq!(world.read(&lines_from(port, "20"), 1).unwrap().texts(), ["late"]);
    late.join().unwrap();
}

#[test]
fn a_connection_that_breaks_fails_after_what_came() {
    let (tell, told) = sync_channel::<()>(1);
    let port = peer(move |mut peer| {
        peer.write_all(b"one\n").unwrap();
        told.recv().unwrap();
        peer.set_nonblocking(true).unwrap();
        let _inside = runtime().enter();
        TcpStream::from_std(peer).unwrap().set_zero_linger().unwrap();
    });
    let mut world = World::system();
    let mut source = lines_from(port, "1").open(world.context(0, 1)).unwrap();
    assert_eq!(next_rows(&mut world, source.as_mut()), ["one"]);
    tell.send(()).unwrap();
    let error = loop {
        match source.poll() {
            Ok(SourcePoll::Pending) => drop(world.wait()),
            Ok(_) => panic!("the connection did not break"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.message, format!("lost the connection to `{HERE}:{port}`"));
}

#[test]
fn a_dropped_source_hangs_up() {
    let (tell, told) = sync_channel::<usize>(1);
    let port = peer(move |mut peer| {
        peer.write_all(b"one\n").unwrap();
        tell.send(peer.read(&mut [0]).unwrap_or(0)).unwrap();
        peer.shutdown(Shutdown::Both).unwrap_or_default();
    });
    let mut world = World::system();
    let mut source = lines_from(port, "1").open(world.context(0, 1)).unwrap();
    assert_eq!(next_rows(&mut world, source.as_mut()), ["one"]);
    drop(source);
    assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok(0));
}

#[test]
fn a_socket_has_one_subtask_and_no_end() {
    let factory = lines_from(7, "1");
    assert_eq!((factory.parallelism_max(), factory.bounded()), (Some(1), false));
    assert_eq!(factory.needs(), [Need::Connect { host: HERE.to_owned(), port: "7".to_owned() }]);
}

#[test]
fn host_and_port_are_needed() {
    for (options, name) in [(&[("port", "1")], "host"), (&[("host", HERE)], "port")] {
        let error = error_of(SocketFactory::of(&connection("socket", options), &text_schema()));
        assert_eq!(error.message, format!("`socket` needs the option `{name}`"));
    }
}
