#!/usr/bin/env bash
# Carol leaves, Dave comes.
. "$(dirname "$0")/common.sh"

vault
key dave
agree alice bob add-custodian dave=dave.key.pub --reason 'Dave takes over from Carol'
confirm alice bob dave                                   # the shares are others than before
agree alice dave remove-custodian carol --reason 'Carol has left'
confirm alice bob dave
runvault custody list store --state state
