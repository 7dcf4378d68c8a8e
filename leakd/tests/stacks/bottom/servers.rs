//! Servers, and clients that keep them at work.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::programs::{system_program, wait_for};
use super::{Scene, Work};
use crate::support::process::Process;

/// A connection, once the server listens.
fn connect(socket: &PathBuf) -> UnixStream {
    let mut stream = None;
    wait_for("the server to listen", || {
        stream = UnixStream::connect(socket).ok();
        stream.is_some()
    });
    stream.expect("it has been connected to")
}

pub fn redis() -> Scene {
    let folder = tempfile::tempdir().expect("cannot make a folder");
    let socket = folder.path().join("socket");
    let mut command = Command::new(system_program("redis-server", "redis-server"));
    command.args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
    command.arg("--unixsocket").arg(&socket).arg("--dir").arg(folder.path());
    command.stderr(Stdio::null());
    let process = Process::start(command);
    let mut stream = BufReader::new(connect(&socket));
    let requests = move || {
        let mut ask = |words: &[&str]| {
            let mut request = format!("*{}\r\n", words.len());
            for word in words {
                request += &format!("${}\r\n{word}\r\n", word.len());
            }
            stream.get_mut().write_all(request.as_bytes()).expect("redis reads");
            let mut reply = String::new();
            stream.read_line(&mut reply).expect("redis answers");
            assert!(!reply.starts_with('-') && !reply.is_empty(), "{words:?}: {reply:?}");
        };
        let value = "v".repeat(3000);
        for number in 0..3000 {
            let (key, field) = (format!("k{number}"), format!("f{}", number % 50));
            ask(&["SET", &key, &value]);
            ask(&["HSET", "hash", &field, &value]);
            ask(&["ZADD", "set", &number.to_string(), &key]);
            ask(&["LPUSH", &field, &key]);
            ask(&["EVAL", "return redis.call('append', KEYS[1], ARGV[1])", "1", &key, &field]);
        }
    };
    let pid = process.pid();
    Scene { process, pid, work: Work::Requests(Box::new(requests)), _folder: Some(folder) }
}

pub fn nginx() -> Scene {
    let folder = tempfile::tempdir().expect("cannot make a folder");
    let at = |name: &str| folder.path().join(name);
    let path = folder.path().display();
    let configuration = format!(
        "worker_processes 1; daemon off; user root; pid {path}/pid; error_log {path}/error.log;
        events {{ worker_connections 128; }}
        http {{
            access_log {path}/access.log; gzip on; gzip_http_version 1.0;
            gzip_types *;
            client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;
            fastcgi_temp_path {path}/fastcgi; uwsgi_temp_path {path}/uwsgi;
            scgi_temp_path {path}/scgi;
            server {{
                listen unix:{path}/socket; root {path};
                location /proxied/ {{ proxy_pass http://unix:{path}/socket:/; }}
            }}
        }}"
    );
    std::fs::write(at("nginx.conf"), configuration).expect("cannot write");
    std::fs::write(at("page"), "some text. ".repeat(9000)).expect("cannot write");
    let mut command = Command::new(system_program("nginx", "nginx-light"));
    command.arg("-p").arg(folder.path()).arg("-c").arg(at("nginx.conf"));
    command.arg("-e").arg(at("error.log")).stderr(Stdio::null());
    // Every larger block is fresh memory, else hardly any page is ever new.
    command.env("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=8192:glibc.malloc.mmap_max=10000");
    let process = Process::start(command);
    let socket = at("socket");
    drop(connect(&socket));
    let children = format!("/proc/{0}/task/{0}/children", process.pid());
    let mut pid = None;
    wait_for("nginx to start its worker", || {
        let children = std::fs::read_to_string(&children).unwrap_or_default();
        pid = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
        pid.is_some()
    });
    let requests = move || {
        for number in 0..1000 {
            let page = ["page", "proxied/page", "nothing"][number % 3];
            let mut stream = connect(&socket);
            let request = format!("GET /{page} HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n");
            stream.write_all(request.as_bytes()).expect("nginx reads");
            let mut reply = Vec::new();
            stream.read_to_end(&mut reply).expect("nginx answers");
            let wanted: &[u8] = if page == "nothing" { b" 404 " } else { b" 200 " };
            let status = reply.get(8..13).unwrap_or_default();
            assert_eq!(status, wanted, "{}", String::from_utf8_lossy(&reply));
        }
    };
    let pid = pid.expect("it has been seen");
    Scene { process, pid, work: Work::Requests(Box::new(requests)), _folder: Some(folder) }
}
