# The machine: what it sees of this one, booting it, and waiting for it, always with a limit. Sourced by `run` and by the scenarios'
# `host.sh`. Not here: its image (`image.sh`), what is tried in it (`scenarios`).
# shellcheck shell=bash

VM=target/vm
# Every limit is so many times as long; for a machine that is busy with other things.
PATIENCE=${PATIENCE:-1}
PIDS=()

step() { printf '\n== %s\n' "$*"; }

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

need_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    step "Debian packages: ${missing[*]}"
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
}

# What the machine sees of this one, for scenario $1 and program $2: program, model, scripts; and `out` for results.
prepare_share() {
    SHARE=$VM/$1/share
    rm -rf "${VM:?}/$1" && mkdir -p "$SHARE/out" "$SHARE/models"
    strip -o "$SHARE/inspectord" "$2"
    cp -r models/demo "$SHARE/models/"
    cp tests/vm/guest.sh "tests/vm/scenarios/$1"/* "$SHARE/"
    echo "$PATIENCE" > "$SHARE/patience"
    chmod -R a+rX "$SHARE"
}

# Boots the machine; its console goes to the file $1, further arguments to qemu. What is written to its system disk is
# forgotten afterwards. Its first process is `image/vm`, or what INIT says.
boot() {
    local console=$1
    shift
    : > "$console"
    nice -n "${NICE:-5}" qemu-system-x86_64 -machine q35 -accel tcg,thread=multi,tb-size=512 -cpu max -smp 2 -m 1536 \
        -display none -nodefaults -no-reboot \
        -kernel "$VM/image/vmlinuz" -initrd "$VM/image/initrd" \
        -append "console=ttyS0 root=/dev/vda rw quiet net.ifnames=0 mitigations=off no_timer_check panic=-1 systemd.show_status=false init=${INIT:-/usr/local/bin/vm}" \
        -drive "file=$VM/image/root.img,format=raw,if=none,id=root,snapshot=on" -device virtio-blk-pci,drive=root \
        -netdev user,id=net -device virtio-net-pci,netdev=net -device virtio-rng-pci \
        -virtfs "local,path=$SHARE,mount_tag=host,security_model=none" \
        -serial "file:$console" "$@" &
    QEMU=$!
    PIDS+=("$QEMU")
    CONSOLE=$console
    BOOTED=$SECONDS
}

# Waits until the console says something that matches $1, $2 seconds at most.
await_console() {
    local until=$((SECONDS + $2 * PATIENCE))
    until grep -a -q -E "$1" "$CONSOLE"; do
        kill -0 "$QEMU" 2>/dev/null || { tail_console && fail "the machine ended before it said \`$1\`"; }
        [ "$SECONDS" -lt "$until" ] || { tail_console && fail "the machine did not say \`$1\` within $(($2 * PATIENCE)) s"; }
        sleep 0.5
    done
}

# Waits until the scenario's guest part has ended and the machine is off; fails if that part did.
await_end() {
    await_console '^vm: the guest part ended' "$1"
    local result
    result=$(grep -a -o -E 'the guest part ended with [0-9]+' "$CONSOLE" | grep -o -E '[0-9]+')
    grep -a -E '^(== |ok |FAILED|   )' "$CONSOLE" | tr -d '\r' || true
    [ "$result" = 0 ] || { tail_console && fail "the guest part ended with $result"; }
    local until=$((SECONDS + 60))
    while kill -0 "$QEMU" 2>/dev/null && [ "$SECONDS" -lt "$until" ]; do sleep 0.5; done
    echo "machine: $((SECONDS - BOOTED)) s from power-on to power-off"
    cut_power
}

cut_power() {
    kill -KILL "$QEMU" 2>/dev/null || true
    wait "$QEMU" 2>/dev/null || true
}

tail_console() {
    echo "--- the end of $CONSOLE"
    tail -n 40 "$CONSOLE" | tr -d '\r'
    echo "---"
}

stop_everything() {
    local pid
    for pid in "${PIDS[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
}
