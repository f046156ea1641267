#!/usr/bin/env bash
# Bob's laptop is gone, with his custodian's key and a reader's.
. "$(dirname "$0")/common.sh"

vault
mv bob.key stolen.key
key bobs-reader
agree alice carol add-reader bob=bobs-reader.key.pub --standing --reason 'before the theft'

agree alice carol remove-reader bob --reason 'laptop stolen'
agree alice carol remove-custodian bob --reason 'laptop stolen'
rm bob.key.pub
key bob                                                  # on a new machine
agree alice carol add-custodian bob=bob.key.pub --reason 'Bob, with a new key'
confirm alice bob carol
if runvault custody confirm store --state state --identity stolen.key; then exit 1; fi
runvault custody list store --state state
