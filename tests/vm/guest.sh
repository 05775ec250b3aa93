#!/bin/busybox sh
# What runs in the virtual machine as its first and only process; `v4l2.sh` reads its console.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp RUST_BACKTRACE=0
mount -t proc p /proc
mount -t sysfs s /sys
mount -t devtmpfs d /dev
mount -t tmpfs t /tmp
hostname guest

say() { echo "GUEST: $*"; }
end() { say "$*"; sync; poweroff -f; }
failed() { say "FAILED: $*"; echo "--- the daemon's log"; cat /tmp/log; end "the end"; }

plug() { for module in $(cat /work/modules); do insmod "/work/$module" $([ "$module" = vivid.ko ] && echo n_devs=1 node_types=0x1 input_types=0) 2>/dev/null; done; }
unplug() { rmmod vivid; }
# Waits until the log has more than $2 lines with $1.
wait_for() {
    left=600
    while [ "$(grep -c "$1" /tmp/log)" -le "$2" ]; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || failed "never logged: $1"
        sleep 0.5
    done
}

plug
[ -c /dev/video0 ] || { : > /tmp/log; failed "vivid made no /dev/video0"; }
inspectord cameras | head -12
for format in yuyv grey bayer rgb; do
    cat > /tmp/inspectord.toml << SETTINGS
[box]
name = "guest"
[mqtt]
enabled = false
[store]
path = "/tmp/store"
min_free_megabytes = 1
[[camera]]
name = "top"
model = "/work/model"
[camera.source]
kind = "v4l2"
device = "/dev/video0"
size = "640x360"
format = "$format"
stall_ms = 60000
SETTINGS
    inspectord snapshot --config /tmp/inspectord.toml --out /tmp/$format.png || { : > /tmp/log; failed "no snapshot as $format"; }
done
say "every format was read"

inspectord run --config /tmp/inspectord.toml > /tmp/log 2>&1 &
daemon=$!
wait_for "camera opened" 0
until inspectord history --config /tmp/inspectord.toml 2>/dev/null | grep -q .; do sleep 1; done
say "verdicts are recorded"

v4l2-ctl -d /dev/video0 -c disconnect=1 || failed "the camera cannot be unplugged"
wait_for "camera failed" 0
say "the loss was noticed"
unplug || sleep 2
unplug
plug
wait_for "camera opened" 1
say "the camera is back"
kill -TERM $daemon
wait $daemon && say "the daemon stopped in order" || failed "exit code $?"
inspectord history --config /tmp/inspectord.toml | tail -3
grep -q panicked /tmp/log && failed "something panicked"
cat /tmp/log | head -20
end PASSED
