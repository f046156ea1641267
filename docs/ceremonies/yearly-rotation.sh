#!/usr/bin/env bash
# A new vault key, and everybody sees the own share open.
. "$(dirname "$0")/common.sh"

vault
runvault custody list store --state state                # what is due
agree alice carol rotate --reason 'yearly rotation'
confirm alice bob carol
runvault audit verify store --state state | tail -n 1    # the head: on paper, or in a log of another machine
