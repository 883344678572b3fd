#!/usr/bin/env bash
# Holdfast's programs of an earlier commit, beside today's: `cargo xtask bench --before COMMIT` builds them. See holdfast.sh.
[ -n "${BEFORE_RELAY:-}" ] && [ -n "${BEFORE_AGENT:-}" ] || { echo "no BEFORE_RELAY or no BEFORE_AGENT"; exit 3; }
HOLDFAST_RELAY=$BEFORE_RELAY HOLDFAST_AGENT=$BEFORE_AGENT DRIVER=before exec "$(dirname "$0")/holdfast.sh" "$@"
