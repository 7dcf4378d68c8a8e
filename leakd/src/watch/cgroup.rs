//! What `/proc/PID/cgroup` says: control group, systemd unit, container.

/// Where a process belongs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Its control group: that of v2, or else of systemd's hierarchy.
    pub path: String,
    /// The innermost systemd unit.
    pub unit: Option<String>,
    /// The container's id.
    pub container: Option<String>,
}

/// Digits of a container id, as Docker, containerd, CRI-O and Podman make them.
const CONTAINER_DIGITS: usize = 64;

/// Reads `/proc/PID/cgroup`.
pub fn parse(text: &str) -> Group {
    // hierarchy-ID:controllers:path
    let paths = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        Some((parts.next()?, parts.next()?, parts.next()?))
    });
    let mut path = "";
    for (_, controllers, found) in paths {
        match controllers {
            // A machine with both has its units in systemd's, if v2 is empty.
            "" if found != "/" || path.is_empty() => path = found,
            "name=systemd" if path.is_empty() || path == "/" => path = found,
            _ => {}
        }
    }
    let unit = path.split('/').rev().find(|part| is_unit(part)).map(unescape);
    let container = path.split('/').rev().find_map(container);
    Group { path: path.to_owned(), unit, container }
}

fn is_unit(part: &str) -> bool {
    [".service", ".scope", ".socket", ".mount", ".swap"]
        .iter()
        .any(|kind| part.len() > kind.len() && part.ends_with(kind))
}

/// systemd prefixes names that would clash with the kernel's by `_`.
fn unescape(part: &str) -> String {
    part.strip_prefix('_').unwrap_or(part).to_owned()
}

/// `docker-ID.scope`, `cri-containerd-ID.scope`, `libpod-ID.scope`, `/docker/ID`.
fn container(part: &str) -> Option<String> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    let name = name.rsplit(['-', ':']).next()?;
    let is_id = name.len() == CONTAINER_DIGITS && name.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// Check the layouts of systemd, Docker, Kubernetes and v1.
    #[test]
    fn layouts() {
        let of = |text: &str| {
            let group = parse(text);
            (group.unit, group.container)
        };
        let unit = |name: &str| Some(name.to_owned());
        let id = || Some(ID.to_owned());
        assert_eq!(of("0::/system.slice/nginx.service\n"), (unit("nginx.service"), None));
        assert_eq!(
            of("0::/user.slice/user-0.slice/user@0.service/app.slice/x.scope"),
            (unit("x.scope"), None)
        );
        assert_eq!(
            of(&format!("0::/system.slice/docker-{ID}.scope")),
            (unit(&format!("docker-{ID}.scope")), id())
        );
        assert_eq!(of(&format!("0::/docker/{ID}")), (None, id()));
        assert_eq!(
            of(&format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope")),
            (unit(&format!("cri-containerd-{ID}.scope")), id())
        );
        assert_eq!(
            of("12:memory:/a\n1:name=systemd:/system.slice/b.service\n0::/\n"),
            (unit("b.service"), None)
        );
        assert_eq!(of("0::/\n"), (None, None));
        assert_eq!(of("rubbish\n::\n0:x"), (None, None));
        assert_eq!(of("0::/a:b.service/c:d"), (unit("a:b.service"), None));
        assert_eq!(of(""), (None, None));
    }
}
