#!/usr/bin/env bash
# Holdfast: the agent keeps a QUIC tunnel to the relay and runs the sessions itself. WAY=jump makes the
# operator use ProxyJump; otherwise the direct way (LOGIN+DEVICE@relay). Keepalives and retry times are
# the defaults. Binaries: HOLDFAST_RELAY and HOLDFAST_AGENT, or the release build of this tree.
. "$(dirname "$0")/../lib.sh"
BUILD=$BENCH_DIR/../../target
RELAY=${HOLDFAST_RELAY:-$BUILD/release/relay}
AGENT=${HOLDFAST_AGENT:-$BUILD/release/edge-agent}
[ -x "$RELAY" ] && [ -x "$AGENT" ] || { echo "no $RELAY or no $AGENT"; exit 3; }
PORT=2222
RS=$S/relay-state

info() { echo "holdfast${WAY:+-$WAY}: $("$AGENT" --version), QUIC, own sessions on the device${WAY:+, ProxyJump}"; }

relay_up() {
  bg relay relay "$RELAY" serve --state "$RS" --ssh 0.0.0.0:$PORT --tunnel 0.0.0.0:4433 --public "$RELAY_DEV_IP"
  wait_port "$NS_RELAY" 0.0.0.0 $PORT
}

join() { # NAME STATE TOKEN
  nsenter --net="/run/netns/$NS_DEV" "$AGENT" join "$3" --name "$1" --state "$2" >/dev/null || die "cannot join $1"
}

# BENCH_RECORDING=off: what is measured is not recorded, as with the peers.
operator() {
  if [ "${BENCH_RECORDING:-on}" = on ]; then
    "$RELAY" user add bench --key "$S/op.pub" --role admin --state "$RS"
    return
  fi
  "$RELAY" apply -f - --state "$RS" <<POLICY
[roles.bench]
recording = "$BENCH_RECORDING"
[roles.bench.allow]
labels = { "*" = "*" }
logins = ["root"]
abilities = ["shell", "exec", "sftp", "forward", "admin"]
[users.bench]
roles = ["bench"]
keys = ["$(cat "$S/op.pub")"]
POLICY
}

device_up() {
  operator >/dev/null || die "cannot add the operator"
  [ -d "$S/device" ] || join device "$S/device" "$("$RELAY" token create --state "$RS")"
  bg tunnel tunnel unshare -m sh -c "$(dev_home "$AGENT run --state '$S/device'")"
  local host ca
  host=$("$RELAY" ssh-config --known-hosts --state "$RS" | grep -v ^@ | cut -d' ' -f2-)
  ca=$("$RELAY" ssh-config --known-hosts --state "$RS" | grep ^@ | cut -d' ' -f3-)
  printf '* %s\n@cert-authority device %s\n' "$host" "$ca" > "$S/kh_holdfast"
  if [ "${WAY:-}" = jump ]; then
    cat > "$S/ssh_config" <<CFG
Host relay
  HostName $RELAY_CLIENT_IP
  Port $PORT
Host device
  User root
  ProxyJump relay
CFG
  else
    cat > "$S/ssh_config" <<CFG
Host device
  HostName $RELAY_CLIENT_IP
  Port $PORT
  User root+device
CFG
  fi
  # The cipher is what relay ssh-config prints, with or without ProxyJump.
  cat >> "$S/ssh_config" <<CFG
Host *
  UserKnownHostsFile $S/kh_holdfast
  Ciphers aes256-gcm@openssh.com,chacha20-poly1305@openssh.com
$(ssh_common)
CFG
}

tunnels() { # N further devices; returns when all are connected
  local i token
  token=$("$RELAY" token create --uses "$1" --state "$RS") || die "no token"
  for i in $(seq "$1"); do
    join "x$i" "$S/extra$i" "$token"
    bg tunnel "extra$i" "$AGENT" run --state "$S/extra$i"
  done
  for _ in $(seq 300); do
    [ "$("$RELAY" devices --json --state "$RS" | python3 -c '
import json,sys; print(sum(d["state"]=="online" for d in json.load(sys.stdin)))')" -gt "$1" ] && return
    sleep 0.1
  done
  die "not all of $1 tunnels came up"
}

cmd() { printf '%s\n' ssh -F "$S/ssh_config" device; }
binaries() { echo "$AGENT"; }
driver_main "$@"
