# The machine's image: a minimal Debian of this machine's own release, with a kernel that has cameras. Kept below target/vm
# and built again only when this file or `image/` has changed. Sourced by `run`.
# shellcheck shell=bash

# What the image holds.
GUEST_PACKAGES=systemd,systemd-sysv,udev,dbus,kmod,linux-image-amd64,initramfs-tools,v4l-utils,iproute2,procps,jq,netpbm,mosquitto,mosquitto-clients
# The kernel's modules that are kept: disk, network, file systems, cameras.
GUEST_MODULES=(drivers/virtio drivers/block/virtio_blk.ko drivers/net/virtio_net.ko drivers/net/net_failover.ko
    net/core net/9p fs/ext4 fs/jbd2 fs/mbcache.ko fs/9p fs/netfs fs/fscache fs/autofs lib crypto
    arch/x86/crypto drivers/media drivers/video drivers/acpi drivers/i2c drivers/char/hw_random sound/core
    sound/soundcore.ko)

build_image() {
    local stamp release sources options=()
    stamp=$(cat tests/vm/image.sh tests/vm/image/* | sha256sum | cut -c1-16)
    [ "$(cat "$VM/image.stamp" 2>/dev/null)" != "$stamp" ] || return 0
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    step "image: Debian $release (a few minutes, once)"
    as_root rm -rf "$VM/image" && mkdir -p "$VM/image"
    # This machine's own package sources, wherever they are listed.
    sources=$(find /etc/apt -maxdepth 2 \( -name 'sources.list' -o -name '*.sources' -o -name '*.list' \) -size +0)
    options+=(--dpkgopt='path-exclude=/lib/modules/*/kernel/*')
    for module in "${GUEST_MODULES[@]}"; do
        options+=(--dpkgopt="path-include=/lib/modules/*/kernel/$module"
            --dpkgopt="path-include=/lib/modules/*/kernel/$module/*")
    done
    for kind in doc locale man; do options+=(--dpkgopt="path-exclude=/usr/share/$kind/*"); done
    # shellcheck disable=SC2086 # one file a word
    mmdebstrap --variant=minbase --include=$GUEST_PACKAGES "${options[@]}" \
        --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/initramfs-tools/hooks"' \
        --essential-hook='copy-in tests/vm/image/initramfs.conf /etc/initramfs-tools/conf.d' \
        --essential-hook='copy-in tests/vm/image/modules-of-the-initramfs /etc/initramfs-tools/hooks' \
        --customize-hook='copy-in tests/vm/image/vm.service /etc/systemd/system' \
        --customize-hook='copy-in tests/vm/image/vm /usr/local/bin' \
        --customize-hook='copy-in tests/vm/image/vivid.conf /etc/modprobe.d' \
        --customize-hook='chroot "$1" sh /usr/local/bin/vm --install' \
        --customize-hook="sync-out /boot $VM/image" \
        "$release" "$VM/image/root.tar" $sources
    unpack_image
    echo "$stamp" > "$VM/image.stamp"
}

# The tree stays beside the image, for containers.
unpack_image() {
    local root=$VM/image/root
    mkdir "$root"
    as_root tar -xf "$VM/image/root.tar" -C "$root"
    truncate -s 2G "$VM/image/root.img"
    as_root mke2fs -q -t ext4 -d "$root" "$VM/image/root.img"
    rm "$VM/image/root.tar"
    mv "$VM"/image/vmlinuz-* "$VM/image/vmlinuz"
    mv "$VM"/image/initrd.img-* "$VM/image/initrd"
}

