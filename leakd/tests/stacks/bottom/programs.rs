//! Programs that read from stdin what they are to do.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::unistd::User;

use super::{Scene, Work};
use crate::support::process::{PATIENCE, Process};

/// A program of the distribution, by its name.
pub fn system_program(name: &str, package: &str) -> PathBuf {
    ["/usr/bin", "/usr/sbin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is not installed: apt-get install {package}"))
}

/// Looks again and again until it is so.
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A program that waits in read(0, ...).
fn reader(command: Command, input: String, folder: Option<tempfile::TempDir>) -> Scene {
    let process = Process::start(command);
    let pid = process.pid();
    wait_for("the program to read its input", || {
        let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        call.starts_with(&format!("{} 0x0 ", libc::SYS_read))
    });
    Scene { process, pid, work: Work::Input(input.into_bytes()), _folder: folder }
}

/// With Python's own allocator on top of malloc it would hardly be called.
pub fn python() -> Scene {
    let mut command = Command::new(system_program("python3", "python3"));
    command.arg("-").env("PYTHONMALLOC", "malloc");
    let script = "
import json, re, collections, functools
class Node:
    def __init__(self, depth):
        self.children = [Node(depth - 1) for _ in range(3)] if depth else []
    def __iter__(self):
        yield self
        for child in self.children:
            yield from child
kept = []
for number in range(40):
    text = json.dumps({str(key): [key] * 9 for key in range(200)}, indent=1)
    data = json.loads(text, object_hook=lambda pairs: collections.OrderedDict(pairs))
    words = sorted(re.findall(r'(\\d+)', text), key=functools.cmp_to_key(lambda a, b: len(a) - len(b)))
    kept.append((data, words, sum(1 for node in Node(5))))
    try:
        int('x' * number)
    except ValueError as error:
        kept.append(str(error))
";
    reader(command, script.to_owned(), None)
}

pub fn perl() -> Scene {
    let mut command = Command::new(system_program("perl", "perl"));
    command.arg("-");
    let script = r#"
my %kept;
sub fill { my ($depth, $name) = @_; return $depth ? { map { $_ => fill($depth - 1, "$name$_") } 1 .. 4 } : "$name!" x 9; }
for my $number (1 .. 60) {
    $kept{$number} = fill(5, "n$number");
    my $text = join ' ', map { sprintf '%s=%d', $_ x 3, $number } 1 .. 300;
    my @words = sort { length $a <=> length $b or $a cmp $b } split /[= ]+/, $text;
    $text =~ s/(\d+)=(\d+)/eval { die "x$2" if $1 % 7; "$2:$1" } || 'none'/ge;
    $kept{"text$number"} = [ \@words, $text ];
}
"#;
    reader(command, script.to_owned(), None)
}

fn output_of(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let output = output.unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

pub fn cc1plus() -> Scene {
    let mut command = Command::new(output_of("g++", "-print-prog-name=cc1plus"));
    command.args(["-quiet", "-imultiarch", &output_of("g++", "-print-multiarch")]);
    command.args(["-D_GNU_SOURCE", "-std=c++17", "-O1", "-o", "/dev/null", "-"]);
    // Nothing that nests deeply: walks end at 128 frames.
    let mut source = String::from("struct Base { virtual int get(int) const; int kept; };\n");
    for number in 0..150 {
        source += &format!(
            "struct S{number} : Base {{ int get(int n) const override {{ return n + {number}; }} }};
            int f{number}(const S{number} &s, int n) {{
                int sum = s.kept;
                for (int i = 0; i < n; i++) sum += s.get(i) * i;
                switch (sum & 3) {{ case 0: return n; case 1: sum /= 3; }}
                return sum;
            }}\n"
        );
    }
    reader(command, source, None)
}

/// What both databases are asked for.
fn queries() -> String {
    let mut text = String::from("CREATE TABLE t (a integer, b text);\n");
    for number in 0..400 {
        let word = "w".repeat(number % 97);
        text += &format!("INSERT INTO t VALUES ({number}, '{word}{number}');\n");
    }
    for number in 0..40 {
        text += &format!(
            "SELECT x.b, count(*) FROM t x JOIN t y ON x.a % {m} = y.a % {m} \
             WHERE x.b LIKE 'w%' GROUP BY x.b ORDER BY 2 DESC, 1 LIMIT 3;\n",
            m = number + 50
        );
    }
    text + "CREATE INDEX i ON t (b);\nDELETE FROM t WHERE a % 3 = 0;\nSELECT nothing FROM t;\n"
}

pub fn sqlite() -> Scene {
    let mut command = Command::new(system_program("sqlite3", "sqlite3"));
    // sqlite3 ends with 1: one of the queries is wrong.
    command.arg(":memory:").stderr(Stdio::null());
    let large = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 20000) \
                 INSERT INTO t SELECT x, hex(zeroblob(x % 200)) FROM c;\n";
    reader(command, queries() + large, None)
}

/// A backend on its own, which does its work in the process that is started.
pub fn postgres() -> Scene {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.map(|version| version.path().join("bin")).max();
    let programs = newest.expect("postgres is not installed: apt-get install postgresql");
    let folder = tempfile::tempdir().expect("a folder for the database");
    // It does not run as root.
    let user = User::from_name("postgres").ok().flatten().expect("the package made the user");
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    chown(folder.path(), Some(uid), Some(gid)).expect("cannot give the folder away");
    let data = folder.path().join("data");
    let made = Command::new(programs.join("initdb"))
        .args(["--no-sync", "--auth=trust", "--no-locale", "--encoding=UTF8", "-D"])
        .arg(&data)
        .uid(uid)
        .gid(gid)
        .current_dir(folder.path())
        .output()
        .expect("cannot start initdb");
    assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    let mut command = Command::new(programs.join("postgres"));
    command.args(["--single", "-F", "-D"]).arg(&data).arg("postgres");
    command.uid(uid).gid(gid).current_dir(folder.path()).stderr(Stdio::null());
    let large = "SELECT count(*), md5(string_agg(b, '')) FROM \
                 (SELECT g, repeat('b', g % 50) b FROM generate_series(1, 20000) g ORDER BY -g) s;\n";
    reader(command, queries() + &large.repeat(10), Some(folder))
}
