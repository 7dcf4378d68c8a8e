//! Debian's own servers under load, with leaks planted from outside by
//! `swallow.so`. Where each leak is allocated is learnt beforehand from
//! `witness.so`, in a run of its own: neither knows leakd.

mod load;
mod swallow;

use crate::{
    host::scaled,
    support::{
        PATIENCE,
        invocation::Leakctl,
        probes::assert_nothing_left,
        process::Process,
        programs::{source_folder, system_program},
        wait_for,
        witness::{Witness, WitnessSite},
    },
};
use load::Load;
use nix::sys::signal::Signal;
use std::{
    io::{BufRead, BufReader, Read, Write},
    ops::RangeInclusive,
    os::unix::net::UnixStream,
    process::Command,
    time::Duration,
};
use swallow::Swallow;

/// Blocks to be swallowed under the eyes of leakctl: more than may be in use.
fn enough() -> u64 {
    scaled(400, 150)
}

/// One of so many frees is swallowed.
const EVERY: u32 = 3;

/// A server at work.
struct Scene {
    process: Process,
    /// The process that does the work: nginx's worker, else the server.
    pid: i32,
    load: Load,
    /// What ends it in a friendly way; none: the end of its stdin.
    stop: Option<Signal>,
    _folder: tempfile::TempDir,
}

/// Starts a server and its load; the command is handed out to be prepared.
type Start = fn(&mut dyn FnMut(&mut Command)) -> Scene;

/// What is planted, and what is known of it without leakd.
struct Plant {
    start: Start,
    /// Usable sizes of the blocks: of no other blocks of the program.
    usable: RangeInclusive<usize>,
    /// The size that is asked for.
    size: u64,
    /// The functions that allocate, innermost first; "" for a static one.
    functions: &'static [&'static str],
    /// How many such blocks may be in use at any time.
    in_use: u64,
}

impl Scene {
    fn stop(mut self) -> Process {
        self.load.stop();
        self.load.end_program();
        if let Some(signal) = self.stop {
            self.process.signal(signal);
        }
        let status = self.process.wait();
        assert!(status.success(), "the server ended with {status}: {}", self.process.stderr());
        self.process
    }
}

impl Plant {
    /// The one stack that allocates such blocks, by the witness, which also
    /// finds just the swallowed ones outstanding.
    fn truth(&self) -> WitnessSite {
        let (mut witness, mut swallow) = (None, None);
        let scene = (self.start)(&mut |command| {
            witness = Some(Witness::called_by(command, self.usable.clone()));
            swallow = Some(Swallow::planted_in(command, self.usable.clone(), EVERY));
        });
        let swallow = swallow.expect("start calls this");
        swallow.arm(true);
        wait_for("blocks to be swallowed", || (swallow.blocks() >= enough()).then_some(()));
        swallow.arm(false);
        let pid = scene.pid;
        scene.stop();
        let testimony = witness.expect("start calls this").testimony(pid);
        let mut sites: Vec<_> =
            testimony.sites.into_iter().filter(|site| site.stack.len() > 1).collect();
        assert_eq!(sites.len(), 1, "these sizes are not of one call site: {sites:#?}");
        let site = sites.remove(0);
        assert_eq!(site.allocated_bytes, site.allocated_blocks * self.size, "{site:#?}");
        let functions: Vec<_> = site.stack.iter().map(|frame| frame.function.as_str()).collect();
        assert_eq!(&functions[..self.functions.len()], self.functions, "{site:#?}");
        let swallowed = swallow.blocks();
        assert!(site.blocks.abs_diff(swallowed) <= self.in_use, "{swallowed} swallowed: {site:#?}");
        site
    }

    /// Checks that leakctl, attached under load, names the planted leak.
    fn assert_found(&self) {
        crate::support::require_machine();
        let truth = self.truth();
        let mut swallow = None;
        let mut scene = (self.start)(&mut |command| {
            swallow = Some(Swallow::planted_in(command, self.usable.clone(), EVERY));
        });
        let swallow = swallow.expect("start calls this");
        scene.load.wait_for_requests(100);
        let leakctl = Leakctl::attach(scene.pid, &["--min-age", "1s"]);
        swallow.arm(true);
        wait_for("blocks to be swallowed", || (swallow.blocks() >= enough()).then_some(()));
        swallow.arm(false);
        scene.load.wait_for_requests(scene.load.requests() + 100);
        scene.load.stop();
        // For what is left to become older than --min-age.
        std::thread::sleep(Duration::from_millis(1500));
        let report = leakctl.interrupt();
        let target = report.target(scene.pid);
        let site = target.sites().next().unwrap_or_else(|| panic!("no site: {:#}", target.0));
        truth.assert_same(site, scene.pid, self.functions.len());
        let (blocks, bytes) = site.outstanding();
        let swallowed = swallow.blocks();
        assert!(
            blocks.abs_diff(swallowed) <= self.in_use,
            "{swallowed} blocks were swallowed, {blocks} are reported: {}",
            site.0
        );
        assert_eq!(bytes, blocks * self.size, "{}", site.0);
        assert!(site.number("freed_blocks") > 0, "two of three were freed: {}", site.0);
        assert_nothing_left(scene.pid);
        scene.stop();
    }
}

/// Reads the reply to one request of a server that then closes.
fn http_get(socket: &std::path::Path) {
    let mut stream = UnixStream::connect(socket).expect("nginx listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("nginx reads");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("nginx answers");
    assert!(reply.contains(" 200 OK"), "{reply:?}");
}

fn nginx(prepare: &mut dyn FnMut(&mut Command)) -> Scene {
    let folder = tempfile::tempdir().expect("cannot make a folder");
    let at = |name: &str| folder.path().join(name);
    let path = folder.path().display();
    let configuration = format!(
        "worker_processes 1; daemon off; user root; pid {path}/pid; error_log {path}/error.log;
        events {{ worker_connections 128; }}
        http {{
            access_log off;
            client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;
            fastcgi_temp_path {path}/fastcgi; uwsgi_temp_path {path}/uwsgi;
            scgi_temp_path {path}/scgi;
            request_pool_size 12016;
            server {{ listen unix:{path}/socket; location / {{ return 200 \"hello\"; }} }}
        }}"
    );
    std::fs::write(at("nginx.conf"), configuration).expect("cannot write");
    let mut command = Command::new(system_program("nginx", "nginx-light"));
    command.arg("-p").arg(folder.path()).arg("-c").arg(at("nginx.conf"));
    command.arg("-e").arg(at("error.log"));
    prepare(&mut command);
    let process = Process::start(command);
    let socket = at("socket");
    let children = format!("/proc/{0}/task/{0}/children", process.pid());
    let pid = wait_for("nginx to start its worker", || {
        let children = std::fs::read_to_string(&children).unwrap_or_default();
        let worker = children.split_whitespace().next()?.parse().ok()?;
        UnixStream::connect(&socket).is_ok().then_some(worker)
    });
    let load = Load::start(2, move || {
        let socket = socket.clone();
        move |_| http_get(&socket)
    });
    Scene { process, pid, load, stop: Some(Signal::SIGQUIT), _folder: folder }
}

fn redis(prepare: &mut dyn FnMut(&mut Command)) -> Scene {
    let folder = tempfile::tempdir().expect("cannot make a folder");
    let socket = folder.path().join("socket");
    let mut command = Command::new(system_program("redis-server", "redis-server"));
    command.args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
    command.arg("--unixsocket").arg(&socket).arg("--dir").arg(folder.path());
    prepare(&mut command);
    let process = Process::start(command);
    let pid = process.pid();
    wait_for("redis to listen", || UnixStream::connect(&socket).ok());
    let load = Load::start(2, move || {
        let mut stream = BufReader::new(UnixStream::connect(&socket).expect("redis listens"));
        stream.get_ref().set_read_timeout(Some(PATIENCE)).expect("it is a socket");
        let value = "v".repeat(14_000);
        move |number| {
            let mut ask = |request: String| {
                stream.get_mut().write_all(request.as_bytes()).expect("redis reads");
                let mut reply = String::new();
                stream.read_line(&mut reply).expect("redis answers");
                assert!(!reply.starts_with('-') && !reply.is_empty(), "{reply:?}");
            };
            let key = number % 100;
            ask(format!("*3\r\n$3\r\nSET\r\n$6\r\nkey:{key:02}\r\n$14000\r\n{value}\r\n"));
            ask(format!(
                "*3\r\n$5\r\nLPUSH\r\n$6\r\nlst:{key:02}\r\n$5\r\n{:05}\r\n",
                number % 99999
            ));
            ask(format!("*2\r\n$4\r\nLLEN\r\n$6\r\nlst:{key:02}\r\n"));
            ask(format!("*2\r\n$3\r\nDEL\r\n$6\r\nlst:{key:02}\r\n"));
        }
    });
    Scene { process, pid, load, stop: Some(Signal::SIGTERM), _folder: folder }
}

fn python(prepare: &mut dyn FnMut(&mut Command)) -> Scene {
    let folder = tempfile::tempdir().expect("cannot make a folder");
    let mut command = Command::new(system_program("python3", "python3"));
    command.arg(source_folder().join("traffic.py"));
    command.env("PYTHONMALLOC", "malloc");
    prepare(&mut command);
    let mut process = Process::start(command);
    let pid = process.wait_ready();
    assert_eq!(pid, process.pid());
    let load = Load::of_the_program_itself(process.take_stdin());
    Scene { process, pid, load, stop: None, _folder: folder }
}

const NGINX: Plant = Plant {
    start: nginx,
    usable: 12016..=12040,
    size: 12016,
    functions: &["ngx_memalign", "ngx_create_pool", "", "ngx_http_create_request"],
    in_use: 4,
};

const REDIS: Plant = Plant {
    start: redis,
    usable: 14_336..=14_336,
    size: 14_006,
    functions: &["zmalloc_usable", "_sdsnewlen", "createStringObject", "processMultibulkBuffer"],
    in_use: 104,
};

const PYTHON: Plant = Plant {
    start: python,
    usable: 7033..=7064,
    size: 7033,
    functions: &["", "_PyEval_EvalFrameDefault", "PyEval_EvalCode"],
    in_use: 24,
};

/// Check, without leakctl, that what is swallowed in nginx are its request
/// pools and that nothing else is of their size.
#[test]
fn nginx_truth() {
    NGINX.truth();
}

/// Check, without leakctl, that what is swallowed in redis are its values.
#[test]
fn redis_truth() {
    REDIS.truth();
}

/// Check, without leakctl, that what is swallowed in python are the script's
/// bytes objects.
#[test]
fn python_truth() {
    PYTHON.truth();
}

/// Check that nginx's worker, on glibc, shows the leaked request pools.
#[test]
fn nginx_request_pools() {
    NGINX.assert_found();
}

/// Check that redis-server, on jemalloc, shows the leaked values.
#[test]
fn redis_values() {
    REDIS.assert_found();
}

/// Check that python3, on glibc, shows the leaked bytes objects.
#[test]
fn python_bytes() {
    PYTHON.assert_found();
}
