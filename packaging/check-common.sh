# What check.sh, check-openrc.sh and check-container.sh share. The network is the loopback alone; whoever sources this has `logs`.

step() { echo "== $*"; }
# Waits up to half a minute for a command to succeed.
until_ok() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" -gt 60 ]; then
            echo "in vain: $*"
            "$@" || true
            logs || true
            exit 1
        fi
        sleep 0.5
    done
}
relay() { command relay --state /var/lib/holdfast "$@"; }
on_device() {
    ssh -p 2222 -i /root/key -o BatchMode=yes -o StrictHostKeyChecking=accept-new root+cam@127.0.0.1 "$@"
}
works() { [ "$(on_device 'echo inside')" = inside ]; }
# A configuration of the relay with the key that new agents are signed with.
release_key() {
    minisign -G -W -p /root/release.pub -s /root/release.key >/dev/null
    mkdir --parents /etc/holdfast
    echo "release_key = \"$(tail -n 1 /root/release.pub)\"" >/etc/holdfast/relay.toml
}
# Another version of the agent at this path, signed: the same program with something behind its end.
new_version() {
    cp "$1" /root/new
    echo new >>/root/new
    minisign -S -s /root/release.key -m /root/new >/dev/null
}
