#!/bin/sh
# The service that `edge-agent install` makes under OpenRC, in a Debian whose init that is: `cargo xtask package
# --check` starts this as the first process of a box, and OpenRC starts it once more as the last of its services.
set -eu

if [ "${1-}" = boot ]; then
    cat >/etc/init.d/check <<'SERVICE'
#!/sbin/openrc-run
command=/packages/check-openrc.sh
command_background=yes
pidfile=/run/check.pid
SERVICE
    chmod 755 /etc/init.d/check
    ln -s /etc/init.d/check /etc/runlevels/default/check
    (sleep 300 && openrc-shutdown --poweroff now) &
    exec /sbin/openrc-init
fi

exec >/packages/check-openrc.log 2>&1
logs() { tail -n 40 /var/log/relay.log; }
. /packages/check-common.sh
# Whatever comes of it, the box goes off.
trap 'openrc-shutdown --poweroff now' EXIT

step "OpenRC is the init, and the relay serves"
[ "$(cat /proc/1/comm)" = openrc-init ]
dpkg --extract /packages/holdfast-relay_*.deb /
dpkg --extract /packages/edge-agent_*.deb /root/agent
agent=/root/agent/usr/bin/edge-agent
release_key
relay serve --config /etc/holdfast/relay.toml --ssh 127.0.0.1:2222 --tunnel 127.0.0.1:4433 --public 127.0.0.1 \
    >/var/log/relay.log 2>&1 &
until_ok relay doctor

step "a device joins, and its agent becomes a service"
ssh-keygen -q -t ed25519 -N '' -f /root/key
relay user add root --key /root/key.pub --role admin
$agent join "$(relay token create)" --name cam
$agent install --dry-run >/dev/null
[ ! -e /etc/init.d/edge-agent ]
$agent install
until_ok works
rc-service edge-agent status
rc-update show default | grep --quiet edge-agent
if $agent install | grep write; then
    echo "a second install changed something"
    exit 1
fi

step "an agent that is killed comes back, as often as it is"
comes_back() { pid=$(pidof edge-agent) && [ "$pid" != "$before" ]; }
for _ in 1 2 3; do
    before=$(pidof edge-agent)
    kill -KILL "$before"
    until_ok comes_back
    until_ok works
done

step "what people left running outlives a restart"
on_device 'sleep 4321 >/dev/null 2>&1 &'
rc-service edge-agent restart
until_ok works
for pid in $(pidof sleep); do tr '\0' ' ' <"/proc/$pid/cmdline" && echo; done | grep '^sleep 4321'

step "a new version that is signed takes the agent's place"
new_version /usr/local/bin/edge-agent
edge-agent upgrade /root/new
until_ok works
cmp /usr/local/bin/edge-agent /root/new
rc-service edge-agent restart
until_ok works
cmp /usr/local/bin/edge-agent /root/new

step "what is stopped stays so until it is started"
rc-service edge-agent stop
if rc-service edge-agent status || pidof edge-agent; then
    echo "it runs"
    exit 1
fi
rc-service edge-agent start
until_ok works

step "what is uninstalled leaves its state, and --purge takes that"
$agent uninstall
if pidof edge-agent; then
    echo "it runs"
    exit 1
fi
left=$(find /etc/init.d /etc/runlevels /usr/local/bin -name 'edge-agent*')
[ -z "$left" ]
[ -e /var/lib/edge-agent/identity.key ]
$agent uninstall --purge
[ ! -e /var/lib/edge-agent ]
echo passed
