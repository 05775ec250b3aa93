# Cuts the power CUTS times, at instants drawn from SEED, and holds what a subscriber outside has seen against the history.
# The store's disk has a cache that is lost with the power: what the machine had not flushed is gone.
# shellcheck shell=bash

CUTS=${CUTS:-5}
RANDOM=${SEED:-1}

host() {
    need_packages nbdkit mosquitto mosquitto-clients jq
    local folder=$VM/powercut n
    truncate -s 1G "$folder/store.img" && mke2fs -q -t ext4 "$folder/store.img"
    start_outside "$folder"
    for n in $(seq "$CUTS"); do
        one_cut "$n" "$folder"
        [ "$n" = 1 ] || compare "$folder/heard-before" "$SHARE/out/history-$n.jsonl" "boot $n"
        cp "$folder/heard" "$folder/heard-before"
    done
    to_the_end "$folder"
}

# A broker and a subscriber that outlive the machine.
start_outside() {
    local port=$((20000 + $$ % 20000))
    printf 'listener %s 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n' $port > "$1/broker.conf"
    /usr/sbin/mosquitto -c "$1/broker.conf" > "$1/broker.log" 2>&1 &
    PIDS+=($!)
    echo $port > "$SHARE/broker"
    local until=$((SECONDS + 30 * PATIENCE))
    until mosquitto_pub -p $port -t t -m up 2>/dev/null; do
        [ "$SECONDS" -lt "$until" ] || fail "no broker on port $port"
        sleep 0.2
    done
    mosquitto_sub -p $port -q 1 -t 'inspectord/vm/+/verdict' >> "$1/heard" &
    PIDS+=($!)
}

# Triggers, up to 50 a second, from the daemon's start until the cut; the broker keeps those that it cannot deliver.
trigger() {
    local n
    for n in $(seq 100000); do
        echo "{\"part_id\":\"$1-$n\"}"
        sleep 0.02
    done | mosquitto_pub -p "$(cat "$SHARE/broker")" -q 1 -t inspectord/vm/absent/trigger -l &
    TRIGGERS=$!
    PIDS+=("$TRIGGERS")
}

# Boots with the store's disk behind a cache that nobody writes back unless the machine flushes.
boot_with_store() {
    echo "$1" > "$SHARE/boot"
    rm -f "$2/disk"
    nbdkit --foreground --unix "$2/disk" --filter=cache file "$2/store.img" cache=writeback &
    NBDKIT=$!
    PIDS+=("$NBDKIT")
    local until=$((SECONDS + 30 * PATIENCE))
    until [ -S "$2/disk" ]; do
        [ "$SECONDS" -lt "$until" ] || fail "nbdkit does not start"
        sleep 0.1
    done
    boot "$2/console-$1" -drive "file=nbd:unix:$2/disk,format=raw,if=none,id=store,cache=writeback" \
        -device virtio-blk-pci,drive=store
}

heard() { wc -l < "$1/heard"; }

one_cut() {
    local n=$1 folder=$2 before delay
    before=$(heard "$folder")
    boot_with_store "$n" "$folder"
    await_console 'boot .*: the daemon' 300
    trigger "$n"
    local until=$((SECONDS + 180 * PATIENCE))
    until [ "$(heard "$folder")" -gt $((before + 20)) ]; do
        [ "$SECONDS" -lt "$until" ] || { tail_console && fail "boot $n: no verdicts in time"; }
        grep -a -q '^FAILED' "$CONSOLE" && { tail_console && fail "boot $n"; }
        sleep 0.2
    done
    delay=$((RANDOM % 25)).$((RANDOM % 10))
    sleep "$delay"
    # The machine is frozen first, so that it sees nothing of its disk's end.
    kill "$TRIGGERS"
    kill -STOP "$QEMU"
    kill -KILL "$NBDKIT"
    cut_power
    wait "$NBDKIT" 2>/dev/null || true
    sleep 1
    echo "cut $n: $delay s after the first verdicts; $(($(heard "$folder") - before)) verdicts heard in this boot"
    said "$CONSOLE"
}

# What the daemon said of its store.
said() { grep -a -E 'journal opened|torn|damaged|index|panick' "$1" | tr -d '\r' | cut -c1-240 | sed 's/^/   /' | head -n 12; }

to_the_end() {
    local folder=$1 until
    cp "$folder/heard" "$folder/heard-before"
    boot_with_store last "$folder"
    await_console 'boot last: the daemon' 300
    compare "$folder/heard-before" "$SHARE/out/history-last.jsonl" "the last boot"
    # What is in the history and was not heard is published now.
    until=$((SECONDS + 300 * PATIENCE))
    until [ -z "$(comm -13 <(keys "$folder/heard") <(keys "$SHARE/out/history-last.jsonl"))" ]; do
        [ "$SECONDS" -lt "$until" ] || fail "recorded verdicts were not published in time"
        sleep 2
    done
    : > "$SHARE/drained"
    await_end 300
    said "$folder/console-last"
    compare "$folder/heard" "$SHARE/out/history-last.jsonl" "the end"
    local missing
    missing=$(comm -13 <(keys "$folder/heard") <(keys "$SHARE/out/history-last.jsonl") | wc -l)
    jq -r 'select(.camera == "absent") | "\(.part_id) \(.id)"' "$folder/heard" | sort -u | cut -d' ' -f1 | uniq -c |
        awk '{ n++; if ($1 > 1) twice++ } END { print "triggers with a verdict: " n + 0 ", with more than one: " twice + 0 }'
    echo "recorded and never heard: $missing; heard twice: $(($(heard "$folder") - $(keys "$folder/heard" | wc -l)))"
    [ "$missing" -le 2 ] || fail "$missing recorded verdicts never reached the subscriber"
}

# camera, sequence and id of each verdict, once.
keys() { jq -r '"\(.camera) \(.sequence) \(.id)"' "$1" | sort -u; }

# Every verdict that was heard is in the history, under its number; numbers have no gap, and none has two verdicts.
compare() {
    local lost gaps
    lost=$(comm -23 <(keys "$1") <(keys "$2"))
    [ -z "$lost" ] || fail "$3: heard and not in the history: $(echo "$lost" | wc -l), such as $(echo "$lost" | head -n 3)"
    gaps=$(keys "$2" | sort -k1,1 -k2,2n |
        awk '$1 != camera { camera = $1; expected = 1 } $2 != expected { print camera, expected, $2 } { expected = $2 + 1 }')
    [ -z "$gaps" ] || fail "$3: the sequence is not whole: $(echo "$gaps" | head -n 3)"
    echo "ok $3: $(keys "$1" | wc -l) heard, all of them among the $(keys "$2" | wc -l) of the history, without a gap"
}
