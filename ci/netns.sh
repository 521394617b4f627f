#!/usr/bin/env bash
# Two hosts on one machine: two network namespaces with host names of their own, joined by a link of 1 ms and 1 Gbit/s. For root on Linux.
#
#     ci/netns.sh up             makes the hosts `one` (10.77.0.1) and `two` (10.77.0.2); without the right to: exit code 3 and one line
#     ci/netns.sh on HOST COMMAND...      runs a command there
#     ci/netns.sh agent HOST COMMAND      the same as mpirun asks for it (ci/two_hosts.py)
#     ci/netns.sh bytes          prints the bytes that the link has carried, both ways together, with their Ethernet headers
#     ci/netns.sh cut | mend     takes the link away from `two`, or gives it back
#     ci/netns.sh down           removes all
#
# XDIT_NETNS names the pair, so that several can exist. The link is `tc netem` where the kernel has it, and ci/netns.py elsewhere.
set -euo pipefail
id=${XDIT_NETNS:-xdit}
folder=/run/$id-netns
delay_ms=1 mbit=1000
# Jumbo frames: a program can pass 1 Gbit/s of them. Without offloads, which would hide packets from the counters.
mtu=9000

down() {
    # The device driver of the link ends first.
    local link
    link=$(cat "$folder/link" 2>/dev/null) || true
    if [ -n "$link" ] && grep -qs netns.py "/proc/$link/cmdline"; then kill "$link" || true; fi
    for host in one two; do
        ip netns del "$id-$host" 2>/dev/null || true
        rm -rf "/etc/netns/$id-$host"
    done
    rm -rf "$folder"
}
# Runs a command in a namespace with its own name.
on() {
    local host=$1
    shift
    exec ip netns exec "$id-$host" unshare --uts sh -c 'hostname "$0"; exec "$@"' "$host" "$@"
}

case ${1-} in
up)
    down
    if [ "$(id -u)" != 0 ] || ! { ip netns add "$id-one" && ip netns add "$id-two" && unshare --uts true; } 2>/dev/null; then
        echo "this machine does not let me make network namespaces with names of their own" >&2
        down
        exit 3
    fi
    mkdir -p "$folder" "/etc/netns/$id-one" "/etc/netns/$id-two"
    for host in one two; do
        printf '127.0.0.1 localhost\n10.77.0.1 one\n10.77.0.2 two\n' >"/etc/netns/$id-$host/hosts"
    done
    netem() { tc -n "$id-$1" qdisc add dev wire root netem delay "${delay_ms}ms" rate "${mbit}mbit" limit 10000; }
    if { ip -n "$id-one" link add name wire type veth peer name wire netns "$id-two" && netem one && netem two; } 2>/dev/null; then
        kind=netem
    else
        kind=ci/netns.py
        ip -n "$id-one" link del wire 2>/dev/null || true
        [ -c /dev/net/tun ] || { echo "the kernel has neither netem nor /dev/net/tun" >&2; down; exit 3; }
        mkfifo "$folder/ready"
        # Moved in under names that nobody else has.
        nice -n -15 "$(dirname "$0")/netns.py" "$id-one" "$id-1" "$id-two" "$id-2" "${delay_ms}e-3" "${mbit}e6" >"$folder/ready" 2>"$folder/log" &
        echo $! >"$folder/link"
        read -r _ <"$folder/ready" || { cat "$folder/log" >&2; down; exit 3; }
        ip -n "$id-one" link set "$id-1" name wire
        ip -n "$id-two" link set "$id-2" name wire
    fi
    for host in 'one 1' 'two 2'; do
        set -- $host
        ip -n "$id-$1" link set lo up
        ip -n "$id-$1" addr add "10.77.0.$2/24" dev wire
        ip -n "$id-$1" link set wire mtu "$mtu" txqueuelen 10000 up
    done
    echo "$kind"
    ;;
on) on "${@:2}" ;;
agent) on "$2" sh -c "${*:3}" ;;
bytes)
    # What `one` has sent and what it has got.
    ways=$(ip netns exec "$id-one" cat /sys/class/net/wire/statistics/{tx,rx}_bytes)
    echo $((${ways/$'\n'/+}))
    ;;
cut) ip -n "$id-two" link set wire down ;;
mend) ip -n "$id-two" link set wire up ;;
down) down ;;
*)
    sed -n '2,/^set/p' "$0" | grep '^#' >&2
    exit 2
    ;;
esac
