#!/bin/sh
# What sessions are promised where systemd runs the agent. The guest's console is the test's output.
set -eu
PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH HOME=/root
step() { echo "== $* ($(cut -d. -f1 /proc/uptime) s)"; }
fail() {
    echo "FAILED: $*"
    journalctl --no-pager --quiet --lines 30 --unit edge-agent
    exit 1
}
until_ok() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || fail "in vain: $*"
        sleep 0.1
    done
}
relay() { /host/relay --state /var/lib/relay "$@"; }
as() {
    login=$1
    shift
    timeout 60 ssh -F none -p 2222 -i /root/key -o BatchMode=yes -o StrictHostKeyChecking=accept-new "$login+cam@127.0.0.1" "$@" </dev/null
}
works() { [ "$(as root 'echo inside')" = inside ]; }
unit=/sys/fs/cgroup/system.slice/edge-agent.service
main() { systemctl show --property MainPID --value edge-agent; }

groups=/sys/fs/cgroup
unit=/system.slice/edge-agent.service
main() { systemctl show --property MainPID --value edge-agent; }
# The cgroup of a process, without its hierarchy.
of() { sed 's/^0:://' "/proc/$1/cgroup"; }
is_gone() { [ ! -e "$1" ]; }
ended() { ! loginctl list-sessions --no-legend | grep --quiet "$1"; }
is() { [ "$1" = "$2" ] || fail "expected \"$2\", got \"$1\""; }
# A command that goes on after its session, with its number.
leave() { as "$1" 'nohup sleep 1000 >/dev/null 2>&1 & echo $!'; }

step "the agent is installed as a service, and serves"
relay serve --ssh 127.0.0.1:2222 --tunnel 127.0.0.1:4433 >/var/log/relay.out 2>/var/log/relay.log &
until_ok grep ^ready /var/log/relay.out
ssh-keygen -q -t ed25519 -N '' -f /root/key
relay user add root --key /root/key.pub --role admin
/host/edge-agent join "$(relay token create)" --name cam
/host/edge-agent install
until_ok works
edge-agent status

step "each session has a cgroup of its own, with a bound on its tasks"
bound=$(cat $groups$unit/pids.max)
one=$(as hf-pi 'sed "s/^0:://" /proc/self/cgroup')
case $one in
$unit/holdfast-uid-4001/?*) ;;
*) fail "a session is in $one" ;;
esac
found=$(as hf-pi "own=$groups\$(sed 's/^0:://' /proc/self/cgroup); cat \$own/pids.max \$own/../pids.max; echo \$own" | tr '\n' ' ')
is "${found%% /*}" "$((bound / 4)) $((bound / 2))"
[ "${found##* /}" != "${one#/}" ] || fail "two sessions share $one"
until_ok is_gone "$groups$one"

step "logind has the session for as long as it lasts, and its runtime folder"
until_ok is_gone /run/user/4001
# shellcheck disable=SC2016
found=$(as hf-pi 'stat -c "%u %a %n" $XDG_RUNTIME_DIR; echo $PLACE; loginctl list-sessions --no-legend | grep -c hf-pi; who | wc -l')
is "$(echo "$found" | tr '\n' ' ')" "4001 700 /run/user/4001 berlin 1 0 "
until_ok ended hf-pi

step "what people leave running outlives the agent, and is bounded still"
left=$(leave hf-pi)
until_ok ended hf-pi
cgroup=$(of "$left")
stays() {
    until_ok works
    [ "$(main)" != "$before" ] || fail "it is the same agent"
    is "$(of "$left")" "$cgroup"
    is "$(cat "$groups$cgroup/pids.max")" "$((bound / 4))"
    case $(as hf-pi 'sed "s/^0:://" /proc/self/cgroup') in
    "$cgroup") fail "a new session is in the cgroup of an old one" ;;
    $unit/holdfast-uid-4001/?*) ;;
    *) fail "a new session has no cgroup of its own" ;;
    esac
}
before=$(main)
systemctl restart edge-agent
stays
before=$(main)
systemctl kill --signal KILL --kill-whom main edge-agent
stays
kill "$left"
until_ok is_gone "/proc/$left"
as hf-pi true
until_ok is_gone "$groups$cgroup"

step "systemd looks at its units again"
systemctl daemon-reload
systemctl set-property --runtime edge-agent.service TasksMax=$((bound - 4))
case $(as hf-pi 'sed "s/^0:://" /proc/self/cgroup') in
$unit/holdfast-uid-4001/?*) ;;
*) fail "a session has no cgroup of its own any more" ;;
esac

step "a fork bomb leaves the agent, a login of root, and one of its own account"
before=$(main)
# shellcheck disable=SC2016
bomb=$(as hf-bomb 'sed "s/^0:://" /proc/self/cgroup; i=0
    while [ $i -lt '"$bound"' ]; do sleep 1000 >/dev/null 2>&1 & i=$((i + 1)); done; echo unbounded' 2>/root/said || true)
cat /root/said
is "$bomb" "$(echo "$bomb" | grep "^$unit/holdfast-uid-4002/")"
grep --quiet "^max [1-9]" "$groups$bomb/pids.events" || fail "nothing was refused"
[ "$(cat "$groups$bomb/pids.current")" -le "$((bound / 4))" ] || fail "it has more than its bound"
is "$(as root 'echo inside')" inside
is "$(as hf-bomb 'echo $(echo inside)')" inside
is "$(main)" "$before"
as root 'pkill -KILL -u hf-bomb'
until_ok ended hf-bomb

step "memory that a session takes is its own end, and no one else's"
left=$(leave hf-pi)
systemctl set-property --runtime edge-agent.service MemoryMax=100M
as hf-bomb 'tail /dev/zero' && fail "it has more memory than there is"
kills() { grep --quiet "^oom_kill [1-9]" "$groups$unit/memory.events"; }
until_ok kills
until_ok works
is "$(main)" "$before"
is "$(systemctl show --property NRestarts --value edge-agent)" 1
[ -e "/proc/$left" ] || fail "what another account left running is gone"

echo "passed ($(cut -d" " -f1 /proc/uptime) s)"
