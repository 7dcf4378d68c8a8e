#!/bin/busybox sh
# The first process of the virtual machine: mounts the host's files, read-only,
# with a layer in memory above them, runs /command in there and turns off.
#
# ttyS0 is the kernel's console, ttyS1 is the command's output, ttyS2 takes the
# result, in one line: "status N", or "failed: WHY".

B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
$B mount -t devtmpfs devtmpfs /dev

end() {
	echo "$*" >/dev/ttyS2
	$B stty -F /dev/ttyS2 drain
	$B sync
	$B poweroff -f
	$B sleep 1000
}

# Tries, and gives up on the machine if it does not work.
must() {
	"$@" || end "failed: $*"
}

while read -r module; do
	must $B insmod "/modules/$module"
done </modules/order

must $B mkdir -p /lower /upper /new
must $B mount -t virtiofs -o ro host /lower
must $B mount -t tmpfs -o size=75% tmpfs /upper
must $B mkdir -p /upper/files /upper/work
must $B mount -t overlay \
	-o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work overlay /new

must $B mount -t proc proc /new/proc
must $B mount -t sysfs sysfs /new/sys
must $B mount -t devtmpfs devtmpfs /new/dev
must $B mkdir -p /new/dev/pts /new/dev/shm
must $B mount -t devpts devpts /new/dev/pts
must $B mount -t tmpfs tmpfs /new/dev/shm
must $B mount -t tmpfs tmpfs /new/run
must $B mount -t debugfs debugfs /new/sys/kernel/debug
must $B mount -t tracefs tracefs /new/sys/kernel/tracing
must $B mount -t bpf bpf /new/sys/fs/bpf
must $B mount -t cgroup2 cgroup2 /new/sys/fs/cgroup
must $B ip link set lo up
$B hostname vm

# An oops that only ends a thread would be taken for a test that hangs.
echo 1 >/proc/sys/kernel/panic_on_oops

# The kernel's modules, for commands that load one.
. /settings
release=$($B uname -r)
must $B mkdir -p "/new/lib/modules/$release"
must $B mount --bind "/new$MODULES" "/new/lib/modules/$release"

must $B stty -F /dev/ttyS1 raw -echo
must $B cp /command /new/run/command
# A session of its own, but no terminal: nobody can type there.
$B setsid $B chroot /new /bin/sh /run/command \
	</dev/null >/dev/ttyS1 2>&1
status=$?
$B stty -F /dev/ttyS1 drain
end "status $status"
