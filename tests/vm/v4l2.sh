#!/usr/bin/env bash
# A V4L2 camera without a camera: boots Debian's kernel with its `vivid` driver under qemu, runs a built inspectord against
# /dev/video0, unplugs the camera while it streams, plugs it in again, and looks at what the daemon said. See README.md.
#
#   tests/vm/v4l2.sh [path of inspectord, default target/debug/inspectord]
set -euo pipefail
cd "$(dirname "$0")/../.."

program=${1:-target/debug/inspectord}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for tool in qemu-system-x86_64 busybox v4l2-ctl cpio depmod strip; do
    command -v "$tool" >/dev/null || { echo "$tool is missing: see tests/vm/README.md" >&2; exit 1; }
done

# The kernel, unpacked and never installed; KERNEL_DEB names a package that was fetched before.
if [ -z "${KERNEL_DEB:-}" ]; then
    image=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/{print $2; exit}')
    (cd "$work" && apt-get download -q "$image")
    KERNEL_DEB=$(echo "$work"/linux-image-*.deb)
fi
dpkg-deb -x "$KERNEL_DEB" "$work/kernel"
version=$(ls "$work/kernel/lib/modules")
depmod -b "$work/kernel" "$version"

# The guest: busybox, the two programs with the libraries that they load here, the driver, the demo's model.
root=$work/root
mkdir -p "$root"/{bin,proc,sys,dev,tmp,etc,work}
cp "$(command -v busybox)" "$root/bin/busybox"
with_libraries() {
    ldd "$1" | awk '/=> \//{print $3} /^\t\//{print $1}' | while read -r library; do
        install -D "$library" "$root$library"
    done
}
strip -o "$root/bin/inspectord" "$program"
install "$(command -v v4l2-ctl)" "$root/bin/v4l2-ctl"
with_libraries "$program"
with_libraries "$(command -v v4l2-ctl)"
# `modprobe` names files below the folder it was given; the list is kept in the order of loading.
modprobe -d "$work/kernel" -S "$version" --show-depends vivid | awk '/^insmod/{print $2}' > "$work/modules"
while read -r module; do
    cp "$module" "$root/work/"
    basename "$module" >> "$root/work/modules"
done < "$work/modules"
cp -r models/demo "$root/work/model"
cp tests/vm/guest.sh "$root/init"
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) > "$work/initrd.gz"

log=$work/console.log
timeout "${LIMIT_SECONDS:-1200}" qemu-system-x86_64 -machine q35 -accel "${ACCEL:-tcg,thread=multi}" -cpu max -smp 2 -m 1536 \
    -display none -nodefaults -no-reboot -kernel "$work/kernel/boot/vmlinuz-$version" -initrd "$work/initrd.gz" \
    -append "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on" -serial "file:$log" || true
cat "$log"
grep -q "GUEST: PASSED" "$log" || { echo "failed: see above" >&2; exit 1; }
