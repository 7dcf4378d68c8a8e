//! What a kernel does all day: processes, files, pipes, sockets.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;

/// Does a bit of everything, and gives everything back.
pub fn turn(directory: &std::path::Path, number: u64) {
    let path = directory.join(format!("file-{number}"));
    fs::write(&path, vec![number as u8; 20_000]).expect("room for a file");
    assert_eq!(fs::read(&path).expect("our own file").len(), 20_000);
    fs::remove_file(&path).expect("our own file");
    let below = directory.join(format!("directory-{number}"));
    fs::create_dir(&below).expect("room for a directory");
    fs::remove_dir(&below).expect("our own directory");

    let (mut one, mut other) = UnixStream::pair().expect("sockets");
    exchange(&mut one, &mut other);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("a port");
    let mut one = TcpStream::connect(address).expect("a listener");
    let (mut other, _) = listener.accept().expect("a connection");
    exchange(&mut one, &mut other);
    // Or the kernel remembers the connection for a minute.
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&one, nix::sys::socket::sockopt::Linger, &linger)
        .expect("a socket");
    drop(one);

    if number.is_multiple_of(8) {
        let status = Command::new("/bin/true").status().expect("a process");
        assert!(status.success());
    }
}

fn exchange(one: &mut (impl Read + Write), other: &mut (impl Read + Write)) {
    let mut bytes = [7; 3000];
    for _ in 0..4 {
        one.write_all(&bytes).expect("the other reads");
        other.read_exact(&mut bytes).expect("the other writes");
        other.write_all(&bytes).expect("the other reads");
        one.read_exact(&mut bytes).expect("the other writes");
    }
}
