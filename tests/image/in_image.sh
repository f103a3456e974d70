#!/usr/bin/env bash
# Runs a shell command inside the root file system of an image the way a hardened container runtime would: root file system
# read-only, every capability dropped, no way to gain privileges, user and group 65532, namespaces of its own for mounts,
# processes and network (loopback only), a small /dev, /proc, and as only writable place the image's volume.
#   in_image.sh ROOT VOLUME MODEL_FOLDER COMMAND     (as root; MODEL_FOLDER appears read-only at /models)
set -euo pipefail
if [ "${1:-}" != --inside ]; then
  exec unshare --mount --pid --net --ipc --uts --fork --kill-child -- "$0" --inside "$@"
fi
root=$2 volume=$3 models=$4 command=$5
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t tmpfs -o nosuid,noexec,mode=755,size=64k dev "$root/dev"
for device in null zero urandom random; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mount -t tmpfs -o nosuid,nodev,mode=700,uid=65532,gid=65532,size=64m volume "$root$volume"
mount --bind "$models" "$root/models"
mount -o remount,bind,ro "$root/models"
mount -o remount,bind,ro "$root"
python3 -c 'import fcntl, socket, struct  # SIOCSIFFLAGS: up, running
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sH14x", b"lo", 0x41))'
exec chroot "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin SEXTANT_CACHE="$volume" \
  /usr/bin/setpriv --reuid 65532 --regid 65532 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs \
  /bin/sh -euc "$command"
