#!/bin/sh
# systemd_host.sh UNITS SOURCE VENV: become systemd, in namespaces that are already new.
# The folder UNITS holds all units that there are. /etc, /usr/bin and /opt may be
# written and forget it; /run is empty; the network is the caller's.
set -eu
units=$1 source=$2 venv=$3
mount --make-rprivate /
mount -t tmpfs tmpfs /run
cp -R "$units" /run/units
mkdir -p /run/tested/source /run/tested/venv
mount --bind "$source" /run/tested/source
mount --bind "$venv" /run/tested/venv
for folder in etc usr/bin opt; do
    layer=/run/layers/$folder
    mkdir -p "$layer/upper" "$layer/work"
    mount -t overlay overlay "/$folder" \
        -o "lowerdir=/$folder,upperdir=$layer/upper,workdir=$layer/work"
done

# A link of the host may lead out of the layers: nothing is written through one.
rm -rf /etc/vmmd /opt/vmmd /etc/machine-id /etc/systemd/journald.conf.d /usr/bin/firecracker

# As the README installs it, but for the package, which is the one under test. It is
# bound elsewhere since the unit's PrivateTmp= may hide the place where it lies.
mkdir -p /opt/vmmd/source /opt/vmmd/venv /etc/vmmd /etc/systemd/journald.conf.d
mount --bind /run/tested/source /opt/vmmd/source
mount --bind /run/tested/venv /opt/vmmd/venv
cat >/usr/bin/firecracker <<'END'
#!/opt/vmmd/venv/bin/python
import sys
sys.path.insert(0, "/opt/vmmd/source")
from vmmd.__main__ import firecracker
sys.exit(firecracker())
END
chmod +x /usr/bin/firecracker
tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
printf '[Journal]\nStorage=volatile\nReadKMsg=no\n' >/etc/systemd/journald.conf.d/test.conf

# This mount's root is the cgroup that the namespace was made in: systemd sees no other.
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec env -i "PATH=$PATH" container=vmmd-test SYSTEMD_UNIT_PATH=/run/units \
    /lib/systemd/systemd --system --unit=basic.target --log-target=console --show-status=0
