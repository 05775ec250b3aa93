# Boots the machine with the scenes that SCENES names, all of them unless it does.
# shellcheck shell=bash

host() {
    echo "${SCENES:-listing snapshots flowing unplugged stalled failing lossy often taken}" > "$SHARE/scenes"
    boot "$VM/v4l2/console"
    await_end "${LIMIT:-1500}"
}
