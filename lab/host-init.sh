#!/bin/busybox sh
# The lab host's init: the root file system of the machine that started it, read
# over 9p, under a layer in memory; then one command, whose status goes out over
# a port. The kernel's command line says where the session's folder is.
export PATH=/bin:/sbin
bb=/bin/busybox
$bb mkdir -p /proc /sys /dev /base /layer /root
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev

fail() { # the log shows this line; without a status the session says so
    echo "lab host: $1" >/dev/console
    poweroff -f
}

value() {
    for word in $(cat /proc/cmdline); do
        case $word in "$1="*) echo "${word#*=}" ;; esac
    done
}

while read -r module; do
    insmod "/modules/$module" || fail "module $module"
done </modules/order

ninep="trans=virtio,version=9p2000.L,msize=512000"
mount -t 9p -o "$ninep,ro,cache=loose" hostroot /base || fail "9p root"
mount -t tmpfs -o size=90%,mode=755 tmpfs /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/base,upperdir=/layer/upper,workdir=/layer/work \
    overlay /root || fail "overlay"

share=$(value lab.share)
[ -z "$share" ] || mount -t 9p -o "$ninep,rw" share "/root$share" || fail "share"

mount --bind /dev /root/dev
mkdir -p /root/dev/pts /root/dev/shm "/root/lib/modules/$(uname -r)"
mount -t devpts -o ptmxmode=666,mode=620,gid=5 devpts /root/dev/pts
mount -t tmpfs -o mode=1777 tmpfs /root/dev/shm
mount -t tmpfs -o mode=755 tmpfs /root/run
ln -s /proc/self/fd /root/dev/fd
ln -s fd/0 /root/dev/stdin
ln -s fd/1 /root/dev/stdout
ln -s fd/2 /root/dev/stderr
mount --bind "/root$(value lab.modules)" "/root/lib/modules/$(uname -r)"
mount --move /sys /root/sys
mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
mount --bind /proc /root/proc
ip link set lo up

tries=0
until ports=$(echo /dev/vport*p3) && [ -c "$ports" ]; do
    [ $((tries += 1)) -lt 200 ] || fail "no ports"
    usleep 20000
done
ports=${ports%3}
session=$(value lab.session)
# Pipes, so that a program may open /dev/stdout anew, as it may anywhere else.
mkfifo /out /err
cat /out >"${ports}1" &
cat /err >"${ports}2" &
chroot /root /bin/sh "$session/command" </dev/null >/out 2>/err
status=$?
# What the command left running may hold the pipes open: it loses its output.
(sleep 2; kill %1 %2) 2>/dev/null &
wait %1 %2 2>/dev/null
echo "$status" >"${ports}3"
poweroff -f
