# For the guest parts of scenarios: saying what is tried, waiting with a limit, and talking to the daemon.
# shellcheck shell=bash
set -uo pipefail

HOST=/mnt/host
OUT=$HOST/out
WORK=/var/work
PATIENCE=$(cat "$HOST/patience")
mkdir -p "$WORK"

step() { echo "== [$(cut -d. -f1 /proc/uptime) s] $*"; }
ok() { echo "ok $*"; }
note() { echo "   $*"; }

fail() {
    echo "FAILED: $*"
    [ ! -e "$WORK/daemon.log" ] || { echo "--- the daemon's last lines" && tail -n 15 "$WORK/daemon.log"; }
    exit 1
}

# soon SECONDS WHAT COMMAND...: waits until the command succeeds; longer where the host is said to be busy.
soon() {
    local seconds=$(($1 * PATIENCE)) what=$2 began=$SECONDS
    shift 2
    until "$@" > /dev/null 2>&1; do
        [ $((SECONDS - began)) -lt "$seconds" ] || fail "$what: not within $seconds s"
        sleep 0.2
    done
    ok "$what ($((SECONDS - began)) s)"
}

# The kernel's camera, with udev to give it its names; udev runs already where systemd does.
start_camera() {
    pidof systemd-udevd > /dev/null || /lib/systemd/systemd-udevd --daemon
    modprobe vivid || fail "the driver cannot be loaded"
    soon 30 "vivid gives a camera" test -e "/dev/v4l/by-path/$1"
}

# The network that qemu makes: this machine is 10.0.2.15, the host 10.0.2.2.
start_network() {
    modprobe virtio_net
    soon 60 "there is a network device" test -e /sys/class/net/eth0
    ip link set lo up && ip link set eth0 up
    ip address add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2
}

# A broker of the machine's own, and a subscriber that keeps everything in $WORK/heard, one `topic payload` a line.
start_broker() {
    mosquitto -p 1883 > "$WORK/broker.log" 2>&1 &
    soon 60 "the broker listens" mosquitto_pub -h 127.0.0.1 -t t -m up
    mosquitto_sub -h 127.0.0.1 -v -q 1 -t 'inspectord/#' >> "$WORK/heard" 2>&1 &
}

start_daemon() {
    "$WORK/inspectord" run --config "$WORK/inspectord.toml" >> "$WORK/daemon.log" 2>&1 &
    DAEMON=$!
}

stop_daemon() {
    kill -TERM "$DAEMON"
    soon 60 "the daemon stops" bash -c "! kill -0 $DAEMON"
    wait "$DAEMON"
    DAEMON=
}

# verdicts JQ: the verdicts heard so far for which the filter is true, one JSON a line.
verdicts() {
    grep -a -o -E '^inspectord/[^ ]+/verdict \{.*\}$' "$WORK/heard" | cut -d' ' -f2- | jq -c "select($1)" 2>/dev/null
}

# at_least N JQ: whether that many were heard.
at_least() { [ "$(verdicts "$2" | wc -l)" -ge "$1" ]; }

# Publishes a trigger for part $1 and waits, $2 seconds at most, until exactly that part's verdict is true of the filter $3.
ask() {
    mosquitto_pub -h 127.0.0.1 -q 1 -t inspectord/vm/top/trigger -m "{\"part_id\":\"$1\"}"
    soon "$2" "part $1 has its verdict" at_least 1 ".part_id == \"$1\""
    note "$(verdicts ".part_id == \"$1\"" | jq -c '[.sequence, .decision, .reason, .detail, .timings_ms.total]')"
    [ "$(verdicts ".part_id == \"$1\"" | wc -l)" = 1 ] || fail "part $1 has several verdicts"
    at_least 1 ".part_id == \"$1\" and ($3)" || fail "the verdict of part $1 is not $3"
}

# The newest state heard of camera $1.
state() { grep -a -o -E "^inspectord/[^ ]+/$1/state \{.*\}$" "$WORK/heard" | tail -n 1 | cut -d' ' -f2-; }

# state_is CAMERA JQ
state_is() { state "$1" | jq -e "$2"; }
