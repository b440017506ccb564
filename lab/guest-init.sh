#!/bin/busybox sh
# The guest's init, in the initramfs and (the same file) in the root file system.
# What it does stands on the kernel's command line:
#   root=/dev/vda rw   (initramfs) mount it and go on as its /sbin/init
#   vmmd.test=A,B,...  verbs, done in order; after the last, power off
#   vmmd.run=BASE64    a shell script, for the verb `run`
# It says VMMD-GUEST-READY when it starts the verbs; each says what it found.
#   vmmd.ip=A/P[,GW]   address of the next interface (eth0, eth1, ...), and a
#                      gateway to all else
export PATH=/bin:/sbin:/usr/bin:/usr/sbin:/usr/lib/busybox HOME=/ TERM=linux
bb=/bin/busybox

$bb mkdir -p /proc /sys /dev /tmp /run
[ -e /proc/1/stat ] || $bb mount -t proc proc /proc
[ -d /sys/class ] || $bb mount -t sysfs sysfs /sys
$bb grep -q " /dev devtmpfs" /proc/mounts || $bb mount -t devtmpfs devtmpfs /dev

value() { # value NAME: what the command line gives as NAME=..., the last one
    found=
    for word in $(cat /proc/cmdline); do
        case $word in "$1="*) found=${word#*=} ;; esac
    done
    echo "$found"
}

has() { # has WORD: whether it stands on the command line
    case " $(cat /proc/cmdline) " in *" $1 "*) return 0 ;; esac
    return 1
}

addresses() { # each vmmd.ip= to the next interface
    number=0
    for word in $(cat /proc/cmdline); do
        case $word in vmmd.ip=*) ;; *) continue ;; esac
        device=eth$number
        number=$((number + 1))
        address=${word#vmmd.ip=}
        gateway=
        case $address in *,*) gateway=${address#*,} address=${address%%,*} ;; esac
        tries=0
        until [ -e "/sys/class/net/$device" ] || [ $tries -gt 100 ]; do
            usleep 50000
            tries=$((tries + 1))
        done
        ip addr add "$address" dev "$device" && ip link set "$device" up ||
            echo "VMMD-GUEST-FAILED no address for $device"
        [ -z "$gateway" ] || ip route add default via "$gateway"
    done
}

clean() { # all that is written reaches the disk, whose journal is then empty
    sync
    mount -o remount,ro / 2>/dev/null
}

off() {
    clean
    poweroff -f
    sleep 30
}

switch() { # switch ROOT_DEVICE: go on there
    mode=ro
    has rw && mode=rw
    tries=0
    until [ -b "$1" ] || [ $tries -gt 100 ]; do
        usleep 50000
        tries=$((tries + 1))
    done
    mkdir -p /root
    if mount -t ext4 -o $mode "$1" /root; then
        mount --move /dev /root/dev
        mount --move /sys /root/sys
        mount --move /proc /root/proc
        exec $bb switch_root /root /sbin/init
    fi
    echo "VMMD-GUEST-FAILED no root file system on $1"
    off
}

verb() {
    case $1 in
    hello) echo "VMMD-GUEST-HELLO $(uname -r)" ;;
    cpus) echo "VMMD-GUEST-CPUS $(nproc)" ;;
    memory) grep MemTotal /proc/meminfo ;;
    devices) ls /sys/bus/virtio/devices /sys/bus/platform/devices ;;
    interrupts) cat /proc/interrupts ;;
    dmesg) dmesg ;;
    initcalls) # with initcall_debug: those over 5 ms, in microseconds
        dmesg | sed -n 's/.*initcall \([^+]*\)+.* after \([0-9]*\) usecs.*/\2 \1/p' |
            sort -rn | while read -r took name; do
            [ "$took" -lt 5000 ] || echo "VMMD-GUEST-INITCALL $name $took"
        done
        ;;
    echo)
        echo VMMD-GUEST-ECHO
        while read -r line && [ "$line" != quit ]; do
            echo "you said: $line"
        done
        ;;
    sleep) # until somebody ends it
        echo VMMD-GUEST-SLEEPS
        while :; do sleep 1000; done
        ;;
    count) # a sleeping counter: shows that timers fire
        number=0
        while :; do
            echo "VMMD-GUEST-COUNT $number"
            number=$((number + 1))
            usleep 200000
        done
        ;;
    run)
        value vmmd.run | base64 -d >/tmp/run
        sh /tmp/run
        echo "VMMD-GUEST-RAN $?"
        ;;
    ssh) # the Debian image's server; the key's owner may log in as root
        mkdir -p /dev/pts
        mount -t devpts devpts /dev/pts 2>/dev/null
        HOME=/root dropbear -s -r /etc/dropbear/dropbear_ed25519_host_key && echo VMMD-GUEST-SSH
        ;;
    shell) setsid cttyhack sh ;;
    cad) # Ctrl-Alt-Del comes to init as SIGINT, if the kernel is told so
        trap 'echo VMMD-GUEST-CAD; clean; reboot -f' INT
        echo 0 >/proc/sys/kernel/ctrl-alt-del
        echo VMMD-GUEST-WAITS
        while :; do usleep 100000; done
        ;;
    remount-ro) clean ;;
    poweroff) off ;;
    reboot)
        clean
        reboot -f
        sleep 30
        ;;
    halt) halt -f ;;
    panic) echo c >/proc/sysrq-trigger ;;
    *) echo "VMMD-GUEST-FAILED no verb $1" ;;
    esac
}

if [ -f /modules/order ]; then
    if [ "$(cat /proc/sys/kernel/modules_disabled)" = 0 ] && ! has nomodule; then
        while read -r module; do insmod "/modules/$module"; done </modules/order
    fi
    root=$(value root)
    case $root in /dev/*) switch "$root" ;; esac
fi

mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
ip link set lo up
addresses
read -r uptime rest </proc/uptime
echo "VMMD-GUEST-READY $uptime"
verbs=$(value vmmd.test)
for word in $(echo "${verbs:-shell}" | tr , ' '); do verb "$word"; done
off
