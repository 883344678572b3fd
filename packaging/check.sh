#!/bin/sh
# What a package has to bear, in a Debian with a systemd of its own: `cargo xtask package --check` boots one
# and runs this in it, with the packages in /packages. The network is the loopback alone.
set -eu

logs() { journalctl --no-pager --lines 40 --unit holdfast-relay --unit edge-agent; }
. /packages/check-common.sh

step "both are installed, and the relay serves"
dpkg --install /packages/holdfast-relay_*.deb /packages/edge-agent_*.deb
until_ok relay doctor
systemctl is-active holdfast-relay
systemctl is-enabled holdfast-relay edge-agent
if systemctl is-active --quiet edge-agent; then
    echo "the agent runs, and has joined nothing"
    exit 1
fi
systemd-analyze verify /usr/lib/systemd/system/holdfast-relay.service /usr/lib/systemd/system/edge-agent.service
systemd-analyze security --no-pager holdfast-relay.service | tail -n 1
man_pages=$(dpkg --listfiles edge-agent holdfast-relay | grep --count '/man1/.*\.gz$')
[ "$man_pages" -gt 20 ]

step "the relay knows who signs new agents"
release_key
echo 'RELAY_FLAGS="--public 127.0.0.1 --config /etc/holdfast/relay.toml"' >/etc/default/holdfast-relay
systemctl restart holdfast-relay
named() { relay ssh-config | grep --quiet '^Host 127\.0\.0\.1'; }
until_ok named

step "a device joins, and is reached"
ssh-keygen -q -t ed25519 -N '' -f /root/key
relay user add root --key /root/key.pub --role admin
edge-agent join "$(relay token create)" --name cam
systemctl start edge-agent
until_ok edge-agent status
until_ok works

step "an agent that is killed comes back"
before=$(systemctl show --property MainPID --value edge-agent)
systemctl kill --signal KILL --kill-whom main edge-agent
until_ok works
[ "$(systemctl show --property MainPID --value edge-agent)" != "$before" ]

step "a new version that is signed takes the agent's place, and one that is not does not"
new_version /usr/bin/edge-agent
cp /root/new /root/unsigned
if edge-agent upgrade /root/unsigned; then
    echo "nobody signed it"
    exit 1
fi
edge-agent upgrade /root/new
until_ok works
cmp /usr/bin/edge-agent /root/new
systemctl is-active edge-agent

step "what root does while the relay is stopped is the relay's"
systemctl stop holdfast-relay
relay user add second --key /root/key.pub 2>/dev/null || relay token create >/dev/null
systemctl start holdfast-relay
until_ok works
relay token create >/dev/null
works

step "an upgrade keeps keys and membership, and runs the new program"
touch /run/before
dpkg --install /packages/holdfast-relay_*.deb /packages/edge-agent_*.deb
until_ok works
for service in holdfast-relay edge-agent; do
    [ -n "$(find "/proc/$(systemctl show --property MainPID --value "$service")" -maxdepth 0 -newer /run/before)" ]
done

step "what is removed is stopped, and keeps its state"
dpkg --remove edge-agent holdfast-relay
for service in holdfast-relay edge-agent; do
    ! systemctl is-active --quiet "$service"
done
[ -e /var/lib/edge-agent/identity.key ]
[ -d /var/lib/private/holdfast ]
dpkg --install /packages/holdfast-relay_*.deb /packages/edge-agent_*.deb
until_ok works

step "what is purged leaves nothing"
dpkg --purge edge-agent holdfast-relay
for left in /var/lib/edge-agent /var/lib/holdfast /var/lib/private/holdfast /usr/bin/relay /usr/bin/edge-agent; do
    [ ! -e "$left" ]
done
echo passed
