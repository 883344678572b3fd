#!/usr/bin/env bash
# Holdfast with ProxyJump: see holdfast.sh.
WAY=jump exec "$(dirname "$0")/holdfast.sh" "$@"
