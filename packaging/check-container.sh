#!/bin/sh
# The relay's container image, made by the Containerfile as it stands and run: `cargo xtask package --check` starts
# this in namespaces of its own (processes, mounts, a network that is the loopback alone). Nothing is fetched: the
# base image is made of a Debian in a folder.
#
#   check-container.sh CONTEXT BASE RELEASE AGENT WORK
#
# CONTEXT: the sources, with the relay built. BASE: the folder of a minimal Debian RELEASE. AGENT: the agent for this
# machine. WORK: an empty folder.
set -eu

context=$1 base=$2 release=$3 agent=$4 work=$5
logs() { podman logs relay; }
. "$context/packaging/check-common.sh"
ip link set lo up
# crun takes one version of cgroups or the other, and not the two beside each other that some machines have.
umount /sys/fs/cgroup/unified 2>/dev/null || true

# What containers leave in /run is theirs alone; podman wants a short path for it.
mount -t tmpfs tmpfs /run
podman() { command podman --log-level error --root "$work/images" --runroot /run/containers "$@"; }
relay() { podman exec -i relay relay "$@"; }
on_device() {
    ssh -F none -p 2222 -i "$work/key" -o BatchMode=yes -o StrictHostKeyChecking=accept-new \
        -o UserKnownHostsFile="$work/known_hosts" root+cam@127.0.0.1 "$@"
}
# As the Containerfile says, but for the network, and for limits that every machine lets a container have.
run() {
    podman run -d --name relay --read-only --read-only-tmpfs=false --cap-drop all --security-opt no-new-privileges \
        --network host --cgroups disabled --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 \
        -v holdfast:/var/lib/holdfast holdfast-relay serve --public 127.0.0.1
}
serves() { podman logs relay | grep --quiet '^ready ssh=.*:2222 tunnel=.*:4433$'; }
# The image holds a shell, as its base does; what runs must not need it.
state() { podman exec relay stat -c '%u:%g %a' /var/lib/holdfast; }

step "the image is made of the relay and nothing else of ours"
tar --create --directory "$base" --exclude './var/cache/apt/archives/*.deb' . |
    podman import --quiet - "docker.io/library/debian:$release-slim" >/dev/null
podman build --quiet --pull=never --network none --build-arg DEBIAN="$release" \
    -f "$context/packaging/Containerfile" -t holdfast-relay "$context" >/dev/null
[ "$(podman image inspect --format '{{.Config.User}}' holdfast-relay)" = 65532:65532 ]
printf 'FROM holdfast-relay\nUSER 0\nCOPY . /context\nRUN find /context -type f\n' >"$work/Containerfile"
podman build --pull=never --network none -f "$work/Containerfile" \
    -t context "$context" >"$work/context.log"
[ "$(grep '^/context/' "$work/context.log")" = /context/target/release/relay ]

step "it serves as a user without rights, on a file system that cannot be written"
run >/dev/null
until_ok serves
[ "$(state)" = "65532:65532 700" ]
podman exec relay cat /proc/1/status | grep -E '^(Uid|Gid|CapPrm|CapBnd|NoNewPrivs):' | tee "$work/status"
[ "$(awk '/^[UG]id:/ { print $2, $3, $4, $5 }' "$work/status" | uniq)" = "65532 65532 65532 65532" ]
[ "$(awk '/^Cap/ { print $2 }' "$work/status" | uniq)" = 0000000000000000 ]
grep --quiet 'NoNewPrivs:.*1' "$work/status"
relay doctor
identity=$(relay ssh-config | grep '@cert-authority')

step "a device joins, and is reached"
ssh-keygen -q -t ed25519 -N '' -f "$work/key"
relay user add root --key - --role admin <"$work/key.pub"
$agent join "$(relay token create)" --name cam --state "$work/agent"
$agent run --state "$work/agent" 2>"$work/agent.log" &
until_ok works

step "it ends with 0 when it is told to, and the volume keeps who it is"
podman stop relay >/dev/null
[ "$(podman inspect --format '{{.State.ExitCode}}' relay)" = 0 ]
podman rm relay >/dev/null
run >/dev/null
until_ok serves
until_ok works
[ "$(relay ssh-config | grep '@cert-authority')" = "$identity" ]
podman stop relay >/dev/null
echo passed
