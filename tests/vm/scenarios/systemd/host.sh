# Makes two Debian packages of target/release/inspectord, a version and the one after it, and boots the machine with them.
# With CONTAINER=1 a systemd-nspawn container takes the machine's place: native speed, but no camera of a kernel's, and its
# limits on memory and devices are not enforced.
# shellcheck shell=bash

host() {
    local tool
    tool=$(command -v cargo-deb || echo "$VM/tools/bin/cargo-deb")
    [ -x "$tool" ] || cargo install --quiet --locked --root "$VM/tools" cargo-deb
    PATH=$(dirname "$tool"):$PATH
    cargo deb --quiet --no-build --fast --deb-version 0.0.1-1 --output "$SHARE/first.deb"
    cargo deb --quiet --no-build --fast --deb-version 0.0.2-1 --output "$SHARE/second.deb"
    if [ -n "${CONTAINER:-}" ]; then contain; else INIT=/sbin/init boot "$VM/systemd/console"; fi
    await_end "${LIMIT:-1500}"
}

contain() {
    need_packages systemd-container
    CONSOLE=$SHARE/out/console
    # Left by the last one where the host has no systemd of its own, and then refused.
    as_root rm -rf /run/systemd/nspawn/propagate/inspectord-vm
    as_root systemd-nspawn --quiet --machine=inspectord-vm --directory="$VM/image/root" --volatile=overlay --boot --private-network \
        --bind="$PWD/$SHARE:/mnt/host" --register=no --keep-unit --console=pipe < /dev/null > "$VM/systemd/container" 2>&1 &
    QEMU=$!
    PIDS+=("$QEMU")
    BOOTED=$SECONDS
    : > "$CONSOLE"
}
