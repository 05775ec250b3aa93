# Makes two Debian packages of target/release/inspectord, a version and the one after it, and boots the machine with them.
# shellcheck shell=bash

host() {
    local tool
    tool=$(command -v cargo-deb || echo "$VM/tools/bin/cargo-deb")
    [ -x "$tool" ] || cargo install --quiet --locked --root "$VM/tools" cargo-deb
    PATH=$(dirname "$tool"):$PATH
    cargo deb --quiet --no-build --fast --deb-version 0.0.1-1 --output "$SHARE/first.deb"
    cargo deb --quiet --no-build --fast --deb-version 0.0.2-1 --output "$SHARE/second.deb"
    boot "$VM/systemd/console"
    await_end "${LIMIT:-1500}"
}
